"""Writes a table: batches of rows go to one spool file per section, which then become the file."""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salver.errors import error
from salver.lookup import layout
from salver.lookup.index import Index
from salver.lookup.keys import Encoded, encode, kind_of
from salver.lookup.layout import Column, Header, KeyKind, Section

SHOWN = 20


def write(path: Path, batches: Iterable[tuple[Any, Any]]) -> int:
    """Write the table of all batches of keys and values; the file appears whole or not at all. Returns its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        scratch = opened.enter_context(tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent))
        draft = _Draft(path, Path(scratch), opened)
        for keys, values in batches:
            draft.add(keys, values)
        whole = draft.finish(Path(scratch) / "whole")
        os.replace(whole, path)
    return draft.rows


class _Spool:
    """The bytes of one section, on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = self.crc = 0
        self._file = path.open("wb")

    def add(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.size += len(data)
        self.crc = zlib.crc32(data, self.crc)

    def close(self) -> None:
        self._file.close()


class _Cells:
    """One column on the way: it makes the fields of the records, and spools its texts."""

    def __init__(self, name: str, first: NDArray[Any] | Texts, spool: _Spool | None) -> None:
        self.name = name
        self.spool = spool
        self.kind = _kind(first)

    def fields(self, values: NDArray[Any] | Texts) -> NDArray[Any]:
        """What the records hold of these values: themselves, or where their texts begin and end."""
        if (kind := _kind(values)) != self.kind:
            raise _bad(f"{_named(self.name)} is {_said(self.kind)} in the first batch and {_said(kind)} in a later one")
        if isinstance(values, np.ndarray):
            return values
        assert self.spool is not None
        edges = np.fromiter(accumulate(map(len, values.values), initial=self.spool.size), "<u8", len(values) + 1)
        self.spool.add(b"".join(values.values))
        return np.column_stack([edges[:-1], edges[1:]])

    def column(self, sections: Iterator[Section]) -> Column:
        return Column(self.name, *self.kind, texts=next(sections) if self.spool else None)


class _Draft:
    def __init__(self, path: Path, scratch: Path, opened: ExitStack) -> None:
        self.rows = 0
        self._opened = opened
        self._path = path
        self._scratch = scratch
        self._spools = 0
        self._hashes: list[NDArray[np.uint32]] = []
        self._kind: KeyKind = "str"
        self._plain = True
        self._begun = False
        self._keys = [self._spool(), self._spool()]
        self._records = self._spool()
        self._columns: dict[str, _Cells] = {}

    def add(self, keys: Any, values: Any) -> None:
        """Append the rows of one batch."""
        keys = keys if hasattr(keys, "__len__") else list(keys)
        named = {str(name): cells(column, str(name)) for name, column in _columns(values)}
        for name, column in named.items():
            if len(column) != len(keys):
                raise _bad(f"{_named(name)} has {len(column)} rows for {len(keys)} keys")
        if not self._begun:
            self._begin(keys, named, not _has_names(values))
        if list(named) != list(self._columns):
            raise _bad(f"the columns are {list(self._columns)} in the first batch and {list(named)} in a later one")
        encoded = _encoded(self._kind, keys, self._path, self.rows)
        self._hashes.append(encoded.hashes)
        self._add_keys(encoded.stored)
        records = np.zeros(len(keys), self._dtype)
        for number, (name, column) in enumerate(named.items()):
            records[str(number)] = self._columns[name].fields(column)
        self._records.add(records.tobytes())
        self.rows += len(keys)
        if self.rows > layout.MAX_ROWS:
            raise _bad(f"a table has at most {layout.MAX_ROWS} rows")

    def finish(self, whole: Path) -> Path:
        """Sort the hashes, put the sections together, and refuse keys that come twice."""
        if not self._begun:
            self.add([], np.zeros((0, 1), np.float32))
        hashes = np.concatenate(self._hashes)
        order = np.argsort(hashes, kind="stable").astype("<u4")
        index = [self._spool(), self._spool()]
        index[0].add(hashes[order].astype("<u4").tobytes())
        index[1].add(order.tobytes())
        keys = self._keys[1:] if self._kind == "int" else self._keys
        texts = [column.spool for column in self._columns.values() if column.spool]
        spools = [*index, *keys, self._records, *texts]
        sections = _sections(spools)
        header = Header(
            layout.FORMAT, self.rows, self._kind, self._plain,
            hashes=next(sections), order=next(sections),
            ends=None if self._kind == "int" else next(sections), keys=next(sections), records=next(sections),
            columns=tuple(column.column(sections) for column in self._columns.values()),
        )  # fmt: skip
        _assemble(whole, header, spools)
        self._refuse_twins(whole, header, hashes[order], order)
        return whole

    def _begin(self, keys: Any, named: dict[str, Any], plain: bool) -> None:
        try:
            self._kind = kind_of(keys)
        except TypeError:
            raise _bad(f"keys are str, int or bytes, the first is {type(next(iter(keys))).__name__}") from None
        self._plain = plain
        self._begun = True
        self._columns = {
            name: _Cells(name, column, self._spool() if isinstance(column, Texts) else None)
            for name, column in named.items()
        }
        anywhere = Section(0, 0, 0)
        drafts = [Column(c.name, *c.kind, texts=anywhere if c.spool else None) for c in self._columns.values()]
        self._dtype = layout.record_dtype(drafts)
        if self._kind != "int":
            self._keys[0].add(bytes(8))

    def _add_keys(self, stored: list[bytes] | NDArray[np.int64]) -> None:
        if isinstance(stored, list):
            ends = np.fromiter(accumulate(map(len, stored), initial=self._keys[1].size), "<u8", len(stored) + 1)
            self._keys[0].add(ends[1:].tobytes())
            self._keys[1].add(b"".join(stored))
        else:
            self._keys[1].add(stored.astype("<i8").tobytes())

    def _spool(self) -> _Spool:
        self._spools += 1
        spool = _Spool(self._scratch / str(self._spools))
        self._opened.callback(spool.close)
        return spool

    def _refuse_twins(self, whole: Path, header: Header, hashes: NDArray[Any], order: NDArray[Any]) -> None:
        """Only keys with the same hash can be the same; few are, so they are read back."""
        alike = np.flatnonzero(hashes[1:] == hashes[:-1])
        if not len(alike):
            return
        index = Index(whole, header, len(layout.encode(header)))
        found = list(islice(_twins(index, alike.tolist(), order), SHOWN))
        if found:
            raise _bad(f"{self._path.name}: keys come more than once", details=tuple(found))


class Texts:
    """A column of str or bytes as bytes: what is written."""

    def __init__(self, dtype: str, values: list[bytes]) -> None:
        self.dtype = dtype
        self.values = values

    def __len__(self) -> int:
        return len(self.values)


def cells(values: Any, name: str) -> NDArray[Any] | Texts:
    """A column as an array of a fixed dtype, or as texts; raises `bad-table` for what a table can't hold."""
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype.kind in layout.FIXED_KINDS and array.ndim and array.itemsize <= 8:
        return array
    given = array.tolist()
    kinds = {type(value) for value in given} if array.ndim == 1 else {type(values)}
    if array.ndim == 1 and all(issubclass(kind, str) for kind in kinds):
        return Texts("str", [value.encode("utf-8", "surrogatepass") for value in given])
    if array.ndim == 1 and kinds == {bytes}:
        # An array of fixed bytes has lost zeros at the end of each; the list still has them.
        return Texts("bytes", given if array.dtype.kind == "O" or array is values else list(values))
    said = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise _bad(
        f"{_named(name)} holds {said}; a column of a table holds numbers, times, str or bytes, one kind, none missing"
    )


def _columns(values: Any) -> list[tuple[Any, Any]]:
    if not _has_names(values):
        return [("", values)]
    return [(name, values[name]) for name in (values if isinstance(values, Mapping) else values.columns)]


def _has_names(values: Any) -> bool:
    """Whether this is a mapping of columns or a DataFrame."""
    return isinstance(values, Mapping) or (hasattr(values, "columns") and hasattr(values, "dtypes"))


def _kind(values: NDArray[Any] | Texts) -> tuple[str, tuple[int, ...]]:
    """Dtype and shape of a row, as the header says them."""
    if isinstance(values, Texts):
        return values.dtype, ()
    return values.dtype.newbyteorder("<").str, values.shape[1:]


def _said(kind: tuple[str, tuple[int, ...]]) -> str:
    return f"{kind[0]}{list(kind[1]) or ''}"


def _encoded(kind: KeyKind, keys: Any, path: Path, before: int) -> Encoded:
    try:
        encoded = encode(kind, keys)
    except TypeError as problem:
        raise _bad(f"{path.name}: {problem}") from None
    if len(encoded.at) != len(keys):
        first = int(np.setdiff1d(np.arange(len(keys)), encoded.at)[0])
        raise _bad(f"{path.name}: the key of row {before + first} is missing or no 64-bit number")
    return encoded


def _sections(spools: list[_Spool]) -> Iterator[Section]:
    end = 0
    for spool in spools:
        spool.close()
        offset = layout.aligned(end)
        end = offset + spool.size
        yield Section(offset, spool.size, spool.crc)


def _assemble(whole: Path, header: Header, spools: list[_Spool]) -> None:
    with whole.open("wb") as file:
        file.write(layout.encode(header))
        for spool in spools:
            file.write(bytes(layout.aligned(file.tell()) - file.tell()))
            with spool.path.open("rb") as part:
                shutil.copyfileobj(part, file, 1 << 20)
            spool.path.unlink()
        file.flush()
        os.fsync(file.fileno())


def _twins(index: Index, alike: list[int], order: NDArray[Any]) -> Iterator[str]:
    seen: set[Any] = set()
    last = -2
    for place in alike:
        if place != last + 1:
            seen = set(_keys_of(index, order[place]))
        (key,) = _keys_of(index, order[place + 1])
        if key in seen:
            yield f"{key!r} is the key of row {order[place + 1]} and of an earlier one"
        seen.add(key)
        last = place


def _keys_of(index: Index, row: Any) -> list[Any]:
    return index.keys(int(row), int(row) + 1)


def _named(name: str) -> str:
    return f"column {name!r}" if name else "the values"


def _bad(message: str, *, details: tuple[str, ...] = ()) -> Exception:
    return error("bad-table", message, details=details)
