"""Columns of the inputs: how rows become arrays, and what can be done with the arrays.

    float     float64, null is NaN          str, category   object, null is None
    int       int64; float64 if null may    datetime        datetime64[us] in UTC, null is NaT
              occur, null is NaN            tensor          its dtype, one sub-array per row
    bool      bool; object if null may          bytes           object, null is None
              occur, null is None

A dtype depends on the signature alone, never on the rows of a batch. One exception has no other way out: rows of a
tensor whose free dimensions differ within a batch stand in an object array with one array per row.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import starmap
from operator import is_
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from salver.signature import Column, Field, Tensor

Array = NDArray[Any]
Columns = Mapping[str, Array]
Values = Callable[[Any], tuple[Any, ...]]


class MatrixColumns(dict[str, Array]):
    """Columns that are views of one 2-D float64 matrix, in order; `matrix` hands it out without a copy."""

    __slots__ = ("_views", "block")

    def __init__(self, names: Sequence[str], block: Array) -> None:
        self.block = block
        self._views = list(block.T)
        super().__init__(zip(names, self._views, strict=True))

    def whole(self, names: Sequence[str]) -> Array | None:
        """The matrix, if `names` are its columns in its order and none was replaced since."""
        if len(names) == len(self._views) and all(map(is_, map(self.get, names), self._views)):
            return self.block
        return None


def may_be_null(column: Column) -> bool:
    """Whether a row may hold no value: null where `nullable`, absent (or null) where `optional`."""
    return column.nullable or column.optional


def dtype(column: Column) -> DTypeLike:
    """The dtype of a column's array."""
    match column.type:
        case "float":
            return np.float64
        case "int":
            return np.float64 if may_be_null(column) else np.int64
        case "bool":
            return np.object_ if may_be_null(column) else np.bool_
        case "datetime":
            return np.dtype("datetime64[us]")
        case _:
            return np.object_


def builder(fields: tuple[Field, ...], values: Values = msgspec.structs.astuple) -> Callable[[Sequence[Any]], Columns]:
    """Compile the function that turns checked rows into columns; `values` gives the values of one."""
    names = [field.name for field in fields]
    if _is_matrix(fields):
        return partial(_float_columns, names, struct.Struct(f"={len(names)}d").pack, values)
    return partial(_mixed_columns, fields, values)


def _is_matrix(fields: Sequence[Field]) -> bool:
    """Whether the columns are those of one matrix: all are floats."""
    return all(isinstance(field, Column) and field.type == "float" for field in fields)


def _float_columns(names: Sequence[str], pack: Callable[..., bytes], values: Values, rows: Sequence[Any]) -> Columns:
    # Packing each row into its eight-byte floats is the cheapest way measured: half the time of np.fromiter over the
    # chained values, a third of np.array over tuples. A bytearray keeps the matrix writable.
    try:
        block: Array = np.frombuffer(bytearray().join(starmap(pack, map(values, rows))))
    except struct.error:  # a null
        block = np.array(list(map(values, rows)), np.float64)
    return MatrixColumns(names, block.reshape(len(rows), len(names)))


def _mixed_columns(fields: tuple[Field, ...], values: Values, rows: Sequence[Any]) -> Columns:
    by_field: Iterable[Sequence[Any]] = zip(*map(values, rows), strict=True) if rows else [()] * len(fields)
    return {field.name: column(field, each) for field, each in zip(fields, by_field, strict=True)}


def column(field: Field, values: Sequence[Any]) -> Array:
    """The array of one field from its checked values, None for null."""
    if isinstance(field, Column):
        return np.array(values, dtype(field))
    kind = np.dtype(object) if field.dtype == "str" else np.dtype(field.dtype)
    with np.errstate(over="ignore"):  # a token of V1 may be infinite, and so may what doesn't fit beside it
        if -1 in field.row_shape:
            return stack([_shaped(np.array(value, kind), (), field.row_shape) for value in values], field)
        return _shaped(np.array(values, kind), (len(values),), field.row_shape)


def _shaped(array: Array, rows: tuple[int, ...], row_shape: tuple[int, ...]) -> Array:
    """Give an array without elements the dimensions that its empty lists don't show."""
    return array if array.size else array.reshape(*rows, *(max(size, 0) for size in row_shape))


def stack(values: Sequence[Array], field: Tensor) -> Array:
    """One array of all rows; an object array with one array per row where their shapes differ."""
    shapes = {value.shape for value in values}
    if len(shapes) == 1:
        return np.stack(values)
    if not shapes:
        kind = object if field.dtype == "str" else field.dtype
        return np.empty((0, *(max(size, 0) for size in field.row_shape)), kind)
    return ragged(values)


def ragged(values: Sequence[Array]) -> Array:
    """An object array with one array per row."""
    rows = np.empty(len(values), object)
    for place, value in enumerate(values):
        rows[place] = value
    return rows


def matrix(columns: Columns, names: Sequence[str]) -> Array:
    """These columns as one 2-D float64 matrix: without a copy where they are one; ValueError where one holds text."""
    if isinstance(columns, MatrixColumns) and (block := columns.whole(names)) is not None:
        return block
    count = len(columns[names[0]])
    block = np.empty((count, len(names)))
    for place, name in enumerate(names):
        block[:, place] = columns[name]
    return block


def rows_between(columns: Columns, start: int, stop: int) -> Columns:
    """The rows from `start` up to `stop`, as views; rows of a tensor that now agree in shape become one array."""
    if isinstance(columns, MatrixColumns) and columns.whole(names := list(columns)) is not None:
        return MatrixColumns(names, columns.block[start:stop])
    return {name: _settled(values[start:stop]) for name, values in columns.items()}


def _settled(values: Array) -> Array:
    if values.dtype != object or values.ndim != 1 or not len(values) or not isinstance(values[0], np.ndarray):
        return values
    return np.stack(list(values)) if len({value.shape for value in values}) == 1 else values


def concat(parts: Sequence[Columns]) -> Columns:
    """The rows of several tables of one signature, one after the other."""
    if len(parts) == 1:
        return parts[0]
    names = list(parts[0])
    if all(isinstance(part, MatrixColumns) for part in parts):
        return MatrixColumns(names, np.concatenate([matrix(part, names) for part in parts]))
    return {name: _joined([part[name] for part in parts]) for name in names}


def _joined(arrays: Sequence[Array]) -> Array:
    if len({(array.shape[1:], array.dtype) for array in arrays}) == 1:
        return _settled(np.concatenate(arrays))
    return ragged([row for array in arrays for row in array])


def to_dataframe(columns: Columns, fields: tuple[Field, ...], *, categorical: Collection[str] = ()) -> Any:
    """These fields as a pandas DataFrame, in order; a tensor becomes a column of arrays.

    Text and category columns keep the dtype pandas gives strings, which pipelines fitted on strings expect. A model
    that was fitted on pandas categoricals names those columns in `categorical`: they get the signature's categories,
    and what is none of them is missing.
    """
    import pandas as pd

    names = [field.name for field in fields]
    if isinstance(columns, MatrixColumns) and (block := columns.whole(names)) is not None:
        return pd.DataFrame(block, columns=names, copy=False)
    data: dict[str, Any] = {}
    for field in fields:
        values: Any = columns[field.name]
        if isinstance(field, Tensor):
            values = list(values)
        elif field.name in categorical and field.categories:
            known = dict.fromkeys(field.categories)
            values = pd.Categorical([value if value in known else None for value in values], categories=list(known))
        elif field.type in ("str", "category"):
            values = _text(pd, values)
        data[field.name] = values
    return pd.DataFrame(data)


def _text(pd: Any, values: Array) -> Any:
    """Text with the dtype pandas gives strings, said outright: left to guess, it types a batch of nulls otherwise."""
    if int(pd.__version__.partition(".")[0]) >= 3:
        return pd.array(values, dtype="str")
    return np.array([np.nan if value is None else value for value in values], np.object_)


def unseen_counter(fields: tuple[Field, ...]) -> Callable[[Columns], Callable[[], int]] | None:
    """Compile the count of values outside what training saw; None where the signature says nothing of it.

    It takes a copy of what it watches at once, since a model may change its columns, and returns what counts. A null is
    not unseen, and enforced columns never hold such a value.
    """
    ranged = [f for f in fields if isinstance(f, Column) and _has_range(f) and not f.enforce]
    named = [
        (field.name, frozenset(field.categories) | {None})
        for field in fields
        if isinstance(field, Column) and field.categories is not None and not field.enforce
    ]
    if not ranged and not named:
        return None
    bounds = {f.name: (f.minimum, f.maximum) for f in ranged}
    if _is_matrix(fields):  # one comparison of all columns is cheaper than the choice of some
        bounds = {field.name: bounds.get(field.name, (None, None)) for field in fields}
    low = np.array([-np.inf if least is None else least for least, _ in bounds.values()])
    high = np.array([np.inf if most is None else most for _, most in bounds.values()])
    names = list(bounds)

    def watch(columns: Columns) -> Callable[[], int]:
        if isinstance(columns, MatrixColumns):
            return partial(_outside, columns.block.copy(), low, high)
        block = matrix(columns, names).copy() if names else None
        return partial(_unseen, block, low, high, [(columns[name].copy(), known) for name, known in named])

    return watch


def _outside(block: Array, low: Array, high: Array) -> int:
    return int(np.count_nonzero(block < low)) + int(np.count_nonzero(block > high))


def _unseen(block: Array | None, low: Array, high: Array, texts: Sequence[tuple[Array, frozenset[str | None]]]) -> int:
    found = 0 if block is None else _outside(block, low, high)
    for array, known in texts:
        values = array.tolist()
        if not known.issuperset(values):
            found += sum(value not in known for value in values)
    return found


def _has_range(column: Column) -> bool:
    return column.type in ("float", "int") and (column.minimum is not None or column.maximum is not None)
