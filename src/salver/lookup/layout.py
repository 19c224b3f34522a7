"""The layout of a table file: magic, length and checksum of the header, the header as JSON, then aligned sections.

    b"SALVTAB\\n" | uint32 header bytes | uint32 crc32 of the header | header | sections, each at a multiple of 64

The index comes first: `hashes` holds the sorted 32-bit hashes of the keys, `order` the row of each, `ends` and `keys`
the keys, in the order in which they were written. `records` holds the rows in that order, each with all its columns;
of a text a record has only start and end in the column's `texts`. All numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import msgspec
import numpy as np
from msgspec import Meta, Struct

from salver.errors import error

MAGIC = b"SALVTAB\n"
FORMAT = 1
ALIGNMENT = 64
MAX_ROWS = 2**32 - 1
FIXED_KINDS = "biufM"
_START = struct.Struct("<8sII")
_MAX_HEADER = 1 << 20

Size = Annotated[int, Meta(ge=0)]
KeyKind = Literal["str", "int", "bytes"]


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A run of bytes: where it begins, counted from the end of the header, its size and its crc32."""

    offset: Size
    size: Size
    crc: int


class Column(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One column: numpy's dtype and the shape of a row, or the dtype "str" or "bytes" and the section of its texts."""

    name: str
    dtype: str
    shape: tuple[Size, ...] = ()
    texts: Section | None = None


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """What a table file says of itself; `plain` where a row is one array or number and no mapping of columns.

    `ends` is where each key ends among the keys; None where they are int.
    """

    format: int
    rows: Size
    key_kind: KeyKind
    plain: bool
    hashes: Section
    order: Section
    ends: Section | None
    keys: Section
    records: Section
    columns: tuple[Column, ...]

    def sections(self) -> list[Section]:
        """Every section, in the order of the file."""
        parts = [self.hashes, self.order, self.ends, self.keys, self.records]
        return [part for part in [*parts, *(column.texts for column in self.columns)] if part is not None]


def record_dtype(columns: Sequence[Column]) -> np.dtype[Any]:
    """The numpy dtype of a record: its fields are the numbers of the columns."""
    spans = [("<u8", (2,)) if column.texts else (column.dtype, column.shape) for column in columns]
    return np.dtype([(str(number), *span) for number, span in enumerate(spans)])


def aligned(position: int) -> int:
    """The first multiple of the alignment at or after `position`."""
    return -(-position // ALIGNMENT) * ALIGNMENT


def encode(header: Header) -> bytes:
    """The first bytes of a file, up to its first section."""
    text = msgspec.json.encode(header)
    start = _START.pack(MAGIC, len(text), zlib.crc32(text)) + text
    return start.ljust(aligned(len(start)), b"\0")


def read(path: Path) -> tuple[Header, int]:
    """The header of a file and where its sections begin; raises `corrupt` unless the file is whole in size."""
    try:
        with path.open("rb") as file:
            start = file.read(_START.size)
            if not start.startswith(MAGIC):
                damaged(path, "it doesn't begin as a table does")
            if len(start) < _START.size:
                damaged(path, "it ends in its header")
            _, length, crc = _START.unpack(start)
            text = file.read(min(length, _MAX_HEADER))
            end = file.seek(0, 2)
    except (FileNotFoundError, IsADirectoryError):
        raise error("missing-file", f"{path} is no file", hint="Table.write makes a table") from None
    if len(text) != length or zlib.crc32(text) != crc:
        damaged(path, "its header is damaged")
    header = _parse(text, path)
    base = aligned(_START.size + length)
    _check(header, end - base, path)
    return header, base


def _parse(text: bytes, path: Path) -> Header:
    try:
        number = msgspec.json.decode(text, type=_Numbered).format
        if number <= FORMAT:
            return msgspec.json.decode(text, type=Header)
    except msgspec.DecodeError as problem:
        damaged(path, f"its header can't be read: {problem}")
    raise error(
        "format-too-new", f"{path}: table format {number}; this Salver reads up to {FORMAT}", hint="update Salver"
    )


def _check(header: Header, size: int, path: Path) -> None:
    """Refuse a file whose sections don't lie in a row up to its end, each as long as its rows need."""
    end = 0
    for section in header.sections():
        if section.offset != aligned(end):
            damaged(path, "its sections don't follow each other")
        end = section.offset + section.size
    if size != end:
        damaged(path, f"it has {abs(end - size)} bytes too {'few' if size < end else 'many'}")
    rows = header.rows
    ends = (header.keys, 8 * rows) if header.ends is None else (header.ends, 8 * (rows + 1))
    records = (header.records, rows * record_dtype(header.columns).itemsize)
    expected = [(header.hashes, 4 * rows), (header.order, 4 * rows), ends, records]
    if any(section.size != size for section, size in expected):
        damaged(path, "a section has another size than its rows need")


def decoded(raw: bytes, path: Path) -> str:
    """A text as it stands in the file."""
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        damaged(path, "a text is no UTF-8")


def damaged(path: Path, what: str) -> NoReturn:
    """Raise the error for a file that isn't what was written."""
    raise error("corrupt", f"{path}: {what}", hint="write the table again, or fetch the release again")


class _Numbered(Struct):
    format: int
