"""How many elements a large JSON array has, found without reading them: reading stops at the first beyond the limit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from salver.errors import error
from salver.protocols.rows import MAX_ROWS, UNREADABLE, bad_json, describe, too_many_rows

_SHORT = 1 << 18
_VAST = 1 << 20
MOST_MEMBERS = 10_000
_STRIDE = 1 << 12
_BYTE = re.compile(r"\(byte (\d+)\)$")
_TRUNCATED = "Input data was truncated"
_TOKEN = re.compile(rb"NaN|Infinity")
_TOKENS = (b"-Infinity", b"Infinity", b"NaN")
_Never = Annotated[int, Meta(ge=1, le=0)]
"""What no JSON value is; a decoder that finds anything in its place stops there."""


def elements(data: bytes | Raw, where: str = "$") -> list[Raw]:
    """The elements of a JSON array; raises `too-many-rows` beyond 10,000 without reading further."""
    try:
        if len(memoryview(data)) <= _SHORT:
            items: Sequence[Any] = _LIST.decode(data)
        else:
            items = [item for item in msgspec.structs.astuple(_rows().decode(data)) if item is not UNSET]
    except msgspec.ValidationError as problem:
        if _is_at(problem, f"[{MAX_ROWS}]"):
            raise too_many_rows() from None
        raise error("invalid-row", describe(problem, where)) from None
    except UNREADABLE as problem:
        raise bad_json(problem, data, where) from None
    if len(items) > MAX_ROWS:
        raise too_many_rows()
    return list(items)


def check_rows(data: bytes | Raw, name: str = "") -> None:
    """Raise `too-many-rows` for an array of too many, or an object with such an array of that name.

    Any other problem is found where the rows are read; the tokens that JSON lacks are none.
    """
    if not _is_token(_unreadable(data, name), data):
        return
    size = _SHORT // 4
    while size < 4 * len(memoryview(data)):  # the beginning may be enough
        size *= 4
        begin = memoryview(data)[:size].tobytes()
        for token in _TOKENS:
            begin = begin.replace(token, b"0")
        if _unreadable(begin, name) != _TRUNCATED:
            return


def _unreadable(data: bytes | Raw, name: str) -> str:
    """Why the array can't be read, "" if it can; raises `too-many-rows`."""
    try:
        (_outline(((name, MAX_ROWS),)) if name else _rows()).decode(data)
    except msgspec.ValidationError as problem:
        if _is_at(problem, f".{name}[{MAX_ROWS}]" if name else f"[{MAX_ROWS}]"):
            raise too_many_rows() from None
    except UNREADABLE as problem:
        return str(problem)
    return ""


def _is_token(problem: str, data: bytes | Raw) -> bool:
    """Whether reading stopped at a token that JSON lacks."""
    byte = _BYTE.search(problem)
    return byte is not None and _TOKEN.search(memoryview(data), max(0, int(byte[1]) - 8), int(byte[1]) + 8) is not None


def beyond(body: bytes, most: tuple[tuple[str, int], ...]) -> str:
    """Which member of an object is an array of more elements than `most` says by its name; "" if none is."""
    try:
        _outline(most).decode(body)
    except msgspec.ValidationError as problem:
        return next((name for name, length in most if _is_at(problem, f".{name}[{length}]")), "")
    except UNREADABLE:
        pass
    return ""


def has_many_members(body: bytes, fields: int = 0) -> bool:
    """Whether a large object begins with 10,000 members more than it needs; looks at its beginning only."""
    if len(body) <= _VAST:
        return False
    try:
        return len(_MEMBERS.decode(body[: body.rfind(b",", 0, _SHORT)] + b"}")) > MOST_MEMBERS + fields
    except UNREADABLE:
        return False


def more_than(most: int, body: bytes, mark: bytes) -> bool:
    """Whether a byte is in a body more often than that; where there are few, as fast as memory is read."""
    found, at = 0, body.find(mark)
    while at >= 0 and found <= most:
        found += body.count(mark, at, at + _STRIDE)
        at = body.find(mark, at + _STRIDE)
    return found > most


def _is_at(problem: msgspec.ValidationError, place: str) -> bool:
    return str(problem).endswith(f" - at `${place}`")


@cache
def _array(most: int) -> Any:
    """An array of at most so many elements, as a struct: msgspec fails at the next one without having read it."""
    members = [*((f"e{place}", Raw | UnsetType, UNSET) for place in range(most)), ("end", _Never | UnsetType, UNSET)]
    return msgspec.defstruct("Bounded", members, array_like=True, gc=False)


_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])


@cache
def _rows() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_array(MAX_ROWS))


@cache
def _outline(most: tuple[tuple[str, int], ...]) -> msgspec.json.Decoder[Any]:
    """Decodes an object of which only these arrays matter, whose lengths are limited."""
    members = [(name, _array(length), None) for name, length in most]
    return msgspec.json.Decoder(msgspec.defstruct("Outline", members, gc=False))
