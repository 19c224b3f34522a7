"""How the columns of a request become what a model takes: a DataFrame, an array, or a matrix of numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from salver import tables
from salver.errors import error
from salver.frameworks import Columns
from salver.signature import Column, Field, Tensor

Arrange = Callable[[Columns], Any]
"""Brings columns into the shape that a model takes."""

Levels = Mapping[str, Sequence[Any]]
"""The categories of each categorical column, in the order of training."""


def arrangement(inputs: Sequence[Field], wanted: Sequence[str], categorical: Collection[str] = ()) -> Arrange:
    """A DataFrame where the model knows the columns it `wanted`; else a tensor, a float64 matrix, or one of objects.

    Columns named in `categorical` become pandas categoricals.
    """
    if wanted:
        ordered = in_order(inputs, wanted)
        return lambda columns: tables.to_dataframe(columns, ordered, categorical=categorical)
    if len(inputs) == 1 and isinstance(inputs[0], Tensor):
        only = inputs[0].name
        return lambda columns: columns[only]
    order = tuple(field.name for field in inputs)
    if all(_is_number(field) for field in inputs):
        return lambda columns: tables.matrix(columns, order)
    return lambda columns: np.column_stack([np.asarray(columns[name], dtype=object) for name in order])


def in_order(inputs: Sequence[Field], wanted: Sequence[str]) -> tuple[Field, ...]:
    """The inputs that the model was trained on, in its order; raises `bad-signature`, naming all that lack."""
    fields = {field.name: field for field in inputs}
    missing = sorted(set(wanted) - set(fields))
    if missing:
        raise error(
            "bad-signature",
            f"the model was trained with columns that the signature doesn't have: {', '.join(missing)}",
            hint="give examples as a DataFrame with the columns of training",
        )
    return tuple(fields[name] for name in wanted)


def coded(fields: Sequence[Field], levels: Levels) -> Arrange:
    """One float64 matrix: a category as its place in `levels`, NaN where it is none of them or null.

    This is what gradient boosting libraries make of a DataFrame with categorical columns, at a tenth of the time.
    Raises `bad-signature` for text that has no levels.
    """
    if len(fields) == 1 and isinstance(fields[0], Tensor):
        only = fields[0].name
        return lambda columns: columns[only]
    text = [field.name for field in fields if not _is_number(field) and field.name not in levels]
    if text:
        raise error(
            "bad-signature",
            f"the model was not trained on categories in these columns, which are no numbers: {', '.join(text)}",
            hint="give examples with the columns and dtypes of the training data",
        )
    names = tuple(field.name for field in fields)
    if not levels:
        return lambda columns: tables.matrix(columns, names)
    places = {name: places_of(known) for name, known in levels.items()}

    def arrange(columns: Columns) -> Any:
        block = np.empty((len(columns[names[0]]), len(names)))
        for number, name in enumerate(names):
            values = columns[name]
            if name in places:
                place = places[name].get
                block[:, number] = [place(value, np.nan) for value in values.tolist()]
            else:
                block[:, number] = values
        return block

    return arrange


def frame(fields: tuple[Field, ...], levels: Levels) -> Arrange:
    """A DataFrame of these fields; those with `levels` are pandas categoricals of exactly these, in their order."""

    def arrange(columns: Columns) -> Any:
        import pandas as pd

        made = tables.to_dataframe(columns, fields)
        for name, known in levels.items():
            places = places_of(np.asarray(known).tolist())
            codes = [places.get(value, -1) for value in columns[name].tolist()]
            made[name] = pd.Categorical.from_codes(codes, categories=known)
        return made

    return arrange


def frame_of(fields: tuple[Field, ...], kept: Mapping[str, Mapping[str, Any]]) -> Arrange:
    """A DataFrame of these fields; those in `kept` have the pandas categories that `categories_of` describes there."""

    def arrange(columns: Columns) -> Any:
        import pandas as pd

        made = tables.to_dataframe(columns, fields)
        for name in kept.keys() & set(made.columns):
            levels, said = kept[name]["levels"], kept[name]["dtype"]
            places = places_of(levels)
            codes = [places.get(value, -1) for value in columns[name].tolist()]
            index = pd.Index(levels, dtype=said or None)
            made[name] = pd.Categorical.from_codes(codes, categories=index, ordered=kept[name]["ordered"])
        return made

    return arrange


def categories_of(dtype: Any) -> dict[str, Any]:
    """A pandas categorical dtype as plain values: its `levels`, the `dtype` of numbers among them, `ordered` or not."""
    found = dtype.categories
    number = getattr(found.dtype, "kind", "O") in "iufb"
    return {"levels": found.tolist(), "dtype": found.dtype.name if number else "", "ordered": bool(dtype.ordered)}


def places_of(known: Sequence[Any]) -> dict[Any, int]:
    """The place of each category in their order."""
    return {level: place for place, level in enumerate(known)}


def _is_number(field: Field) -> bool:
    return isinstance(field, Column) and field.type in ("float", "int", "bool")
