"""Keys as they stand in the file, and their 32-bit hashes."""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from salver.lookup.layout import KeyKind

_SPREAD = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: multiplied with it, numbers near each other get hashes far from each other."""
_WORD = 2**64 - 1
_LEAST, _MOST = -(2**63), 2**63 - 1


class Encoded(NamedTuple):
    """Keys ready for the index: `at` is which of the given keys each one was, those left out can't be in any table."""

    at: NDArray[np.int64]
    hashes: NDArray[np.uint32]
    stored: list[bytes] | NDArray[np.int64]


def kind_of(keys: Any) -> KeyKind:
    """What kind of keys these are; the first one decides. Raises TypeError for any other."""
    first = next(iter(keys), "")
    if isinstance(first, str):
        return "str"
    if isinstance(first, bytes):
        return "bytes"
    index(first)
    return "int"


def encode_one(kind: KeyKind, key: Any) -> tuple[int, bytes | int]:
    """Hash and stored form of one key; raises TypeError where it is of another kind."""
    if kind == "int":
        number = _number(key)
        return ((number * _SPREAD) & _WORD) >> 32, number
    text = _text(key) if kind == "str" else _raw(key)
    return crc32(text), text


def encode(kind: KeyKind, keys: Any) -> Encoded:
    """Hashes and stored forms of many keys; None and NaN are left out; raises TypeError at one of another kind."""
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise TypeError("many keys are wanted here, in a list or array")
    if kind == "int":
        return _encode_numbers(keys)
    given = keys.tolist() if hasattr(keys, "tolist") else list(keys)
    one = _text if kind == "str" else _raw
    try:
        stored = list(map(one, given))
        at = np.arange(len(stored))
    except TypeError:
        at, present = _present(given)
        stored = list(map(one, present))
    return Encoded(at, np.fromiter(map(crc32, stored), np.uint32, len(stored)), stored)


def _encode_numbers(keys: Any) -> Encoded:
    given = keys if isinstance(keys, np.ndarray) and keys.dtype.kind in "iu" else list(keys)
    at = np.arange(len(given))
    try:
        if isinstance(given, np.ndarray):
            at = np.flatnonzero(given <= _MOST) if given.dtype.kind == "u" else at
            stored = given[at].astype(np.int64)
        else:
            stored = np.fromiter(map(index, given), np.int64, len(given))
    except (TypeError, OverflowError):
        at, present = _present(given)
        numbers = [_number(key) for key in present]
        fitting = np.array([_LEAST <= number <= _MOST for number in numbers], np.bool_)
        at, stored = at[fitting], np.array([number for number in numbers if _LEAST <= number <= _MOST], np.int64)
    spread = stored.view(np.uint64) * np.uint64(_SPREAD)
    return Encoded(at, (spread >> np.uint64(32)).astype(np.uint32), stored)


def is_missing(key: Any) -> bool:
    """Whether this stands for no key at all: None or NaN."""
    return key is None or (isinstance(key, float) and key != key)


def _present(keys: Iterable[Any]) -> tuple[NDArray[np.int64], list[Any]]:
    kept = [(place, key) for place, key in enumerate(keys) if not is_missing(key)]
    return np.array([place for place, _ in kept], np.int64), [key for _, key in kept]


def _text(key: Any) -> bytes:
    if not isinstance(key, str):
        raise TypeError(f"the keys of this table are str, this is {type(key).__name__}")
    return key.encode("utf-8", "surrogatepass")


def _raw(key: Any) -> bytes:
    if not isinstance(key, bytes):
        raise TypeError(f"the keys of this table are bytes, this is {type(key).__name__}")
    return key


def _number(key: Any) -> int:
    try:
        return index(key)
    except TypeError:
        raise TypeError(f"the keys of this table are int, this is {type(key).__name__}") from None
