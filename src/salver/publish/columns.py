"""One type for one column of examples, whatever held it: a numpy array, a pandas Series or Python values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from salver.signature import DTYPES, ColumnType


class Typed(NamedTuple):
    """One column of examples with one type.

    `values` is float*, int*, bool, datetime64[us] or object (str, bytes) and has one entry per row; what stands where
    `missing` is true means nothing. With type `tensor` it has further dimensions. `levels` are the categories of a
    categorical column; `absent` says that some rows lack the field altogether; `utc` that dates carried a time zone.
    """

    name: str
    type: ColumnType | Literal["tensor"]
    values: NDArray[Any]
    missing: NDArray[np.bool_]
    levels: tuple[str, ...] | None = None
    absent: bool = False
    utc: bool = False


class UnusableError(Exception):
    """What is wrong with one column; collected with the others, never seen outside of this package."""


def typed_column(name: str, values: Any) -> Typed:
    """Read a column with its one type; raises `UnusableError` where it has none that a signature describes."""
    if is_series(values):
        return _of_series(name, values)
    values = as_array(values)
    if isinstance(values, np.ma.MaskedArray):
        return _of_array(name, values.data, np.ma.getmaskarray(values))
    if isinstance(values, np.ndarray):
        return _of_array(name, values)
    return _of_objects(name, _objects(values))


def comes_from(thing: object, package: str) -> bool:
    """Whether an object's class is defined in a package; imports nothing."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(thing).__mro__)


def is_series(values: Any) -> bool:
    """Whether this is a pandas Series."""
    return comes_from(values, "pandas") and hasattr(values, "iloc") and hasattr(values, "dtype")


def as_array(values: Any) -> Any:
    """An array of another library, such as a tensor, as one of numpy, or as a number where it has no dimension.

    All else comes back as it is. Raises `UnusableError` where numpy has no such array.
    """
    foreign = hasattr(values, "__array__") and not isinstance(values, np.ndarray | np.generic)
    if not foreign or is_series(values) or hasattr(values, "columns"):
        return values
    try:
        return np.asarray(values.detach().cpu().numpy() if hasattr(values, "detach") else values)[()]
    except (TypeError, ValueError, RuntimeError):
        kind, dtype = type(values).__qualname__, getattr(values, "dtype", "its type")
        raise UnusableError(
            f"holds a {kind} of {dtype}, for which numpy has no array; convert it, for instance to float32"
        ) from None


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = as_array(value)
    return array


def _of_series(name: str, series: Any) -> Typed:
    """A pandas Series of any dtype; extension types are read value by value."""
    dtype = series.dtype
    missing = series.isna().to_numpy(dtype=bool)
    if isinstance(dtype, np.dtype):
        return _of_array(name, series.to_numpy(), None if dtype.kind == "O" else missing)
    hint: ColumnType | None = _KINDS.get(getattr(dtype, "kind", ""))
    if hint is None and getattr(dtype, "name", "").startswith("str"):
        hint = "str"
    levels = None
    if hasattr(dtype, "categories"):
        found = dtype.categories.tolist()
        if all(isinstance(level, str) for level in found):
            levels, hint = tuple(found), "str"
    typed = _of_objects(name, series.astype(object).to_numpy(), missing, hint)
    return typed._replace(type="category", levels=levels) if levels is not None else typed


_KINDS: dict[str, ColumnType] = {
    "b": "bool", "i": "int", "u": "int", "f": "float", "U": "str", "M": "datetime",
    "S": "bytes",
}  # fmt: skip


def _of_array(name: str, values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> Typed:
    """A numpy array of any dtype; `missing` marks what is masked beside NaN and NaT."""
    none = np.zeros(len(values), bool) if missing is None or values.ndim > 1 else missing
    kind = values.dtype.kind
    if kind == "O" and values.ndim == 1:
        return _of_objects(name, values, missing)
    if values.ndim > 1:
        return Typed(name, "tensor", _tensor(values, missing), none)
    if kind not in _KINDS or (values.dtype.itemsize > 8 and kind == "f"):
        raise UnusableError(f"holds {values.dtype}, which no signature describes")
    if kind == "f":
        none = none | np.isnan(values)
    elif kind == "u" and (values[~none] > np.iinfo(np.int64).max).any():
        raise UnusableError(_TOO_LARGE)
    elif kind in "US":
        return _of_objects(name, values.astype(object), none, _KINDS[kind])
    elif kind == "M":
        none = none | np.isnat(values)
        values = _microseconds(values, none)
    return Typed(name, _KINDS[kind], values, none)


_TOO_LARGE = "holds whole numbers beyond 64 bits"


def _microseconds(values: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[Any]:
    rounded = values.astype("datetime64[us]")
    if (rounded[~missing].astype(values.dtype) != values[~missing]).any():
        raise UnusableError("holds times finer than a microsecond, which is as fine as requests are read")
    return rounded


def _tensor(values: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[Any]:
    dtype = "str" if values.dtype.kind == "U" else values.dtype.name
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.ravel()):
        dtype = "str"
    if dtype not in DTYPES:
        raise UnusableError(f"holds an array of {values.dtype}, which no signature describes")
    if 0 in values.shape[1:]:
        raise UnusableError(f"holds arrays of shape {list(values.shape[1:])}, which have no values")
    if mask is not None and mask.any():
        raise UnusableError("holds arrays with masked values")
    return values


# Python objects, one by one


def _of_objects(
    name: str, values: NDArray[Any], missing: NDArray[np.bool_] | None = None, hint: ColumnType | None = None
) -> Typed:
    gone = np.fromiter(map(_is_missing, values), bool, len(values))
    if missing is not None:
        gone |= missing
    first: dict[str, int] = {}
    for row in np.flatnonzero(~gone):
        first.setdefault(_kind(values[row]), int(row))
    if set(first) == {"int", "float"}:
        del first["int"]
    if len(first) > 1:
        mix = " and ".join(f"{kind} (row {row})" for kind, row in first.items())
        raise UnusableError(f"mixes {mix}")
    kind = next(iter(first), hint)
    if kind is None:
        raise UnusableError("holds no value at all, so its type can't be told")
    if kind == "sequence":
        if gone.any():
            raise UnusableError("holds arrays, which can't be missing in some rows")
        return Typed(name, "tensor", _stacked(values), gone)
    if kind not in _CONVERT:
        raise UnusableError(f"holds {kind}, which no signature describes")
    return _CONVERT[kind](name, values, gone)


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, float | np.floating | np.datetime64):
        return bool(value != value)
    return type(value).__name__ in ("NAType", "NaTType")


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, Integral):
        return "int"
    if isinstance(value, Real) and not isinstance(value, Decimal):
        return "float"
    if isinstance(value, str):
        return "str"
    if isinstance(value, bytes | bytearray):
        return "bytes"
    if isinstance(value, date | np.datetime64):
        return "datetime"
    if isinstance(value, list | tuple | np.ndarray):
        return "sequence"
    return "nested objects" if isinstance(value, Mapping) else type(value).__name__


def _stacked(values: NDArray[Any]) -> NDArray[Any]:
    try:
        stacked = np.asarray(list(values))
    except ValueError:
        raise UnusableError("holds lists of different lengths") from None
    if stacked.dtype.kind not in "biufU":
        raise UnusableError("holds lists of something else than numbers or text")
    return _tensor(stacked, None)


def _floats(name: str, values: NDArray[Any], gone: NDArray[np.bool_]) -> Typed:
    numbers = np.array([np.nan if lost else float(value) for value, lost in zip(values, gone, strict=True)], float)
    return Typed(name, "float", numbers, gone)


def _ints(name: str, values: NDArray[Any], gone: NDArray[np.bool_]) -> Typed:
    try:
        numbers = [0 if lost else int(value) for value, lost in zip(values, gone, strict=True)]
        return Typed(name, "int", np.array(numbers, np.int64), gone)
    except OverflowError:
        raise UnusableError(_TOO_LARGE) from None


def _bools(name: str, values: NDArray[Any], gone: NDArray[np.bool_]) -> Typed:
    return Typed(name, "bool", np.array([not lost and bool(v) for v, lost in zip(values, gone, strict=True)]), gone)


def _strings(name: str, values: NDArray[Any], gone: NDArray[np.bool_]) -> Typed:
    return Typed(name, "str", _objects([None if lost else str(v) for v, lost in zip(values, gone, strict=True)]), gone)


def _blobs(name: str, values: NDArray[Any], gone: NDArray[np.bool_]) -> Typed:
    return Typed(
        name, "bytes", _objects([None if lost else bytes(v) for v, lost in zip(values, gone, strict=True)]), gone
    )


def _datetimes(name: str, values: NDArray[Any], gone: NDArray[np.bool_]) -> Typed:
    times = [None if lost else _datetime(value) for value, lost in zip(values, gone, strict=True)]
    zones = {time.tzinfo is not None for time in times if time is not None}
    if len(zones) > 1:
        raise UnusableError("mixes times with and without a time zone")
    naive = [time.astimezone(UTC).replace(tzinfo=None) if time is not None and time.tzinfo else time for time in times]
    return Typed(name, "datetime", np.array(naive, "datetime64[us]"), gone, utc=True in zones)


def _datetime(value: Any) -> datetime:
    if isinstance(value, np.datetime64):
        value = _microseconds(np.array([value]), np.zeros(1, bool))[0].item()
    elif getattr(value, "nanosecond", 0):
        raise UnusableError("holds times finer than a microsecond, which is as fine as requests are read")
    elif hasattr(value, "to_pydatetime"):
        value = value.to_pydatetime()
    if isinstance(value, datetime):
        return value
    return datetime(value.year, value.month, value.day)


_CONVERT = {
    "float": _floats, "int": _ints, "bool": _bools, "str": _strings, "datetime": _datetimes, "bytes": _blobs,
}  # fmt: skip
