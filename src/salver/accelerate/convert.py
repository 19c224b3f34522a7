"""Converts a fitted estimator, with its preprocessing, to one ONNX graph of the precision it was fitted in.

A graph in float32 throughout moves rows across the splits of a tree after any scaling. So numbers enter as float64,
preprocessing and linear models stay float64, and what a tree is given is rounded to float32 where the library does so.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from salver import plugins
from salver.accelerate import agreement, bins, boosters, graphs, histogram, imputer, ordinal
from salver.errors import SalverError, error
from salver.signature import Column, Field, Signature, Tensor

NULL_TEXT: Final = "\ue000null"
"""Stands for null in the texts of a graph, which has none: a character that no text uses, and a word."""

OPSET: Final = {"": 19, "ai.onnx.ml": 3}

OWN: Final = (bins, histogram, imputer, ordinal)
"""Modules that convert what skl2onnx doesn't, or not in float64."""

_SINGLE: Final = (
    "sklearn.tree.", "sklearn.ensemble._forest", "sklearn.ensemble._gb", "sklearn.ensemble._iforest",
    "xgboost.", "lightgbm.",
)  # fmt: skip
"""Modules of estimators that round what they are given to float32 before they compare it with a split."""


class Graph(NamedTuple):
    """A converted model: the bytes of the graph, and the options that its framework needs."""

    data: bytes
    options: dict[str, Any]


class Lost(NamedTuple):
    """A step that isn't converted: its place in the model, its class, and in our words why a converter won't."""

    place: str
    kind: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.place} ({self.kind})" + (f": {self.why}" if self.why else "")


class Unconvertible(SalverError):
    """`unsupported-model` that names the steps at fault; `lost` is empty where that is not known of any one."""

    def __init__(self, model: Any, lost: Sequence[Lost]) -> None:
        self.lost = tuple(lost)
        count = f"{len(lost)} of its steps {'have' if len(lost) > 1 else 'has'} no converter"
        super().__init__(
            "unsupported-model",
            f"{type(model).__name__} can't be converted to ONNX: {count if lost else 'no graph of its steps runs'}",
            hint="nothing was published; a pipeline without these steps, or with other settings of them, can be "
            "accelerated",
            details=tuple(map(str, lost or _named(model))),
        )


def convert(model: Any, signature: Signature) -> Graph:
    """The graph of a fitted estimator or pipeline, which opens; raises Unconvertible."""
    try:
        import skl2onnx
    except ModuleNotFoundError:
        raise plugins.missing_extra("skl2onnx", needed_for="converting a model to ONNX") from None
    boosters.register(step for _, step in leaves(model))
    lost = unsupported(model)
    if lost:
        raise Unconvertible(model, lost)
    copies: dict[int, Any] = {}
    prepared = prepare(model, copies)
    types = initial_types(columns_of(model, signature), signature, stacked=not _by_name(model, signature))
    options = {id(prepared): {"zipmap": False}} if hasattr(prepared, "predict_proba") else None
    try:
        graph = skl2onnx.convert_sklearn(
            prepared,
            name="model",
            initial_types=types,
            options=options,
            target_opset=dict(OPSET),
            custom_conversion_functions={kind: made for part in OWN for kind, made in part.conversions().items()},
            custom_shape_calculators=_shapes(prepared),
        )
    except Exception as problem:  # a converter may fail in any way: it is read as "can't"
        raise Unconvertible(model, _at_fault(model, copies, problem)) from problem
    data = agreement.agreed(graph.SerializeToString(deterministic=True))
    if not graphs.opens(data):
        raise Unconvertible(model, ())
    texts = any(isinstance(field, Column) and field.type in ("str", "category") for field in signature.inputs)
    return Graph(data, {"null_text": NULL_TEXT} if texts else {})


def _shapes(model: Any) -> dict[type[Any], Any]:
    shapes = agreement.shapes(_steps(model))
    for part in (bins, imputer, ordinal):
        shapes |= part.shapes()
    return shapes


def _at_fault(model: Any, copies: Mapping[int, Any], problem: Exception) -> list[Lost]:
    """The step whose converter raised `problem`; `copies` holds the copy of each step, by the id of the step."""
    places = {id(copies[id(step)]): lost for step, lost in zip(_steps(model), _named(model), strict=True)}
    found, module = None, ""
    for frame, _ in traceback.walk_tb(problem.__traceback__):
        operator = frame.f_locals.get("operator")
        found = places.get(id(getattr(operator, "raw_operator", None)), found)
        module = frame.f_globals.get("__name__", "")
    if found is None:
        return _named(model) if len(places) == 1 else []
    ours = module.partition(".")[0] == __name__.partition(".")[0]
    return [found._replace(why=str(problem) if ours else "no converter for its settings")]


def _steps(model: Any) -> list[Any]:
    return [step for _, step in leaves(model)]


def _named(model: Any) -> list[Lost]:
    return [Lost(place, type(step).__name__) for place, step in leaves(model)]


def leaves(model: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every estimator of a model that isn't itself made of others, with its place: `columns/words/onehotencoder`."""
    parts: list[tuple[str, Any]] = []
    if hasattr(model, "transformers_"):
        parts = [(name, step) for name, step, _ in model.transformers_]
    elif hasattr(model, "steps"):
        parts = list(model.steps)
    elif hasattr(model, "transformer_list"):
        parts = list(model.transformer_list)
    if not parts:
        yield place or type(model).__name__.lower(), model
    for name, step in parts:
        if not isinstance(step, str):
            yield from leaves(step, f"{place}/{name}" if place else name)


def unsupported(model: Any) -> list[Lost]:
    """The steps of a class that nothing converts."""
    from skl2onnx._supported_operators import sklearn_operator_name_map as known

    return [lost for step, lost in zip(_steps(model), _named(model), strict=True) if type(step) not in known]


def columns_of(model: Any, signature: Signature) -> tuple[Field, ...]:
    """The inputs that the model takes, in its order."""
    fields = {field.name: field for field in signature.inputs}
    names = [str(name) for name in getattr(model, "feature_names_in_", ())] or list(fields)
    if type(model).__name__ in boosters.NAMES and len(names) == len(fields):
        return signature.inputs  # LightGBM spells names its own way, and no booster picks columns
    missing = [name for name in names if name not in fields]
    if missing:
        raise error("bad-signature", f"the signature lacks columns of the model: {', '.join(missing)}")
    return tuple(fields[name] for name in names)


def _by_name(model: Any, signature: Signature) -> bool:
    """Whether each column is an input of its own: where texts are among them, or the model picks columns or orders."""
    fields = columns_of(model, signature)
    numbers = all(isinstance(field, Column) and field.type in ("float", "int", "bool") for field in fields)
    first = model.steps[0][1] if hasattr(model, "steps") else model
    picks = hasattr(first, "transformers_")
    return len(signature.inputs) > 1 and (not numbers or picks or fields != signature.inputs)


def initial_types(fields: Sequence[Field], signature: Signature, *, stacked: bool) -> list[tuple[str, Any]]:
    """The inputs of the graph: one matrix of all columns, or one column of its type for each."""
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    bad = [f"{field.name} is {_spelled(field)}" for field in fields if not _convertible(field)]
    if bad:
        raise error("unsupported-model", "columns that no ONNX graph takes as the model does", details=tuple(bad))
    if len(fields) == 1 and isinstance(fields[0], Tensor):
        return [(fields[0].name, DoubleTensorType([None, *fields[0].row_shape]))]
    if stacked:
        return [("X", DoubleTensorType([None, len(signature.inputs)]))]
    words = ("str", "category")
    kinds = [StringTensorType if isinstance(f, Column) and f.type in words else DoubleTensorType for f in fields]
    return [(field.name, kind([None, 1])) for field, kind in zip(fields, kinds, strict=True)]


def _convertible(field: Field) -> bool:
    if isinstance(field, Tensor):
        return field.dtype in ("float32", "float64")
    return field.type not in ("datetime", "bytes") and not (field.type == "bool" and (field.nullable or field.optional))


def _spelled(field: Field) -> str:
    return (
        f"an array of {field.dtype}"
        if isinstance(field, Tensor)
        else f"{field.type}{', which may be null' * (field.nullable or field.optional)}"
    )


def prepare(model: Any, copies: dict[int, Any]) -> Any:
    """A copy that converters understand and that answers the same: nulls of texts get a text, trees their rounding.

    `copies` receives the copy of each part, by the id of the part.
    """
    changed = copy.deepcopy(model, copies)
    for step in _steps(changed):
        _name_nulls(step)
        boosters.forget_names(step)
    return _rounded(changed)


def _name_nulls(step: Any) -> None:
    if hasattr(step, "categories_"):
        step.categories_ = [_null_named(categories) for categories in step.categories_]
    if hasattr(step, "statistics_") and step.statistics_.dtype == object:
        step.missing_values = NULL_TEXT
        if step.fill_value is None and step.strategy == "constant":
            step.fill_value = "missing_value"


def _null_named(categories: Any) -> Any:
    if categories.dtype != object:
        return categories
    named = [NULL_TEXT if value is None or value != value else value for value in categories.tolist()]
    return np.array(named, object)


def _rounded(model: Any) -> Any:
    """The model with a rounding to float32 before each estimator that does so itself."""
    from skl2onnx.sklapi import CastTransformer
    from sklearn.pipeline import Pipeline

    if hasattr(model, "steps"):
        tail = model.steps[-1][1]
        if rounds(tail):
            model.steps.insert(-1, ("float32", CastTransformer(dtype=np.float32)))
        return model
    return Pipeline([("float32", CastTransformer(dtype=np.float32)), ("model", model)]) if rounds(model) else model


def rounds(step: Any) -> bool:
    """Whether an estimator rounds its inputs to float32."""
    return f"{type(step).__module__}.".startswith(_SINGLE)
