"""Whole arrays as the columns of a signature: what `.npy` and Arrow bring is converted and checked without a loop.

NaN is null here: it is refused where a column may hold none. Infinities pass, unless bounds are enforced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from salver.errors import SalverError, error
from salver.protocols.rows import invalid_row
from salver.protocols.tabular import Table
from salver.signature import Column, Tensor
from salver.tables import Columns, MatrixColumns, may_be_null

Array = Any
Problems = dict[int, list[str]]
"""What is wrong with which row."""


def number_column(field: Column, array: Array, problems: Problems) -> Array:
    """Numbers or bools as the array of a column; adds the rows that it can't hold to `problems`."""
    nulls = np.isnan(array) if array.dtype.kind == "f" else np.zeros(len(array), np.bool_)
    if field.type == "float":
        values: Array = array.astype(np.float64)
    elif field.type == "bool":
        fine = nulls | (array == 0) | (array == 1)
        _add(problems, ~fine, f"{field.name}: expected bool, got another number")
        values = array == 1
        if may_be_null(field):
            values = values.astype(object)
            values[nulls] = None
    else:
        fine = nulls | _fits_int64(array)
        _add(problems, ~fine, f"{field.name}: expected int of 64 bits, got another number")
        whole = np.where(fine & ~nulls, array, 0).astype(np.int64)
        values = whole
        if may_be_null(field):
            values = np.where(nulls, np.nan, whole.astype(np.float64))
    check_column(field, values, nulls, problems)
    return values


def check_column(field: Column, values: Array, nulls: Array, problems: Problems) -> None:
    """Add the rows whose value is null where none may be, or outside what the column enforces."""
    if not may_be_null(field):
        _add(problems, nulls, f"{field.name}: expected {field.type}, got null")
    if not field.enforce:
        return
    if field.type in ("float", "int"):
        numbers = values.astype(np.float64)
        if field.minimum is not None:
            _add(problems, numbers < field.minimum, f"{field.name}: expected at least {field.minimum!r}")
        if field.maximum is not None:
            _add(problems, numbers > field.maximum, f"{field.name}: expected at most {field.maximum!r}")
    elif field.categories and field.type in ("str", "category"):
        known = frozenset(field.categories)
        unknown = np.array([value is not None and value not in known for value in values.tolist()], np.bool_)
        _add(problems, unknown, f"{field.name}: expected a known category")


def tensor_rows(field: Tensor, array: Array) -> Array:
    """An array of all rows as the array of a tensor field; raises `bad-protocol-body` where it can't be."""
    got, wanted = array.shape[1:], field.row_shape
    if len(got) != len(wanted) or any(want not in (-1, size) for size, want in zip(got, wanted, strict=False)):
        raise error(
            "bad-protocol-body",
            f"{field.name}: expected rows of shape {list(wanted)}, got {list(got)}",
            hint="the first dimension is the row",
        )
    for given, dtype in (("b", "bool"), ("O", "str")):
        if (array.dtype.kind == given) != (field.dtype == dtype):
            raise error("bad-protocol-body", f"{field.name}: expected {field.dtype}, got {array.dtype}")
    kind: Any = np.dtype(object if field.dtype == "str" else field.dtype)
    if array.dtype != kind and kind.kind in "iu":
        if array.dtype.kind not in "iu":
            raise error("bad-protocol-body", f"{field.name}: expected {kind}, got {array.dtype}")
        bounds = np.iinfo(kind)
        if array.size and (int(array.min()) < bounds.min or int(array.max()) > bounds.max):
            raise error("invalid-row", f"{field.name}: expected {kind}, got a number out of range")
    with np.errstate(over="ignore"):  # what is too large for fewer bits becomes an infinity, as in a tensor of floats
        return np.array(array, kind, order="C")


def number_tensor(field: Tensor, array: Array) -> Array:
    """Floats of all rows as the array of a tensor of any numbers; raises `invalid-row` where it needs whole ones."""
    if np.dtype(field.dtype).kind in "iu":
        whole = array.astype(np.int64) if np.abs(array).max(initial=0) < 2**53 else array
        if (whole != array).any() or whole is array:
            raise error("invalid-row", f"{field.name}: expected {field.dtype}, got another number")
        array = whole
    return tensor_rows(field, array)


def table(columns: Mapping[str, Array], count: int, problems: Problems, extra: Callable[[], int] | None) -> Table:
    """The rows without a problem as a table, and the errors of the others; rows are counted from 1."""
    if not problems:
        return Table(_matrix(columns), count, count, {}, extra)
    errors: dict[int, SalverError] = {
        row: invalid_row(f"row {row + 1}", [f"row {row + 1}, column {each}" for each in problems[row]], "")
        for row in sorted(problems)
    }
    good = np.ones(count, np.bool_)
    good[list(problems)] = False
    kept = {name: values[good] for name, values in columns.items()}
    return Table(_matrix(kept), count - len(errors), count, errors, extra)


def _matrix(columns: Mapping[str, Array]) -> Columns:
    """Columns that are all floats as one matrix, which the model then gets without another copy."""
    if all(values.dtype == np.float64 and values.ndim == 1 for values in columns.values()):
        return MatrixColumns(list(columns), np.stack(list(columns.values()), axis=1))
    return columns


def _fits_int64(array: Array) -> Array:
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            return (np.abs(array) < 2.0**63) & (np.floor(array) == array)
    if array.dtype == np.uint64:
        return array <= np.uint64(2**63 - 1)
    return np.ones(len(array), np.bool_)


def _add(problems: Problems, wrong: Array, what: str) -> None:
    for row in np.flatnonzero(wrong).tolist():
        problems.setdefault(row, []).append(what)
