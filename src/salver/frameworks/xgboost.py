"""XGBoost: a native Booster or a model of its scikit-learn API, saved as UBJSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, arrange, boosting
from salver.frameworks.answers import promised
from salver.release import MODEL_DIR
from salver.signature import Column, Field, Signature, Tensor

Scores = Callable[[Any, bool], NDArray[Any]]
"""What the booster says of a matrix: transformed by the objective, or the margin before that."""


class XGBoost:
    """The adapter of XGBoost; served answers are those of the original bit for bit (float32).

    Options: `method` is `predict` or, for a classifier, `predict_proba` (the class as `prediction` and the share of
    each class as `probabilities`); `device` is `cpu` or, in a build with CUDA, `cuda` or `cuda:0`; for a Booster also
    `missing`, the value that stands for none beside NaN, and `iterations`, of which only so many are used.
    """

    name = "xgboost"
    options = ("method", "device", "missing", "iterations")

    def handles(self, model: object) -> bool:
        """Whether the model is a Booster, or one of the classes with the scikit-learn API."""
        return boosting.is_kind(model, "xgboost", ("Booster", "XGBModel"))

    def save(self, model: Any, folder: Path) -> Saved:
        """Write model/model.ubj; what the scikit-learn API holds beside the trees goes into the options."""
        boosting.refuse_own_predict(model, "xgboost")
        booster = _booster(model)
        target = folder / MODEL_DIR
        target.mkdir(parents=True, exist_ok=True)
        booster.save_model(target / "model.ubj")
        options: dict[str, Any] = {"imports": ["xgboost"], **_facts(model)}
        known, cut = _levels(booster)
        if known:
            options["categories"] = {name: np.asarray(levels).tolist() for name, levels in known.items()}
        if cut:
            options["cut"] = cut
        return Saved("model.ubj", options, "", boosting.MAX_BATCH)

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load the trees into a Booster, whatever they were saved from; only XGBoost itself is needed."""
        xgboost = boosting.package("xgboost")
        booster = xgboost.Booster()
        booster.load_model(folder / MODEL_DIR / entry)
        booster.set_param({"nthread": boosting.threads(), "device": _device(xgboost, options)})
        fields = _fields(booster, signature)
        arranged = arrange.coded(fields, _known_levels(booster, fields, options))
        answer = _answer(_scores(xgboost, booster, options), options)
        return promised(lambda columns: answer(arranged(columns)), signature)

    def columns(self, model: Any) -> tuple[str, ...]:
        """The names of the columns that the model was trained on, in order; () where it doesn't know them."""
        return tuple(_booster(model).feature_names or ())

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with `model` as it is in memory, on a DataFrame where it was trained on one."""
        del folder
        booster = _booster(model)
        fields = _fields(booster, signature)
        levels = {**_known_levels(booster, fields, options), **_levels(booster)[0]}
        named = booster.feature_names and not isinstance(fields[0], Tensor)
        arranged = arrange.frame(fields, levels) if named else arrange.coded(fields, levels)
        chosen = boosting.method(options, type(model).__name__, classifies="classes" in options)
        if options["kind"] == "booster":
            xgboost = boosting.package("xgboost")
            missing, used = options.get("missing", np.nan), (0, options.get("iterations", 0))
            return lambda columns: booster.predict(
                xgboost.DMatrix(arranged(columns), missing=missing, enable_categorical=bool(named)),
                iteration_range=used,
            )
        return boosting.asked(model, arranged, chosen)


FRAMEWORK = XGBoost()


def _booster(model: Any) -> Any:
    if not hasattr(model, "get_booster"):
        return model
    if not model.__sklearn_is_fitted__():
        raise error("unsupported-model", f"this {type(model).__name__} is not trained yet", hint="call fit first")
    return model.get_booster()


def _facts(model: Any) -> dict[str, Any]:
    """What the scikit-learn API knows beside its Booster and `predict` depends on."""
    if not hasattr(model, "get_booster"):
        return {"kind": "booster"}
    facts: dict[str, Any] = {"kind": "scikit-learn"}
    stopped = model.get_booster().attr("best_iteration")
    if stopped is not None:
        facts["iterations"] = int(stopped) + 1
    if model.missing is not None and not np.isnan(model.missing):
        facts["missing"] = float(model.missing)
    if hasattr(model, "n_classes_"):
        facts["classes"] = np.asarray(model.classes_).tolist()
        if model.objective == "multi:softmax":
            facts["softmax"] = True
    return facts


def _levels(booster: Any) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The categories that the model keeps, by column; and those of columns where it keeps only beginnings.

    XGBoost counts letters where it should count bytes, so text beyond ASCII loses its end.
    """
    types, names = booster.feature_types or [], booster.feature_names or []
    if "c" not in types:
        return {}, {}
    written = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    kept = written.get("gbtree", written)["model"].get("cats", {}).get("enc", [])
    known: dict[str, Any] = {}
    cut: dict[str, list[str]] = {}
    for name, one in zip(names, kept, strict=bool(kept and names)):
        if "offsets" not in one:
            known[name] = np.array(one["values"], _DTYPES.get(one["type"]))
        elif len(one["offsets"]) > 1:
            ends = one["offsets"]
            letters = bytes(value % 256 for value in one["values"]).decode("utf-8", "ignore")
            split = [letters[start:end] for start, end in pairwise(ends)]
            (known if letters.isascii() else cut)[name] = split
    return known, cut


_DTYPES = {9: "int8", 10: "uint8", 11: "int16", 13: "int32", 15: "int64"}
"""The dtypes of categories that are numbers, as XGBoost writes them; it takes no others."""


def _fields(booster: Any, signature: Signature) -> tuple[Field, ...]:
    if len(signature.inputs) == 1 and isinstance(signature.inputs[0], Tensor):
        return signature.inputs
    if booster.feature_names:
        return arrange.in_order(signature.inputs, booster.feature_names)
    boosting.require_count([field.name for field in signature.inputs], booster.num_features())
    return signature.inputs


def _known_levels(booster: Any, fields: Sequence[Field], options: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """The categories of each column in the order of training: the model's, or the examples' where it has none."""
    levels = dict(options.get("categories", {}))
    for field, kind in zip(fields, booster.feature_types or (), strict=False):
        if kind == "c" and isinstance(field, Column) and field.categories is not None:
            levels.setdefault(field.name, field.categories)
    for name, beginnings in options.get("cut", {}).items():
        found = levels.get(name, ())
        if len(found) != len(beginnings) or not all(map(str.startswith, found, beginnings)):
            raise error(
                "bad-signature",
                f"column {name!r}: XGBoost does not keep categories beyond ASCII whole, and those of the examples are "
                "not the ones it was trained with",
                hint="give examples whose column has the category dtype of the training data",
            )
    return levels


def _device(xgboost: Any, options: Mapping[str, Any]) -> str:
    device = str(options.get("device", "cpu"))
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise error("bad-settings", f"xgboost: unknown device {device!r}", hint="cpu, cuda or cuda:<number>")
    if device != "cpu" and not xgboost.build_info().get("USE_CUDA"):
        raise error("load-failed", f"device {device}: this build of XGBoost has no CUDA", hint="use device = cpu")
    return device


def _scores(xgboost: Any, booster: Any, options: Mapping[str, Any]) -> Scores:
    """The call that gives the bits of the original's: a Booster of kind dart has others in `inplace_predict`."""
    booster_kind = json.loads(booster.save_config())["learner"]["gradient_booster"]["name"]
    missing = options.get("missing", np.nan)
    used = (0, 0) if booster_kind == "gblinear" else (0, int(options.get("iterations", 0)))
    if booster_kind == "gblinear" or (booster_kind == "dart" and options["kind"] == "booster"):
        about = {"feature_names": booster.feature_names, "feature_types": booster.feature_types, "missing": missing}
        return lambda block, margin: booster.predict(
            xgboost.DMatrix(block, nthread=boosting.threads() or None, **about),
            output_margin=margin,
            iteration_range=used,
        )
    return lambda block, margin: booster.inplace_predict(
        block, iteration_range=used, predict_type="margin" if margin else "value", missing=missing
    )


def _answer(scores: Scores, options: Mapping[str, Any]) -> Callable[[Any], Any]:
    """What the scikit-learn API makes of the scores."""
    chosen = boosting.method(options, "this XGBoost model", classifies="classes" in options)
    if "classes" not in options:
        return lambda block: scores(block, False)
    classes, softmax = boosting.classes_of(options["classes"]), bool(options.get("softmax"))
    if chosen == "predict":
        return lambda block: _labels(scores(block, False), classes)

    def both(block: Any) -> Columns:
        found = scores(block, False)
        shares = _softmax(scores(block, True)) if softmax else _shares(found)
        return {"prediction": _labels(found, classes), "probabilities": shares}

    return both


def _labels(found: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    if found.ndim == 2 and len(classes) == 2:  # several labels, each by itself
        return (found > 0.5).astype(np.float64)
    if found.ndim == 2:
        return np.asarray(classes[found.argmax(axis=1)])
    if len(classes) > 2:  # multi:softmax says the class itself
        return np.asarray(classes[found.astype(np.int64)])
    return np.asarray(classes[(found > 0.5).astype(np.int64)])


def _shares(found: NDArray[Any]) -> NDArray[Any]:
    return found if found.ndim == 2 else np.vstack((1.0 - found, found)).transpose()


def _softmax(margin: NDArray[Any]) -> NDArray[Any]:
    softmax: Callable[..., NDArray[Any]] = boosting.package("scipy.special").softmax
    return softmax(margin, axis=1)
