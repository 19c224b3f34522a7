"""A reader and writer of protobuf messages, as far as the few messages of gRPC need it. Standard library only.

Reading is defensive: lengths are checked, unknown fields are left to the caller, groups are skipped to a bounded depth
and the number of fields is bounded, so that a hostile message costs no more than its size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = 0, 1, 2, 3, 4, 5
MOST_FIELDS = 1 << 18
_MOST_NESTED = 16
_MASK = (1 << 64) - 1
_SIZES = {FIXED64: struct.Struct("<Q"), FIXED32: struct.Struct("<I")}


class Malformed(ValueError):
    """These bytes are not the message that they should be."""


def fields(data: bytes | memoryview, most: int = MOST_FIELDS) -> list[tuple[int, Any]]:
    """The fields of a message in order: each its key (number × 8 + wire type), and an integer or a memoryview.

    Raises `Malformed` on bytes that are no message or hold more than `most` fields.
    """
    view = memoryview(data)
    found: list[tuple[int, Any]] = []
    at, end = 0, len(view)
    try:
        while at < end:
            key = view[at]
            at += 1
            if key > 127:
                key, at = varint(view, at - 1)
            value: Any
            wire = key & 7
            if wire == BYTES:
                size = view[at]
                at += 1
                if size > 127:
                    size, at = varint(view, at - 1)
                value = view[at : at + size]
                at += size
                if at > end:
                    raise Malformed(f"field {key >> 3} is longer than the message")
            elif wire == VARINT:
                value, at = varint(view, at)
            else:
                value, at = _rare(view, at, key)
            if not 8 <= key < 1 << 32:
                raise Malformed(f"there is no field {key >> 3}")
            if len(found) >= most:
                raise Malformed(f"there are more than {most} fields")
            found.append((key, value))
    except (IndexError, struct.error):
        raise Malformed("the message ends in the middle of a field") from None
    return found


def varint(view: memoryview, at: int) -> tuple[int, int]:
    """The unsigned 64-bit integer at `at`, and where it ends; IndexError where the bytes end first."""
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & _MASK, at
        shift += 7
        if shift > 63:
            raise Malformed("an integer has more than 10 bytes")


def varints(view: memoryview) -> list[int]:
    """Packed unsigned 64-bit integers."""
    values = []
    at, end = 0, len(view)
    try:
        while at < end:
            value, at = varint(view, at)
            values.append(value)
    except IndexError:
        raise Malformed("the integers end in the middle of one") from None
    return values


def signed(value: int) -> int:
    """An unsigned 64-bit integer read as two's complement."""
    return value - (1 << 64) if value >> 63 else value


def text(view: Any) -> str:
    """A string field's value."""
    if not isinstance(view, memoryview):
        raise Malformed("a text has the wrong wire type")
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError:
        raise Malformed("a text is not UTF-8") from None


def _rare(view: memoryview, at: int, key: int) -> tuple[Any, int]:
    """The value of a fixed-size field or a group, and where it ends."""
    wire = key & 7
    if wire in _SIZES:
        size = _SIZES[wire]
        return size.unpack_from(view, at)[0], at + size.size
    if wire != GROUP:
        raise Malformed(f"field {key >> 3} has wire type {wire}")
    opened = [key >> 3]
    while opened:
        inner, at = varint(view, at)
        wire = inner & 7
        if wire == GROUP:
            opened.append(inner >> 3)
            if len(opened) > _MOST_NESTED:
                raise Malformed(f"groups are nested deeper than {_MOST_NESTED}")
        elif wire == END_GROUP:
            if opened.pop() != inner >> 3:
                raise Malformed("a group ends that did not begin")
        elif wire == BYTES:
            length, at = varint(view, at)
            at += length
        elif wire == VARINT:
            _, at = varint(view, at)
        elif wire in _SIZES:
            at += _SIZES[wire].size
        else:
            raise Malformed(f"wire type {wire}")
    if at > len(view):
        raise Malformed("a group is longer than the message")
    return None, at


def uint(value: int) -> bytes:
    """An integer as a varint; a negative one as the 64 bits of its two's complement."""
    if 0 <= value < 128:
        return _SMALL[value]
    value &= _MASK
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


_SMALL = [bytes([value]) for value in range(128)]


def block(number: int, data: bytes) -> bytes:
    """A length-delimited field: bytes, a message, packed values."""
    return uint(number << 3 | BYTES) + uint(len(data)) + data


def string(number: int, value: str) -> bytes:
    """A string field, nothing where it is empty."""
    return block(number, value.encode()) if value else b""


def integer(number: int, value: int) -> bytes:
    """An integer or bool field, nothing where it is 0."""
    return uint(number << 3) + uint(value) if value else b""


def packed(number: int, values: Iterable[int]) -> bytes:
    """A repeated integer field, nothing where it is empty."""
    data = b"".join(map(uint, values))
    return block(number, data) if data else b""
