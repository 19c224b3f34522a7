"""CatBoost: any of its models, saved as .cbm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salver import tables
from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, arrange, boosting
from salver.frameworks.answers import promised
from salver.release import MODEL_DIR
from salver.signature import Field, Signature, Tensor

KINDS: Final = ("CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker", "CatBoost")
Call = Callable[[Columns], Any]
FEW: Final = 256
"""Up to so many rows, one array of objects is read sooner than a DataFrame (one row: 0.4 ms against 1.7)."""


class CatBoost:
    """The adapter of CatBoost; served answers are those of the original bit for bit.

    Options: `method` is `predict` or, for a classifier, `predict_proba` (the class as `prediction` and the share of
    each class as `probabilities`); `device` is `cpu` or `gpu`. Categories that are null are refused, as CatBoost does:
    give them a name of their own in training.
    """

    name = "catboost"
    options = ("method", "device")

    def handles(self, model: object) -> bool:
        """Whether the model is a CatBoost, or one of its classes."""
        return boosting.is_kind(model, "catboost", ("CatBoost",))

    def save(self, model: Any, folder: Path) -> Saved:
        """Write model/model.cbm, which holds the labels of a classifier and which columns are categories or text."""
        boosting.refuse_own_predict(model, "catboost")
        if not model.is_fitted():
            raise error("unsupported-model", f"this {type(model).__name__} is not trained yet", hint="call fit first")
        if model.get_embedding_feature_indices():
            raise error("unsupported-model", f"{type(model).__name__}: embedding features are not supported")
        target = folder / MODEL_DIR
        target.mkdir(parents=True, exist_ok=True)
        with _undated(model):
            model.save_model(str(target / "model.cbm"), format="cbm")
        kind = next(base.__name__ for base in type(model).__mro__ if base.__name__ in KINDS)
        return Saved("model.cbm", {"imports": ["catboost"], "kind": kind}, "", boosting.MAX_BATCH)

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load the file into an object of the class that it was saved from."""
        catboost = boosting.package("catboost")
        kind = options.get("kind")
        if kind not in KINDS:
            raise error("load-failed", f"{entry}: CatBoost has no {kind}", hint=f"one of {', '.join(KINDS)}")
        model = getattr(catboost, kind)()
        model.load_model(str(folder / MODEL_DIR / entry), format="cbm")
        return promised(_call(model, options, _pool(catboost, model, signature), _run(options)), signature)

    def columns(self, model: Any) -> tuple[str, ...]:
        """The names of the columns that the model was trained on, in order; () where it doesn't know them."""
        names = tuple(model.feature_names_ or ())
        return () if all(name == str(place) for place, name in enumerate(names)) else names

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with `model` as it is in memory, on a DataFrame where it was trained on one."""
        del folder
        arranged = arrange.arrangement(_fields(model, signature), self.columns(model))
        return _call(model, options, arranged, {})


FRAMEWORK = CatBoost()


@contextmanager
def _undated(model: Any) -> Iterator[None]:
    """Take the time and the random name of a training out of a model meanwhile: the same training is the same file."""
    metadata = model.get_metadata()
    said = {key: metadata[key] for key in ("model_guid", "train_finish_time") if key in metadata}
    try:
        for key in said:
            metadata[key] = ""
        yield
    finally:
        for key, value in said.items():
            metadata[key] = value


def _fields(model: Any, signature: Signature) -> tuple[Field, ...]:
    inputs, names = signature.inputs, FRAMEWORK.columns(model)
    if len(inputs) == 1 and isinstance(inputs[0], Tensor):
        return inputs
    if names:
        return arrange.in_order(inputs, names)
    boosting.require_count([field.name for field in inputs], len(model.feature_names_))
    return inputs


def _run(options: Mapping[str, Any]) -> dict[str, Any]:
    """Where a loaded model runs, and in how many threads: CatBoost itself would take a thread of each core."""
    device = options.get("device", "cpu")
    if device not in ("cpu", "gpu"):
        raise error("bad-settings", f"catboost: unknown device {device!r}", hint="cpu or gpu")
    return {"thread_count": boosting.threads() or -1, "task_type": str(device).upper()}


def _pool(catboost: Any, model: Any, signature: Signature) -> arrange.Arrange:
    """How columns become the pool that CatBoost predicts, once for all that is asked of it."""
    fields = _fields(model, signature)
    marked = {"cat_features": model.get_cat_feature_indices(), "text_features": model.get_text_feature_indices()}
    count, names = boosting.threads() or -1, [field.name for field in fields]
    if not any(marked.values()):
        numbers = arrange.coded(fields, {})
        return lambda columns: catboost.Pool(numbers(columns), thread_count=count)

    def pool(columns: Columns) -> Any:
        if len(columns[names[0]]) > FEW:
            data = tables.to_dataframe(columns, fields)
        else:
            data = np.column_stack([columns[name].astype(object) for name in names])
        return catboost.Pool(data, thread_count=count, **marked)

    return pool


def _call(model: Any, options: Mapping[str, Any], arranged: arrange.Arrange, run: dict[str, Any]) -> Call:
    chosen = boosting.method(options, type(model).__name__, classifies=hasattr(model, "predict_proba"))
    if chosen == "predict":
        return lambda columns: _flat(model.predict(arranged(columns), **run))

    def both(columns: Columns) -> Columns:
        inputs = arranged(columns)
        shares = model.predict_proba(inputs, **run)
        return {"prediction": _flat(model.predict(inputs, **run)), "probabilities": shares}

    return both


def _flat(found: NDArray[Any]) -> NDArray[Any]:
    """Labels of several classes come as a matrix of one column."""
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
