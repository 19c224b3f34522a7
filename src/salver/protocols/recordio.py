"""SageMaker's `application/x-recordio-protobuf`: one protobuf `Record` a row, each in a frame of RecordIO.

The numbers of a row are the feature `values`, dense or by their places (`keys`), in the order of the signature, or of
its only tensor. What a sparse row lacks is null where null is allowed, and 0 else, as in LIBSVM. NaN is null. Labels
are ignored, other features are counted. Records are counted from 1; one that can't be read refuses the body.

In an answer each output is a label: an only output is `score`, or `predicted_label` where it is whole or a bool, and
several have their own names. Numbers are of 32 bits as SageMaker's own algorithms write them, and of 64 bits where 32
would change a whole number or overflow.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from salver.errors import SalverError, error
from salver.limits import BODY
from salver.protocols import Options, protobuf
from salver.protocols.arrays import Problems, number_column, number_tensor, table
from salver.protocols.npy import NUMBERS, fits, numbers_of, unfit
from salver.protocols.protobuf import BYTES, FIXED32, FIXED64, VARINT, Malformed, packed, string, uint
from salver.protocols.rows import MAX_ROWS, RowType, too_many_rows
from salver.protocols.tabular import Table, Tabular
from salver.signature import Column, Field, Tensor
from salver.tables import Columns, may_be_null

CONTENT_TYPE = "application/x-recordio-protobuf"
MAGIC = 0xCED7230A
MOST_FIELDS = 1 << 21
"""Protobuf fields in all records of a body: reading one costs much more than a value of a packed list does."""
MOST_DIMENSIONS = 32

_SHORT = 128
"""Bytes up to which a list of integers is read faster one by one."""
_HEAD = struct.Struct("<II")
_SEAM = MAGIC.to_bytes(4, "little")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_FEATURES, _LABEL, _KEY, _VALUE = 1, 2, 1, 2
_FLOAT32, _FLOAT64, _INT32, _BYTES = 2, 3, 7, 9
_VALUES, _KEYS, _SHAPE = 1, 2, 3
_DTYPES = {_FLOAT32: "<f4", _FLOAT64: "<f8"}
_WIRE = {_FLOAT32: FIXED32, _FLOAT64: FIXED64, _INT32: VARINT}


class Row(Struct, frozen=True, gc=False):
    """The numbers of one record; `keys` are their places where it is sparse, `shape` is empty where it says none."""

    values: Any
    keys: Any
    shape: tuple[int, ...]


def frames(body: bytes) -> list[bytes | memoryview]:
    """The records of a body, those that came in parts put together; raises what is wrong with a frame."""
    view = memoryview(body)
    records: list[bytes | memoryview] = []
    parts: list[bytes | memoryview] = []
    at = count = 0
    while at < len(view):
        if len(records) == MAX_ROWS or count > 2 * MAX_ROWS:
            raise too_many_rows()
        count += 1
        where = f"the frame at byte {at}"
        if len(view) - at < _HEAD.size:
            raise _bad(f"{where} ends within its head")
        magic, word = _HEAD.unpack_from(view, at)
        length, kind = word & (1 << 29) - 1, word >> 29
        if magic != MAGIC:
            raise _bad(f"{where} does not begin with {_SEAM.hex()}")
        if kind > _LAST or (kind in (_WHOLE, _FIRST)) == bool(parts):
            raise _bad(f"{where} is no part of a record that can stand there")
        begin = at + _HEAD.size
        at = begin + (length + 3 & ~3)
        if at > len(view):
            raise _bad(f"{where} is longer than the body")
        payload = view[begin : begin + length]
        if kind == _WHOLE:
            records.append(payload)
            continue
        parts += [_SEAM, payload] if parts else [payload]  # writers split where the magic number is in a record
        if kind == _LAST:
            records.append(b"".join(parts))
            parts = []
    if parts:
        raise _bad("it ends within a record of several parts")
    return records


class _Records:
    """Reads the records of one body; raises `Malformed` for one that is none."""

    def __init__(self) -> None:
        self.extra = 0  # features that are not read
        self._fields = 0

    def row(self, record: bytes | memoryview, most: int) -> Row:
        """The numbers of a record, at most `most`."""
        values: list[Any] = []
        for key, value in self._read(record):
            if key == _FEATURES << 3 | BYTES:
                name, found = self._entry(value)
                if name == "values":
                    values = found  # of equal keys of a map the last counts
                else:
                    self.extra += 1
        kind = 0
        tensor: list[Any] = []
        for key, value in self._read(_joined(values)):
            if key in (_FLOAT32 << 3 | BYTES, _FLOAT64 << 3 | BYTES, _INT32 << 3 | BYTES, _BYTES << 3 | BYTES):
                if key >> 3 != kind:  # of a choice the last counts
                    kind, tensor = key >> 3, []
                tensor.append(value)
        if kind not in _WIRE:
            raise Malformed("it has no feature 'values' of float32, float64 or int32")
        return self._tensor(kind, _joined(tensor), most)

    def _entry(self, view: Any) -> tuple[str, list[Any]]:
        """The key of an entry of a map, and its value, whose parts are one message."""
        name, values = "", []
        for key, value in self._read(view):
            if key == _KEY << 3 | BYTES:
                name = protobuf.text(value)
            elif key == _VALUE << 3 | BYTES:
                values.append(value)
        return name, values

    def _tensor(self, kind: int, message: Any, most: int) -> Row:
        lists: dict[int, list[Any]] = {_VALUES: [], _KEYS: [], _SHAPE: []}
        wires = {_VALUES: _WIRE[kind], _KEYS: VARINT, _SHAPE: VARINT}
        for key, value in self._read(message):
            number = key >> 3
            if number in lists:
                wire = key & 7
                if wire == BYTES:
                    lists[number].append(value)
                elif wire == wires[number]:
                    lists[number].append(_unpacked(wire, value))
        values, keys, shape = (_joined(parts) for parts in lists.values())
        return Row(_numbers(kind, values, most), _varints(keys, most), _shape(shape))

    def _read(self, view: Any) -> list[tuple[int, Any]]:
        found = protobuf.fields(view)
        self._fields += len(found)
        if self._fields > MOST_FIELDS:
            raise error("too-large", f"the records have more than {MOST_FIELDS} protobuf fields", hint="pack the lists")
        return found


def _joined(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _unpacked(wire: int, value: int) -> bytes:
    """A value of a list that is not packed, as it would stand in a packed one."""
    return uint(value) if wire == VARINT else value.to_bytes(4 if wire == FIXED32 else 8, "little")


def _numbers(kind: int, data: Any, most: int) -> Any:
    """Packed numbers, as float64, which holds all of them."""
    if kind == _INT32:
        return _varints(data, most).astype(np.int32).astype(np.float64)
    dtype = np.dtype(_DTYPES[kind])
    if len(data) % dtype.itemsize:
        raise Malformed("the values end in the middle of one")
    _check_count(len(data) // dtype.itemsize, most)
    return np.frombuffer(data, dtype).astype(np.float64)


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise Malformed(f"a list has {count} numbers, more than {most}")


def _varints(data: Any, most: int) -> Any:
    """Packed unsigned integers of 64 bits, at most `most`, a few calls for all of them."""
    if len(data) <= _SHORT:
        values = protobuf.varints(memoryview(data))
        _check_count(len(values), most)
        return np.array(values, np.uint64)
    given = np.frombuffer(data, np.uint8)
    if given[-1] > 127:
        raise Malformed("a list of integers ends in the middle of one")
    _check_count(int(np.count_nonzero(given < 128)), most)
    ends = np.flatnonzero(given < 128)
    begins = np.concatenate(([0], ends[:-1] + 1))
    found = (given[begins] & 127).astype(np.uint64)
    longest = int((ends - begins).max())
    if longest > 9:
        raise Malformed("an integer has more than 10 bytes")
    for place in range(1, longest + 1):
        there = np.flatnonzero(begins + place <= ends)
        found[there] |= (given[begins[there] + place] & 127).astype(np.uint64) << np.uint64(7 * place)
    return found


def _shape(data: Any) -> tuple[int, ...]:
    sizes = tuple(_varints(data, MOST_DIMENSIONS).tolist())
    if max(sizes, default=0) > BODY.elements:
        raise error("too-large", f"a record's shape has a dimension over {BODY.elements}")
    return sizes


class RecordioReader:
    """Reads records for one signature."""

    def __init__(self, rows: RowType) -> None:
        self._columns = [field for field in rows.fields if isinstance(field, Column) and field.type in NUMBERS]
        only = rows.fields[0]
        self._tensor = None
        if len(rows.fields) == 1 and isinstance(only, Tensor) and only.dtype not in ("str", "bool"):
            self._tensor = only
        self._fits = self._tensor is not None or len(self._columns) == len(rows.fields)
        self._wanted = self._tensor.row_shape if self._tensor is not None else (len(self._columns),)
        self._most = BODY.elements if -1 in self._wanted else math.prod(self._wanted)
        self._missing = [np.nan if may_be_null(field) else 0.0 for field in self._columns]

    def read(self, body: bytes, options: Options) -> Table:
        """The rows of one body; raises what is wrong with a record of it."""
        del options
        if not self._fits:
            what = "records can't hold the inputs of this model, which are not one row of numbers"
            raise error("bad-protocol-body", what, hint="send JSON, CSV or Arrow")
        reading, records = _Records(), frames(body)
        shape: tuple[int, ...] = tuple(max(size, 0) for size in self._wanted)
        block = np.empty((0, *shape))
        for index, record in enumerate(records):
            try:
                row = reading.row(record, self._most)
                got = _row_shape(self._wanted, row)
                if not index:
                    shape, block = got, self._block(len(records), got)
                if got != shape:
                    raise Malformed(f"its shape is {list(got)}, that of the first {list(shape)}")
                _fill(block[index].reshape(-1), row)
            except Malformed as problem:
                raise _bad(f"record {index + 1}: {problem}") from None
        extra = (lambda: reading.extra) if reading.extra else None
        if self._tensor is not None:
            return table({self._tensor.name: number_tensor(self._tensor, block)}, len(records), {}, extra)
        problems: Problems = {}
        columns = {field.name: number_column(field, block[:, at], problems) for at, field in enumerate(self._columns)}
        return table(columns, len(records), problems, extra)

    def _block(self, count: int, shape: tuple[int, ...]) -> Any:
        """Room for all rows, which holds what sparse ones lack."""
        if count * math.prod(shape) > BODY.elements:
            raise error("too-large", f"the rows have more values than {BODY.elements}", hint="send fewer rows")
        block = np.zeros((count, *shape))
        if self._missing:
            block[:] = self._missing
        return block


def _row_shape(wanted: tuple[int, ...], row: Row) -> tuple[int, ...]:
    """The shape that a record has, which is one of those `wanted`; a vector is any fixed shape of its length."""
    given, fixed = row.shape, -1 not in wanted
    if not given:
        given = wanted if fixed else (len(row.values),)
        if len(row.keys) and not fixed:
            raise Malformed("it is sparse and has no shape")
    if fixed and given == (math.prod(wanted),):
        return wanted
    if len(given) != len(wanted) or any(want not in (-1, size) for want, size in zip(wanted, given, strict=True)):
        raise Malformed(f"expected shape {list(wanted)}, got {list(given)}")
    return given


def _fill(cells: Any, row: Row) -> None:
    """Put the numbers of a record where they belong."""
    if not len(row.keys) and (len(row.values) or not row.shape):
        if len(row.values) != len(cells):
            raise Malformed(f"expected {len(cells)} values, got {len(row.values)}")
        cells[:] = row.values
        return
    if len(row.keys) != len(row.values):
        raise Malformed(f"it has {len(row.keys)} keys and {len(row.values)} values")
    if not len(row.keys):
        return
    places = np.minimum(row.keys, len(cells)).astype(np.int64)  # the last for all that are out of range
    there = np.zeros(len(cells) + 1, np.bool_)
    there[places] = True
    if there[-1] or np.count_nonzero(there) < len(places):
        raise Malformed(f"each key has to be there once, from 0 to {len(cells) - 1}")
    cells[places] = row.values


def _bad(what: str) -> SalverError:
    return error("bad-protocol-body", f"the body is no RecordIO of protobuf records: {what}")


class RecordioWriter:
    """Writes a record a row, with a label for each output."""

    content_type = CONTENT_TYPE

    def __init__(self, outputs: tuple[Field, ...]) -> None:
        if not all(map(fits, outputs)):
            raise unfit("records of numbers")
        only = ("predicted_label" if _is_whole(outputs[0]) else "score") if len(outputs) == 1 else ""
        self._labels = [(only or field.name, field) for field in outputs]

    def write(self, outputs: Columns, count: int, endpoint: str) -> bytes:
        """`count` rows of the outputs as one body; all records of it have the same length."""
        del endpoint
        pieces = []
        for label, field in self._labels:
            kind, numbers = _narrowed(numbers_of(outputs[field.name]), whole=_is_whole(field))
            raw = (
                np.ascontiguousarray(numbers).reshape(count, -1).view(np.uint8) if count else np.empty((0, 0), np.uint8)
            )
            before, after = _around(label, kind, field.row_shape if isinstance(field, Tensor) else (), raw.shape[1])
            pieces += [_repeated(before, count), raw, _repeated(after, count)]
        length = sum(piece.shape[1] for piece in pieces)
        head, tail = _HEAD.pack(MAGIC, length), bytes(-length % 4)
        return np.concatenate([_repeated(head, count), *pieces, _repeated(tail, count)], axis=1).tobytes()


def _is_whole(field: Field) -> bool:
    if isinstance(field, Column):
        return field.type in ("int", "bool")
    return not field.dtype.startswith("float")


def _narrowed(array: Any, *, whole: bool) -> tuple[int, Any]:
    """Which tensor of a record holds an output's numbers, and the numbers as it holds them."""
    with np.errstate(over="ignore"):
        narrow = array.astype("<f4")
    kept = (narrow == array) | (array != array) if whole else np.isinf(narrow) == np.isinf(array)
    return (_FLOAT32, narrow) if kept.all() else (_FLOAT64, array.astype("<f8"))


def _around(label: str, kind: int, shape: tuple[int, ...], size: int) -> tuple[bytes, bytes]:
    """What stands before and after the bytes of an output's numbers in every record."""
    after = packed(_SHAPE, shape) if len(shape) > 1 else b""
    tensor = _opened(_VALUES, b"", size)
    value = _opened(kind, tensor, size + len(after))
    entry = string(_KEY, label) + _opened(_VALUE, value, size + len(after))
    return _opened(_LABEL, entry, size + len(after)), after


def _opened(number: int, begun: bytes, more: int) -> bytes:
    """A message within a message, of which `more` bytes are still to come."""
    return uint(number << 3 | BYTES) + uint(len(begun) + more) + begun


def _repeated(data: bytes, count: int) -> Any:
    return np.broadcast_to(np.frombuffer(data, np.uint8), (count, len(data)))


PROTOCOL = Tabular("recordio", RecordioReader, RecordioWriter)
