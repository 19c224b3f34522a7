"""The rows of a table, read from the file where they are asked for.

They are not mapped: touching one mapped page maps all the pages around it that the kernel holds together (320 KB on
average on Linux 6.18 with ext4), so that a few hundred rows would have a whole table counted as memory of the process.
What is read stays in the page cache all the same, where every process finds it.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salver.lookup.layout import Column, Header, damaged, decoded, record_dtype


class Records:
    """Rows by number."""

    def __init__(self, path: Path, header: Header, base: int) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._begin = base + header.records.offset
        self._base = base
        self._dtype = record_dtype(header.columns)
        self._columns = header.columns

    def one(self, row: int) -> dict[str, Any]:
        """One row: a scalar or an array of each column."""
        record = np.frombuffer(self._read(self._begin + row * self._dtype.itemsize, self._dtype.itemsize), self._dtype)
        found = {}
        for number, column in enumerate(self._columns):
            value = self._cells(column, record[str(number)])[0]
            found[column.name] = value.copy() if isinstance(value, np.ndarray) else value
        return found

    def take(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Many rows: an array of each column. Rows that follow each other are one read, equal ones are read once."""
        wanted, place = np.unique(rows, return_inverse=True)
        starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
        counts = np.diff(starts, append=len(wanted))
        size = self._dtype.itemsize
        runs = zip((self._begin + wanted[starts] * size).tolist(), (counts * size).tolist(), strict=True)
        records = np.frombuffer(b"".join([self._read(start, length) for start, length in runs]), self._dtype)
        return {
            column.name: self._cells(column, records[str(number)])[place] for number, column in enumerate(self._columns)
        }

    def blank(self, count: int, defaults: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """`count` rows that hold the defaults; without one a column holds 0, False, NaT or an empty text."""
        return {column.name: _blank(column, count, defaults.get(column.name)) for column in self._columns}

    def _cells(self, column: Column, held: NDArray[Any]) -> NDArray[Any]:
        """The values of a column: as they stand in the records, or the texts these point to."""
        if column.texts is None:
            return held
        texts, begin = column.texts, self._base + column.texts.offset
        cells = np.empty(len(held), object)
        for place, (start, end) in enumerate(held.tolist()):
            if not start <= end <= texts.size:
                damaged(self._path, f"column {column.name!r} points outside of its texts")
            raw = self._read(begin + start, end - start)
            cells[place] = decoded(raw, self._path) if column.dtype == "str" else raw
        return cells

    def _read(self, start: int, length: int) -> bytes:
        data = os.pread(self._file, length, start)
        if len(data) < length:
            damaged(self._path, "it became shorter while it was in use")
        return data


def _blank(column: Column, count: int, default: Any) -> NDArray[Any]:
    if column.texts is not None:
        empty: str | bytes = "" if column.dtype == "str" else b""
        return np.full(count, empty if default is None else default, object)
    made = np.empty((count, *column.shape), column.dtype)
    if default is None:
        default = np.datetime64("NaT") if made.dtype.kind == "M" else 0
    made[...] = default
    return made
