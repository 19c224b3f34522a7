"""LightGBM: a Booster or a model of its scikit-learn API, saved as LightGBM's text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, arrange, boosting
from salver.frameworks.answers import promised
from salver.release import MODEL_DIR
from salver.signature import Field, Signature, Tensor


class LightGBM:
    """The adapter of LightGBM; served answers are those of the original bit for bit.

    Options: `method` is `predict` or, for a classifier, `predict_proba` (the class as `prediction` and the share of
    each class as `probabilities`); `categorical` names the columns that were pandas categoricals in training, where
    the model doesn't show which they were. LightGBM predicts on the CPU only.
    """

    name = "lightgbm"
    options = ("method", "categorical")

    def handles(self, model: object) -> bool:
        """Whether the model is a Booster, or one of the classes with the scikit-learn API."""
        return boosting.is_kind(model, "lightgbm", ("Booster", "LGBMModel"))

    def save(self, model: Any, folder: Path) -> Saved:
        """Write model/model.txt, up to the best iteration; the labels of a classifier go into the options."""
        boosting.refuse_own_predict(model, "lightgbm")
        booster = _booster(model)
        target = folder / MODEL_DIR
        target.mkdir(parents=True, exist_ok=True)
        booster.save_model(target / "model.txt")
        options: dict[str, Any] = {"imports": ["lightgbm"], **_facts(model)}
        categorical = _categorical(booster, target / "model.txt")
        if categorical:
            options["categorical"] = categorical
        return Saved("model.txt", options, "", boosting.MAX_BATCH)

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load the text into a Booster, whatever it was saved from; nothing else is needed."""
        booster = boosting.package("lightgbm").Booster(model_file=str(folder / MODEL_DIR / entry))
        fields = _fields(booster, signature)
        arranged = arrange.coded(fields, _levels(booster, fields, options))
        answer = _answer(booster, options)
        return promised(lambda columns: answer(arranged(columns)), signature)

    def columns(self, model: Any) -> tuple[str, ...]:
        """The names of the columns that the model was trained on, in order; () where it doesn't know them."""
        return _names(_booster(model))

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with `model` as it is in memory, on a DataFrame where it was trained on one."""
        del folder
        booster = _booster(model)
        fields = _fields(booster, signature)
        levels = _levels(booster, fields, options)
        named = _names(booster) and not isinstance(fields[0], Tensor)
        arranged = arrange.frame(fields, levels) if named else arrange.coded(fields, levels)
        chosen = boosting.method(options, type(model).__name__, classifies="classes" in options)
        return boosting.asked(model, arranged, chosen)


FRAMEWORK = LightGBM()


def _booster(model: Any) -> Any:
    if not hasattr(model, "booster_") and hasattr(model, "fit"):
        raise error("unsupported-model", f"this {type(model).__name__} is not trained yet", hint="call fit first")
    return getattr(model, "booster_", model)


def _facts(model: Any) -> dict[str, Any]:
    """What the scikit-learn API knows beside its Booster and `predict` depends on."""
    if not hasattr(model, "booster_"):
        return {}
    said = {name: value for name, value in model.get_params().items() if name.startswith("pred_early_stop")}
    facts: dict[str, Any] = {"predict": said} if said else {}
    if hasattr(model, "classes_") and not callable(model.objective_):
        facts["classes"] = np.asarray(model.classes_).tolist()
    return facts


def _names(booster: Any) -> tuple[str, ...]:
    names = tuple(booster.feature_name())
    return () if all(name == f"Column_{place}" for place, name in enumerate(names)) else names


def _categorical(booster: Any, path: Path) -> list[str]:
    """The columns with categories, from how the text describes each; [] unless they are as many as it has lists of."""
    if not booster.pandas_categorical:
        return []
    with path.open(encoding="utf-8") as lines:
        infos = next((line for line in lines if line.startswith("feature_infos=")), "").rstrip("\n").partition("=")[2]
    described = zip(booster.feature_name(), infos.split(" "), strict=False)
    found = [name for name, info in described if not info.startswith("[") and info != "none"]
    return found if len(found) == len(booster.pandas_categorical) else []


def _fields(booster: Any, signature: Signature) -> tuple[Field, ...]:
    inputs, names = signature.inputs, _names(booster)
    if len(inputs) == 1 and isinstance(inputs[0], Tensor):
        return inputs
    if not names:
        boosting.require_count([field.name for field in inputs], booster.num_feature())
        return inputs
    spelled = {_spelled(field.name): field.name for field in inputs}
    return arrange.in_order(inputs, [spelled.get(name, name) for name in names])


def _spelled(name: str) -> str:
    """A column's name as LightGBM writes it."""
    return re.sub(r"\s", "_", name)


def _levels(booster: Any, fields: Sequence[Field], options: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """The categories of each column that was a pandas categorical in training, in that order."""
    lists = booster.pandas_categorical or []
    said = {_spelled(str(name)) for name in options.get("categorical", ())}
    names = [
        field.name
        for field in fields
        if (_spelled(field.name) in said if said else not isinstance(field, Tensor) and field.type in _TEXT)
    ]
    if not lists:
        return {}
    if len(names) != len(lists):
        raise error(
            "bad-signature",
            f"the model was trained with {len(lists)} categorical columns, and these are known to be: "
            f"{', '.join(names) or 'none'}",
            hint='name them all: options={"categorical": ["…"]}',
        )
    return dict(zip(names, lists, strict=True))


_TEXT = ("category", "str")


def _answer(booster: Any, options: Mapping[str, Any]) -> Callable[[Any], Any]:
    """What the scikit-learn API makes of the scores."""
    chosen = boosting.method(options, "this LightGBM model", classifies="classes" in options)
    said = {**options.get("predict", {}), "num_threads": boosting.threads()}
    if "classes" not in options:
        return lambda block: booster.predict(block, **said)
    classes = boosting.classes_of(options["classes"])

    def both(block: Any) -> Columns:
        shares = _shares(booster.predict(block, **said))
        return {"prediction": classes[shares.argmax(axis=1)], "probabilities": shares}

    return both if chosen == "predict_proba" else lambda block: both(block)["prediction"]


def _shares(found: NDArray[Any]) -> NDArray[Any]:
    return found if found.ndim == 2 else np.vstack((1.0 - found, found)).transpose()
