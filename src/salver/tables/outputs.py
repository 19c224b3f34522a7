"""What a model returned, as columns of the outputs' types; and which of its rows can't be answered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from salver.errors import SalverError, error
from salver.signature import Column, Field, Signature, Tensor, is_blob
from salver.tables.columns import Array, Columns, column, dtype, may_be_null, ragged, stack


def check_finite(outputs: Columns, signature: Signature) -> list[int]:
    """The rows that hold NaN or an infinity in an output that does not allow it; null is NaN in a nullable output."""
    bad: Any = False
    for field in signature.outputs:
        values = outputs[field.name]
        if field.non_finite or (isinstance(field, Column) and field.type not in ("float", "int")):
            continue
        if values.dtype == object and isinstance(field, Tensor):
            fine = np.array([row.dtype.kind != "f" or bool(np.isfinite(row).all()) for row in values], np.bool_)
        elif values.dtype.kind == "f":
            fine = ~np.isinf(values) if isinstance(field, Column) and may_be_null(field) else np.isfinite(values)
        else:
            continue
        if not fine.all():
            bad = bad | ~fine.reshape(len(fine), -1).all(axis=1)
    return [] if bad is False else np.flatnonzero(bad).tolist()


def outputs_from(raw: Any, outputs: tuple[Field, ...], count: int) -> Columns:
    """What a model returned for `count` rows, as columns of the signature's outputs and dtypes.

    `raw` is an array or list with one entry per row, a 2-D array with one column per output, a tuple with one array per
    output, a mapping from output to column, or a pandas DataFrame or Series. Raises `row-count` where its length is not
    `count`, and `bad-output` where names or types don't fit.
    """
    given = _named(raw, [field.name for field in outputs])
    problems: list[str] = []
    columns: dict[str, Array] = {}
    for field in outputs:
        values = _as_array(given[field.name], field.name, keep=is_blob(field))
        if len(values) != count:
            raise error(
                "row-count",
                f"predict returned {len(values)} entries of {field.name!r} for {count} rows",
                hint="return exactly one entry per row, in order",
            )
        try:
            columns[field.name] = _fitted(values, field) if count else column(field, ())
        except _MisfitError as problem:
            problems.append(f"output {field.name!r}: {problem}")
    if problems:
        raise error("bad-output", "; ".join(problems), hint="the signature says what predict returns")
    return columns


class _MisfitError(ValueError):
    """Why an array can't be the column of an output."""


def _bad_output(what: str) -> SalverError:
    return error(
        "bad-output", f"predict returned {what}", hint="return one entry per row: an array, or columns by name"
    )


def _named(raw: Any, names: list[str]) -> Mapping[str, Any]:
    if isinstance(raw, Mapping):
        given: Mapping[str, Any] = raw
    elif hasattr(raw, "columns") and hasattr(raw, "to_numpy"):  # a DataFrame, without importing pandas
        given = {str(name): raw[name] for name in raw.columns}
        if len(names) == len(given) == 1:  # a single column may have any name
            given = dict(zip(names, given.values(), strict=True))
    elif len(names) == 1:
        return {names[0]: raw}
    elif isinstance(raw, tuple) and len(raw) == len(names):
        return dict(zip(names, raw, strict=True))
    else:
        values = _as_array(raw, ", ".join(names))
        if values.ndim != 2 or values.shape[1] != len(names):
            raise _bad_output(f"shape {list(values.shape)} for {len(names)} outputs ({', '.join(names)})")
        return dict(zip(names, values.T, strict=True))
    if set(given) != set(names):
        raise _bad_output(f"columns {sorted(map(str, given))}; the signature's outputs are {sorted(names)}")
    return given


def _as_array(value: Any, name: str, *, keep: bool = False) -> Array:
    """The array of a column; `keep` leaves what a list holds as it is: numpy strips zeros from the end of bytes."""
    if hasattr(value, "toarray"):  # a sparse matrix
        value = value.toarray()
    if keep and isinstance(value, list | tuple):
        return ragged(value)
    try:
        array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    except ValueError:
        if not isinstance(value, list | tuple):
            raise
        array = ragged([np.asarray(row) for row in value])
    if array.ndim == 0:
        raise _bad_output(f"one {type(value).__name__} for {name!r}")
    return array


def _fitted(values: Array, field: Field) -> Array:
    if isinstance(field, Tensor):
        return _fitted_tensor(values, field)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise _MisfitError(f"expected one value per row, got shape {list(values.shape)}")
    match field.type:
        case "float" | "int":
            return _fitted_numbers(values, field)
        case "bool":
            return _fitted_objects(values, field, bool)
        case "datetime":
            return _fitted_datetimes(values, field)
        case "bytes":
            return _fitted_objects(values, field, bytes)
        case _:
            texts = _fitted_objects(values, field, str)
            try:
                "".join(text for text in texts.tolist() if text is not None).encode()
            except UnicodeEncodeError:
                raise _MisfitError("text with a lone surrogate can't be sent") from None
            return texts


def _fitted_numbers(values: Array, field: Column) -> Array:
    wanted = dtype(field)
    if values.dtype == wanted and (field.type == "float" or wanted is np.int64):
        return values
    if values.dtype == object:
        if not all(isinstance(v, int | float | np.number | None) and not isinstance(v, bool) for v in values.tolist()):
            raise _MisfitError(f"expected {field.type}, got {_types(values)}")
        values = values.astype(np.float64) if None in values.tolist() or field.type == "float" else _integers(values)
    if values.dtype.kind not in "iuf":
        raise _MisfitError(f"expected {field.type}, got {values.dtype}")
    if field.type == "float":
        return values.astype(np.float64)
    if values.dtype.kind == "f":
        known = values[~np.isnan(values)] if may_be_null(field) else values
        if not (np.isfinite(known).all() and (known == np.floor(known)).all() and (np.abs(known) < 2.0**63).all()):
            raise _MisfitError("expected int, got numbers that aren't whole")
    elif values.dtype.kind == "u" and len(values) and values.max() > np.iinfo(np.int64).max:
        raise _MisfitError("expected int, got numbers above 2^63 - 1")
    return values.astype(wanted)


def _integers(values: Array) -> Array:
    plain = values.tolist()
    if any(isinstance(value, float | np.floating) for value in plain):
        return values.astype(np.float64)
    try:
        return np.array(plain, np.int64)
    except OverflowError:
        raise _MisfitError("expected int, got numbers outside 64 bits") from None


_DTYPE_KINDS = {str: "U", bytes: "S", bool: "b"}


def _fitted_objects(values: Array, field: Column, kind: type) -> Array:
    """Texts, bytes or bools: an array of that type, or objects which all are, with None (or NaN) for null."""
    if values.dtype.kind == _DTYPE_KINDS[kind]:
        return values.astype(dtype(field))
    if values.dtype.kind == "T":  # numpy's variable-width text
        values = values.astype(object)
    if values.dtype != object:
        raise _MisfitError(f"expected {field.type}, got {values.dtype}")
    plain = values.tolist()
    if may_be_null(field):
        plain = [None if _is_null(value) else value for value in plain]
    allowed = (kind, np.bool_, type(None)) if kind is bool else (kind, type(None))
    if not all(isinstance(value, allowed) for value in plain) or (None in plain and not may_be_null(field)):
        raise _MisfitError(f"expected {field.type}, got {_types(values)}")
    return np.array([kind(value) if value is not None else None for value in plain], dtype(field))


def _fitted_datetimes(values: Array, field: Column) -> Array:
    if values.dtype == object:
        plain = [None if _is_null(value) else value for value in values.tolist()]
        if not all(isinstance(value, datetime | None) for value in plain):
            raise _MisfitError(f"expected datetime, got {_types(values)}")
        naive = [v.astimezone(UTC).replace(tzinfo=None) if v is not None and v.tzinfo else v for v in plain]
        values = np.array(naive, "datetime64[us]")
    if values.dtype.kind != "M":
        raise _MisfitError(f"expected datetime, got {values.dtype}")
    if not may_be_null(field) and np.isnat(values).any():
        raise _MisfitError("expected datetime, got NaT")
    return values.astype("datetime64[us]")


def _fitted_tensor(values: Array, field: Tensor) -> Array:
    if values.dtype == object and values.ndim == 1 and len(values) and isinstance(values[0], np.ndarray | list):
        return stack([_fitted_rows(np.asarray(row)[None], field)[0] for row in values], field)
    return _fitted_rows(values, field)


def _fitted_rows(values: Array, field: Tensor) -> Array:
    got, wanted = values.shape[1:], field.row_shape
    if len(got) != len(wanted) or any(want not in (-1, size) for size, want in zip(got, wanted, strict=False)):
        raise _MisfitError(f"expected rows of shape {list(wanted)}, got {list(got)}")
    if field.dtype == "str":
        if values.dtype.kind != "U" and not all(isinstance(value, str) for value in values.ravel().tolist()):
            raise _MisfitError(f"expected str, got {values.dtype}")
        return values.astype(object)
    kind = np.dtype(field.dtype)
    if values.dtype != kind and not np.can_cast(values.dtype, kind, "same_kind"):
        raise _MisfitError(f"expected {kind}, got {values.dtype}")
    with np.errstate(over="ignore"):  # what becomes an infinity is found by check_finite
        return values.astype(kind, copy=False)


def _is_null(value: Any) -> bool:
    """Whether a value is one of the ways Python and pandas say that there is none: None, NaN, NaT, NA."""
    return (
        value is None
        or (isinstance(value, float | np.floating | datetime) and value != value)
        or type(value).__name__ == "NAType"
    )


def _types(values: Array) -> str:
    return " and ".join(sorted({"null" if value is None else type(value).__name__ for value in values.tolist()}))
