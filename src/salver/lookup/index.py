"""The index of a table, mapped into memory: from keys to row numbers."""

from __future__ import annotations

import mmap
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salver.lookup.keys import Encoded, encode_one, is_missing
from salver.lookup.layout import Header, Section, damaged, decoded


class Index:
    """Hashes, rows and keys of a table; what is touched of them stays mapped, and processes share it."""

    def __init__(self, path: Path, header: Header, base: int) -> None:
        self.path = path
        self._kind = header.key_kind
        self._rows = header.rows
        self._base = base
        with path.open("rb") as file:
            keys = header.keys
            self._map = mmap.mmap(file.fileno(), base + keys.offset + keys.size, access=mmap.ACCESS_READ)
        self._hashes = self._array(header.hashes, "<u4", header.rows)
        self._order = self._array(header.order, "<u4", header.rows)
        self._keys: NDArray[np.int64] | None = None
        if header.ends is None:
            self._keys = self._array(header.keys, "<i8", header.rows)
        else:
            self._open_texts(header, header.ends)

    def row(self, key: Any) -> int:
        """The row of a key, or -1; None and NaN have none."""
        try:
            hashed, wanted = encode_one(self._kind, key)
        except TypeError:
            if is_missing(key):
                return -1
            raise
        hashes, order = self._hashes.data, self._order.data
        place = bisect_left(hashes, hashed)
        while place < self._rows and hashes[place] == hashed:
            row: int = order[place]
            if self._stored(row) == wanted:
                return row
            place += 1
        return -1

    def rows(self, wanted: Encoded) -> NDArray[np.int64]:
        """The row of each key, or -1."""
        found = np.full(len(wanted.at), -1, np.int64)
        pending = np.arange(len(wanted.at))
        place = np.searchsorted(self._hashes, wanted.hashes)
        while len(pending):
            inside = place < self._rows
            pending, place = pending[inside], place[inside]
            alike = self._hashes[place] == wanted.hashes[pending]
            pending, place = pending[alike], place[alike]
            rows = self._order[place].astype(np.int64)
            same = self._same(rows, wanted.stored, pending)
            found[pending[same]] = rows[same]
            pending, place = pending[~same], place[~same] + 1
        return found

    def keys(self, start: int, stop: int) -> list[Any]:
        """The keys of a range of rows."""
        stored = (self._stored(row) for row in range(start, stop))
        return [decoded(key, self.path) for key in stored] if self._kind == "str" else list(stored)

    def _stored(self, row: int) -> Any:
        if row >= self._rows:
            damaged(self.path, "its index names a row that it doesn't have")
        if self._keys is not None:
            return int(self._keys[row])
        start, end = self._ends[row], self._ends[row + 1]
        if not start <= end <= self._size:
            damaged(self.path, "an offset points outside of its keys")
        return self._map[self._begin + start : self._begin + end]

    def _same(self, rows: NDArray[np.int64], stored: Any, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each row holds the key that stands at its place of `stored`."""
        if rows.max(initial=0) >= self._rows > 0:
            damaged(self.path, "its index names a row that it doesn't have")
        if self._keys is not None:
            matching: NDArray[np.bool_] = self._keys[rows] == stored[places]
            return matching
        pairs = zip(rows.tolist(), places.tolist(), strict=True)
        return np.fromiter((self._stored(row) == stored[place] for row, place in pairs), np.bool_, len(rows))

    def _open_texts(self, header: Header, ends: Section) -> None:
        self._ends = self._array(ends, "<u8", header.rows + 1).data
        self._begin = self._base + header.keys.offset
        self._size = header.keys.size
        if self._ends[0] != 0 or self._ends[header.rows] != self._size:
            damaged(self.path, "its offsets don't fit its keys")

    def _array(self, section: Section, dtype: str, count: int) -> NDArray[Any]:
        return np.ndarray((count,), dtype, self._map, self._base + section.offset)
