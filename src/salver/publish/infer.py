"""The signature found in example rows, and those rows in the forms that requests and models take.

Types follow the examples exactly: what they hold is what requests may hold. Ranges and categories describe them and
refuse nothing by themselves.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from salver.errors import SalverError, error
from salver.publish.columns import Typed, UnusableError, as_array, is_series, typed_column
from salver.publish.containers import bad_examples, is_column, read
from salver.signature import Column, ColumnType, Field, Tensor
from salver.tables.columns import dtype, may_be_null

MAX_CATEGORIES = 100
ROWS_PER_CATEGORY = 5
"""Text is a category if it has at most so many values, and each stands for so many rows on average."""


def infer_inputs(examples: Any, *, names: Sequence[str] = (), private: Collection[str] = ()) -> tuple[Field, ...]:
    """The inputs that the examples show: a DataFrame, numpy array, mapping of arrays, structured array, list of dicts.

    Names are taken from the container. A 2-D array is columns called `names`, or `x0`, `x1`, …; one list or array of
    texts is called `text`, or `names[0]`; an array of more dimensions is one tensor `input`, or `names[0]`. Missing
    values make a column nullable, keys that some dicts lack make it optional. Nothing of a `private` column's values is
    kept. Raises `bad-examples` with every problem.
    """
    columns = read(examples, names)
    unknown = [name for name in private if name not in {column.name for column in columns}]
    if unknown:
        raise bad_examples([f"the private column {name!r} is not among them" for name in unknown])
    return tuple(_input(column, column.name in private) for column in columns)


def infer_outputs(raw: Any, *, name: str = "prediction") -> tuple[Field, ...]:
    """The outputs that a model's raw answer shows; one called `name` unless the answer is a mapping or DataFrame.

    One dimension is a column, more are a tensor. Ranges are left out: those of a few answers promise nothing. NaN and
    infinities are not allowed by themselves: an output that may hold them has to be declared so. Raises `bad-output`.
    """
    whole = isinstance(raw, Mapping) or hasattr(raw, "columns")
    if not whole and not is_column(raw):
        raise _bad_output((f"it is one {type(raw).__name__}",))
    try:
        return tuple(_output(column) for column in read(raw if whole else {name: raw}, finite=False))
    except SalverError as problem:
        raise _bad_output(problem.details) from None


def to_rows(examples: Any, inputs: Sequence[Field]) -> list[dict[str, Any]]:
    """The examples as request rows in native JSON values, which a server reads back to exactly the same values.

    Missing values are null, dates ISO 8601 (`Z` where they had a time zone). Columns that `inputs` doesn't name are
    left out. Raises `bad-examples`, naming all, where the examples don't fit `inputs`.
    """
    columns = _fitted(examples, inputs)
    lists = [_json_values(column) for column in columns]
    return [dict(zip((column.name for column in columns), row, strict=True)) for row in zip(*lists, strict=True)]


def to_columns(examples: Any, inputs: Sequence[Field]) -> dict[str, NDArray[Any]]:
    """The examples as the arrays that a served model gets for the same rows, one per input; raises like `to_rows`."""
    columns = _fitted(examples, inputs)
    return {field.name: _array(field, column) for field, column in zip(inputs, columns, strict=True)}


def _bad_output(problems: tuple[str, ...]) -> SalverError:
    hint = "predict returns one entry per row: an array, or columns by name"
    return error("bad-output", "what the model answered can't be described", hint=hint, details=problems)


def _input(column: Typed, private: bool) -> Field:
    if column.type == "tensor":
        return Tensor(column.name, _dtype(column), (-1, *column.values.shape[1:]), private=private)
    field = Column(
        column.name,
        column.type,
        nullable=bool(column.missing.any()) or column.absent,
        optional=column.absent,
        private=private,
    )
    if private:
        return field
    if column.type in ("int", "float") and not column.missing.all():
        seen = column.values[~column.missing]
        return msgspec.structs.replace(field, minimum=float(seen.min()), maximum=float(seen.max()))
    return _categorised(field, column)


def _output(column: Typed) -> Field:
    if column.type == "tensor":
        return Tensor(column.name, _dtype(column), (-1, *column.values.shape[1:]))
    lost = column.missing.any() and column.type != "float"
    return _categorised(Column(column.name, column.type, nullable=bool(lost)), column)


def _categorised(field: Column, column: Typed) -> Column:
    levels = column.levels
    if levels is None and field.type == "str":
        seen = column.values[~column.missing]
        found = sorted(set(seen.tolist()))
        if len(found) <= MAX_CATEGORIES and len(seen) >= ROWS_PER_CATEGORY * len(found) > 0:
            levels = tuple(found)
    if levels is None:
        return field
    return msgspec.structs.replace(field, type="category", categories=levels)


def _dtype(column: Typed) -> str:
    return "str" if column.values.dtype.kind in "UO" else column.values.dtype.name


# Examples for given inputs


def _fitted(examples: Any, inputs: Sequence[Field]) -> list[Typed]:
    """The columns of `inputs`, in their order, each converted to its field's type."""
    found = {column.name: column for column in _named(examples, inputs)}
    problems: list[str] = []
    fitted: list[Typed] = []
    rows = len(next(iter(found.values())).values)
    for field in inputs:
        column = found.get(field.name)
        try:
            if column is not None:
                fitted.append(_fit(field, column))
            elif not isinstance(field, Column) or not field.optional:
                problems.append(f"column {field.name!r} is missing")
            else:
                fitted.append(Typed(field.name, field.type, _blank(field.type, rows), np.ones(rows, bool)))
        except UnusableError as problem:
            problems.append(f"column {field.name!r} {problem}")
    if problems:
        raise bad_examples(problems)
    return fitted


def _named(examples: Any, inputs: Sequence[Field]) -> list[Typed]:
    """The columns of the examples; containers without names get those of the inputs."""
    names = [field.name for field in inputs]
    with suppress(UnusableError):  # which `read` reports
        examples = as_array(examples)
    nameless = isinstance(examples, np.ndarray) and not examples.dtype.names
    nameless = nameless or (is_series(examples) and not isinstance(examples.name, str))
    if nameless and len(inputs) == 1 and isinstance(inputs[0], Tensor):
        return read({names[0]: examples})
    rows_of_lists = isinstance(examples, list | tuple) and not any(isinstance(row, Mapping) for row in examples)
    return read(examples, names if nameless or rows_of_lists else ())


_FITS: dict[str, tuple[ColumnType, ...]] = {
    "float": ("float",),
    "int": ("int", "float"),
    "bool": ("bool",),
    "str": ("str", "category"),
    "category": ("category", "str"),
    "datetime": ("datetime",),
    "bytes": ("bytes",),
}
"""As which types a column of examples may be sent; besides, whole floats may be int, and text a date or base64."""


def _fit(field: Field, column: Typed) -> Typed:
    if isinstance(field, Tensor):
        return _fit_tensor(field, column)
    if column.type == "tensor":
        raise UnusableError(f"holds arrays, where {field.type} is expected")
    if column.missing.any() and not may_be_null(field):
        rows = np.flatnonzero(column.missing)
        raise UnusableError(f"is not nullable but holds no value in {len(rows)} rows, first in row {rows[0]}")
    if column.missing.all():
        return column._replace(type=field.type, values=_blank(field.type, len(column.values)))
    if field.type == "int" and column.type in ("int", "float"):  # pandas keeps whole numbers with gaps as floats
        return column._replace(type="int", values=_whole(field, column))
    if column.type == "str" and field.type == "datetime":
        return _dates(column)
    if column.type == "str" and field.type == "bytes":
        return column._replace(type="bytes", values=_unpacked(column))
    if field.type not in _FITS[column.type]:
        raise UnusableError(f"holds {column.type}, where {field.type} is expected")
    if field.type == "float":
        return column._replace(type="float", values=_as_float(column))
    return column._replace(type=field.type)


_EXACT = 2**53


def _blank(kind: ColumnType, rows: int) -> NDArray[Any]:
    """Values of a type for rows that have none."""
    fill: dict[ColumnType, tuple[Any, Any]] = {
        "float": (np.nan, float),
        "int": (0, np.int64),
        "bool": (False, bool),
        "datetime": (np.datetime64("NaT"), "datetime64[us]"),
    }
    value, dtype = fill.get(kind, (None, object))
    return np.full(rows, value, dtype)


def _whole(field: Column, column: Typed) -> NDArray[Any]:
    seen = column.values[~column.missing]
    if column.type == "float" and (not (seen == np.trunc(seen)).all() or (np.abs(seen) >= 2.0**63).any()):
        raise UnusableError("holds float, where int is expected")
    if may_be_null(field) and ((seen > _EXACT) | (seen < -_EXACT)).any():
        raise UnusableError(
            "is nullable and holds whole numbers beyond 2**53, which can't be kept exactly beside nulls"
        )
    return np.where(column.missing, 0, column.values).astype(np.int64)


def _as_float(column: Typed) -> NDArray[Any]:
    floats = column.values.astype(np.float64)
    if (floats.astype(column.values.dtype) != column.values)[~column.missing].any():
        raise UnusableError("holds whole numbers that no float holds exactly")
    return floats


def _dates(column: Typed) -> Typed:
    try:
        values = [None if text is None else datetime.fromisoformat(text) for text in column.values]
    except ValueError:
        raise UnusableError("holds text that is no ISO 8601 date, where datetime is expected") from None
    return typed_column(column.name, values)


def _unpacked(column: Typed) -> NDArray[Any]:
    values = np.empty(len(column.values), object)
    try:
        for row in np.flatnonzero(~column.missing):
            values[row] = b64decode(column.values[row], validate=True)
    except ValueError:
        raise UnusableError("holds text that is no base64, where bytes are expected") from None
    return values


def _fit_tensor(field: Tensor, column: Typed) -> Typed:
    values = column.values
    if column.type == "tensor":
        shape = (-1, *values.shape[1:])
    elif column.missing.any():
        raise UnusableError("holds arrays, which can't be missing in some rows")
    else:
        shape = (-1,)
    if len(shape) != len(field.shape) or any(d not in (-1, size) for d, size in zip(field.shape, shape, strict=True)):
        raise UnusableError(f"has the shape {list(shape)}, where {list(field.shape)} is expected")
    if field.dtype == "str" and values.dtype.kind in "UO":
        return column._replace(type="tensor", values=values.astype(object))
    if values.dtype.kind in "UOM" or field.dtype == "str" or not np.can_cast(values.dtype, field.dtype, "same_kind"):
        raise UnusableError(f"holds {_dtype(column)}, where {field.dtype} is expected")
    return column._replace(type="tensor", values=values.astype(field.dtype))


def _json_values(column: Typed) -> list[Any]:
    if column.type == "tensor":
        return cast("list[Any]", column.values.tolist())
    values = column.values.tolist()
    if column.type == "datetime":
        zone = "Z" if column.utc else ""
        values = [time and time.isoformat() + zone for time in values]
    if column.type == "bytes":
        values = [None if value is None else b64encode(value).decode() for value in values]
    return [None if lost else value for value, lost in zip(values, column.missing.tolist(), strict=True)]


def _array(field: Field, column: Typed) -> NDArray[Any]:
    if isinstance(field, Tensor):
        return column.values
    array = column.values.astype(dtype(field))
    if column.missing.any() and array.dtype.kind in "fO":
        array[column.missing] = np.nan if array.dtype.kind == "f" else None
    return array
