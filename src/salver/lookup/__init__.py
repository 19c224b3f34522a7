"""A keyed table in a file: `Table` reads of it only what is asked for, and is written once."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from salver.lookup import layout
from salver.lookup.index import Index
from salver.lookup.keys import encode
from salver.lookup.records import Records
from salver.lookup.writing import write

_AT_ONCE = 4096
_PIECE = 1 << 20


class Rows(NamedTuple):
    """What `Table.get` found: `values`, one per key, and `found`, whether the table has that key.

    `values` is an array whose first dimension is the keys, or a mapping of such arrays where the table has columns.
    """

    values: Any
    found: NDArray[np.bool_]


class Table:
    """A keyed table in a file, of which only the rows that are asked for are read.

    Open it in the `load` of a model: `self.words = salver.Table(files / "words.table")`. Its index is mapped into
    memory (16 bytes and the key itself for each row), rows are read from the file when they are asked for; the workers
    of a machine share both through the page cache. Keys are str, int or bytes. `table[key]` is the row of a key,
    `table.get(keys)` the rows of many; a row is an array or number, or a mapping of columns. Iterating gives the keys
    in the order in which they were written.

    Raises `missing-file`, `corrupt` where the file isn't what was written, and `format-too-new`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._header, self._base = layout.read(self._path)
        self._index = Index(self._path, self._header, self._base)
        self._records = Records(self._path, self._header, self._base)

    @staticmethod
    def write(path: str | os.PathLike[str], keys: Iterable[Any], values: Any) -> int:
        """Write a table and return how many rows it has; the same content in the same order is the same file.

        `values` is an array with one row per key, or a mapping of columns or a DataFrame: arrays of numbers or times of
        any shape, str or bytes. Raises `bad-table` where a key comes twice or a column can't be stored.
        """
        return write(Path(path), [(keys, values)])

    @staticmethod
    def write_batches(path: str | os.PathLike[str], batches: Iterable[tuple[Any, Any]]) -> int:
        """Write a table that needn't fit into memory from pairs of keys and values, as `write` takes them."""
        return write(Path(path), batches)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns; none where a row is one array or number."""
        return () if self._header.plain else self._names()

    def __len__(self) -> int:
        return self._header.rows

    def __contains__(self, key: Any) -> bool:
        return self._index.row(key) >= 0

    def __getitem__(self, key: Any) -> Any:
        row = self._index.row(key)
        if row < 0:
            raise KeyError(key)
        values = self._records.one(row)
        return values[""] if self._header.plain else values

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self._index.keys(start, min(start + _AT_ONCE, len(self)))

    def __repr__(self) -> str:
        shape = ", ".join(self.columns) or "plain"
        return f"<Table {self._path.name}: {len(self)} rows by {self._header.key_kind}, {shape}>"

    def get(self, keys: Any, default: Any = None) -> Rows:
        """The rows of many keys, in their order; a key that is None or not in the table gets the default.

        `default` is what one row would be, or a scalar; in a table with columns a mapping, of some or all of them.
        Without it a missing row is 0, False, NaT or empty. Raises TypeError for keys of another kind.
        """
        keys = keys if hasattr(keys, "__len__") else list(keys)
        encoded, count = encode(self._header.key_kind, keys), len(keys)
        given = {"": default} if self._header.plain else (default or {})
        if unknown := set(given) - set(self._names()):
            raise KeyError(f"the table has no column {sorted(unknown)[0]!r}")
        values = self._records.blank(count, given)
        rows = self._index.rows(encoded)
        at, rows = encoded.at[rows >= 0], rows[rows >= 0]
        found = np.zeros(count, np.bool_)
        found[at] = True
        for start in range(0, len(rows), _AT_ONCE):
            for name, column in self._records.take(rows[start : start + _AT_ONCE]).items():
                values[name][at[start : start + _AT_ONCE]] = column
        return Rows(values[""] if self._header.plain else values, found)

    def verify(self) -> None:
        """Read the whole file and raise `corrupt` unless every byte is as it was written."""
        with self._path.open("rb") as file:
            for section in self._header.sections():
                file.seek(self._base + section.offset)
                crc, left = 0, section.size
                while left and (piece := file.read(min(left, _PIECE))):
                    crc, left = zlib.crc32(piece, crc), left - len(piece)
                if left or crc != section.crc:
                    layout.damaged(self._path, f"its bytes from {self._base + section.offset} on are damaged")

    def _names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self._header.columns)
