"""NumPy's `.npz`: one array that holds all rows as `.npy` does, or one array for each input, found by name.

Nothing is unpickled. What an archive unpacks to is bounded before anything is unpacked: 64 MiB, or the size of the body
where that is more, and 100 times the body. Rows are counted from 1.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

from salver.errors import error
from salver.protocols import Options
from salver.protocols.arrays import Problems, number_column, table, tensor_rows
from salver.protocols.npy import NUMBERS, NpyReader, fits, numbers_of, read_array, unfit
from salver.protocols.rows import MAX_ROWS, RowType, listed, optional, too_many_rows
from salver.protocols.tabular import Table, Tabular
from salver.signature import Field, Tensor
from salver.tables import Columns

UNPACKED = 64 << 20
RATIO = 100
MORE = 1000
"""Entries that an archive may have besides the inputs: listing them costs time and memory for each."""
_ENTRY = b"PK\x01\x02"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, IndexError)
"""What reading a damaged archive raises."""


class NpzReader:
    """Reads archives of arrays for one signature."""

    def __init__(self, rows: RowType) -> None:
        self._fields = rows.fields
        self._names = frozenset(rows.names)
        self._one = NpyReader(rows)

    def read(self, body: bytes, options: Options) -> Table:
        """The rows of one body; raises what is wrong with it."""
        del options
        arrays, others = self._arrays(body)
        if not arrays and len(others) == 1:
            (member,) = others.values()
            return self._one.rows(read_array(member))
        missing = [field.name for field in self._fields if field.name not in arrays and not optional(field)]
        if missing:
            raise error("bad-protocol-body", f"the archive lacks {listed(missing)}", hint="it has an array per input")
        found = {name: read_array(member) for name, member in arrays.items()}
        counts = {len(array) if array.ndim else -1 for array in found.values()}
        if len(counts) != 1 or -1 in counts:
            raise error("bad-protocol-body", "the arrays differ in length; their first dimension is the row")
        (count,) = counts
        if count > MAX_ROWS:
            raise too_many_rows()
        problems: Problems = {}
        columns = {field.name: _column(field, found.get(field.name), count, problems) for field in self._fields}
        return table(columns, count, problems, (lambda: len(others) * count) if others else None)

    def _arrays(self, body: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """The arrays of inputs, unpacked; the others too where there is one, else only their names."""
        if body.count(_ENTRY) > len(self._names) + MORE:
            raise error("too-large", "the archive has too many entries", hint="it has an array per input")
        try:
            with zipfile.ZipFile(io.BytesIO(body)) as archive:
                known: dict[str, zipfile.ZipInfo] = {}
                others: dict[str, zipfile.ZipInfo] = {}
                for info in archive.infolist():
                    name = info.filename.removesuffix(".npy")
                    (known if name in self._names else others)[name] = info
                wanted = known or (others if len(others) == 1 else {})
                _check(list(wanted.values()), len(body))
                read = {name: archive.read(info) for name, info in wanted.items()}
        except _DAMAGED:
            raise error("bad-protocol-body", "the body is no .npz archive, or a damaged one") from None
        return (read, dict.fromkeys(others, b"")) if known else ({}, read or dict.fromkeys(others, b""))


def _check(wanted: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse what would unpack to too much, or in a way that an archive of arrays never is; no more is ever read."""
    if any(info.compress_type not in _METHODS or info.flag_bits & 1 for info in wanted):
        raise error("bad-protocol-body", "the archive is encrypted, or packed in another way than deflated")
    if sum(info.file_size for info in wanted) > min(max(UNPACKED, size), RATIO * size):
        raise error("too-large", f"the archive unpacks to over {UNPACKED} bytes, or {RATIO} times its size")


def _column(field: Field, array: Any, count: int, problems: Problems) -> Any:
    if array is None:
        array = np.full(count, np.nan)
    if isinstance(field, Tensor):
        return tensor_rows(field, array)
    if field.type not in NUMBERS or array.ndim != 1:
        raise error(
            "bad-protocol-body",
            f"{field.name}: expected an array of one dimension, of numbers or bools",
            hint="inputs of other types need JSON, CSV or Arrow",
        )
    return number_column(field, array, problems)


class NpzWriter:
    """Writes an array for each output, by its name."""

    content_type = "application/x-npz"

    def __init__(self, outputs: tuple[Field, ...]) -> None:
        if not all(map(fits, outputs)):
            raise unfit("arrays of numbers")
        self._outputs = outputs

    def write(self, outputs: Columns, count: int, endpoint: str) -> bytes:
        """`count` rows of the outputs as one body."""
        del count, endpoint
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for field in self._outputs:
                member = io.BytesIO()
                np.save(member, numbers_of(outputs[field.name]), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{field.name}.npy"), member.getbuffer())
        return file.getvalue()


PROTOCOL = Tabular("npz", NpzReader, NpzWriter)
