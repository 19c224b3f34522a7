"""What the adapters of the gradient boosting libraries share."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salver import plugins
from salver.errors import error
from salver.frameworks import Columns
from salver.frameworks.arrange import Arrange

MAX_BATCH: Final = 1024
"""A call costs most of its time before it looks at the first row."""

METHODS: Final = ("predict", "predict_proba")


def is_kind(model: object, package: str, classes: Sequence[str]) -> bool:
    """Whether the class of `model` is, or inherits from, one of these classes of `package`."""
    bases = type(model).__mro__
    return any(base.__module__.partition(".")[0] == package and base.__name__ in classes for base in bases)


def package(name: str) -> Any:
    """The library; raises `missing-extra` where it isn't installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        if problem.name != name:
            raise
        raise plugins.missing_extra(name, needed_for=f"this {name} model") from None


def threads() -> int:
    """The size of thread pools that this process was given, in `OMP_NUM_THREADS`; 0 where it was given none."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdigit() else 0


def method(options: Mapping[str, Any], model: str, *, classifies: bool) -> str:
    """The option `method`; raises `bad-settings` for one that is none, `unsupported-model` for one it doesn't have."""
    chosen = str(options.get("method", "predict"))
    if chosen not in METHODS:
        raise error("bad-settings", f"unknown method {chosen!r}", hint=f"one of {', '.join(METHODS)}")
    if chosen == "predict_proba" and not classifies:
        raise error("unsupported-model", f"{model} has no predict_proba", hint="leave out the option method")
    return chosen


def refuse_own_predict(model: object, package: str) -> None:
    """Refuse a model whose class overrides how it predicts: the library's file would lose that."""
    for base in type(model).__mro__:
        if base.__module__.partition(".")[0] == package:
            return
        own = sorted({"predict", "predict_proba"} & set(vars(base)))
        if own:
            raise error(
                "unsupported-model",
                f"{base.__qualname__} has its own {' and '.join(own)}, which a file of {package} can't keep",
                hint="release a salver.Model that holds the model and calls it",
            )


def require_count(names: Sequence[str], expected: int) -> None:
    """Refuse inputs by place of which there are not as many as the model was trained with."""
    if len(names) != expected:
        raise error(
            "bad-signature",
            f"the model was trained with {expected} columns, the signature has {len(names)}: {', '.join(names)}",
        )


def classes_of(values: Sequence[Any]) -> NDArray[Any]:
    """The labels of a classifier, as options keep them, as an array."""
    return np.array(values, dtype=object if any(isinstance(value, str) for value in values) else None)


def asked(model: Any, arranged: Arrange, method: str) -> Callable[[Columns], Any]:
    """What a model of the scikit-learn API itself answers: its `predict`, with the shares of the classes if asked."""
    if method == "predict":
        return lambda columns: model.predict(arranged(columns))

    def both(columns: Columns) -> Columns:
        inputs = arranged(columns)
        return {"prediction": model.predict(inputs), "probabilities": model.predict_proba(inputs)}

    return both
