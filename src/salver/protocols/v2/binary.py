"""Tensors as bytes: the binary data of V2 over HTTP, which is the raw data of its gRPC.

Little-endian and row by row without padding; a BOOL is one byte, 0 or 1, and an element of BYTES is its length in four
bytes and then itself, text in UTF-8. NaN in a column of floats is null, so it is refused where null is, and so is an
infinity; a tensor takes both as they are sent. No other datatype can say null.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from salver.errors import error
from salver.protocols.answers import ENCODER, values_of
from salver.protocols.rows import column_type, describe, read_custom
from salver.protocols.v2.datatypes import WIRE, bad, check_datatype, check_shape, count, decode
from salver.protocols.v2.metadata import datatype as datatype_of
from salver.signature import Column, Field, Tensor, is_blob
from salver.tables import column, may_be_null

Array = NDArray[Any]
_LENGTH = struct.Struct("<I")


def read(field: Field, datatype: str, shape: Sequence[int], data: memoryview, where: str) -> Array:
    """The array of a field from a tensor's bytes, one entry per row; it may be a read-only view of them.

    Raises what is wrong with datatype, shape, bytes or values.
    """
    check_datatype(field, datatype, where, raw=True)
    check_shape(field, shape, where)
    size = count(shape, where)
    if isinstance(field, Column):
        return _column(field, datatype, size, data, shape, where)
    if datatype == "BYTES":
        return np.array(_texts(data, size, shape, where), object).reshape(shape)
    values = _numbers(datatype, size, data, shape, where)
    return _as_dtype(values, np.dtype(field.dtype), where).reshape(shape)


def read_matrix(fields: Sequence[Field], datatype: str, shape: Sequence[int], data: memoryview, where: str) -> Array:
    """The float64 matrix of all fields, which are float columns, from one tensor of shape [n, fields]."""
    check_datatype(fields[0], datatype, where, raw=True)
    block = np.array(_numbers(datatype, count(shape, where), data, shape, where), np.float64).reshape(shape)
    for place, field in enumerate(fields):
        if isinstance(field, Column) and (field.enforce or not np.isfinite(block[:, place]).all()):
            _check(field, block[:, place], f"{where}.data, column {field.name!r} ")
    return block


def raw_shape(field: Field, size: int) -> tuple[int, ...]:
    """The shape of the one row that `size` bytes of a raw request hold; raises where they can't be told apart."""
    free = [place for place, length in enumerate(field.row_shape) if length == -1] if isinstance(field, Tensor) else []
    row = list(field.row_shape) if isinstance(field, Tensor) else []
    datatype = datatype_of(field)
    if len(free) > 1 or (datatype == "BYTES" and any(length != 1 for length in row)):
        raise bad(f"input {field.name!r} can't be sent as a raw request: its shape {row} is not known from its size")
    if free:
        known = WIRE[datatype].itemsize * math.prod(length for length in row if length != -1)
        row[free[0]] = size // known
    return (1, *row)


def _column(field: Column, datatype: str, size: int, data: memoryview, shape: Sequence[int], where: str) -> Array:
    if datatype == "BYTES":
        if is_blob(field):
            return column(field, _elements(data, size, shape, where))
        texts = _texts(data, size, shape, where)
        try:
            checked = msgspec.convert(texts, list[column_type(field)], dec_hook=read_custom)  # type: ignore[misc]
        except msgspec.ValidationError as problem:
            raise error("invalid-row", describe(problem, f"{where}.data", field)) from None
        return column(field, checked)
    values = _numbers(datatype, size, data, shape, where)
    if field.type == "int":
        values = _as_dtype(values, np.dtype(np.int64), where)
    values = column(field, values)  # type: ignore[arg-type]  # which copies it into the dtype of the column
    if field.type in ("float", "int"):
        _check(field, values, f"{where}.data")
    return values


def _numbers(datatype: str, size: int, data: memoryview, shape: Sequence[int], where: str) -> Array:
    """The elements of any datatype but BYTES, flat, in its own dtype."""
    wire = WIRE[datatype]
    if len(data) != size * wire.itemsize:
        raise bad(f"{where}: shape {shape} of {datatype} needs {size * wire.itemsize} bytes, there are {len(data)}")
    return decode(datatype, data, f"{where}.data")


def _as_dtype(values: Array, wanted: np.dtype[Any], where: str) -> Array:
    """The numbers in another dtype, refused where it can't hold one of them."""
    got = values.dtype
    if got == wanted:
        return values
    if np.can_cast(got, wanted) or not values.size:
        return values.astype(wanted)
    if wanted.kind in "iu":
        bounds = np.iinfo(wanted)
        outside = (values < bounds.min) | (values > bounds.max)
        if outside.any():
            raise error(
                "invalid-row", f"{where}.data[{int(outside.argmax())}]: expected {wanted}, got a number out of range"
            )
        return values.astype(wanted)
    with np.errstate(over="ignore"):
        made = values.astype(wanted)
    lost = np.isinf(made) & np.isfinite(values)
    if lost.any():
        raise error("invalid-row", f"{where}.data[{int(lost.argmax())}]: expected {wanted}, got a number out of range")
    return made


def _check(field: Column, values: Array, where: str) -> None:
    """Refuse what the column does not allow among numbers."""
    if values.dtype.kind == "f":
        unusual = np.isinf(values) if may_be_null(field) else ~np.isfinite(values)
        if unusual.any():
            place = int(unusual.argmax())
            got = "null (NaN)" if np.isnan(values[place]) else "an infinity"
            raise error("invalid-row", f"{where}[{place}]: expected {field.type}, got {got}")
    if not field.enforce:
        return
    for bound, sign, outside in (
        (field.minimum, ">=", np.less),
        (field.maximum, "<=", np.greater),
    ):
        if bound is not None and (wrong := outside(values, bound)).any():
            raise error("invalid-row", f"{where}[{int(wrong.argmax())}]: expected {field.type} {sign} {bound}")


def _texts(data: memoryview, size: int, shape: Sequence[int], where: str) -> list[str]:
    """The elements of BYTES as text."""
    texts: list[str] = []
    try:
        for element in _elements(data, size, shape, where):
            texts.append(element.decode())
    except UnicodeDecodeError:
        raise error("invalid-row", f"{where}.data[{len(texts)}]: expected text in UTF-8, got other bytes") from None
    return texts


def _elements(data: memoryview, size: int, shape: Sequence[int], where: str) -> list[bytes]:
    """The elements of BYTES as they are."""
    elements: list[bytes] = []
    whole, at = bytes(data), 0
    if len(whole) < 4 * size:  # before anything is held in memory
        raise bad(f"{where}: shape {list(shape)} of BYTES needs {4 * size} bytes or more, there are {len(whole)}")
    try:
        for place in range(size):
            (length,) = _LENGTH.unpack_from(whole, at)
            begin, at = at + 4, at + 4 + length
            if at > len(whole):
                raise bad(f"{where}.data[{place}]: expected {length} bytes, {len(whole) - begin} are left")
            elements.append(whole[begin:at])
    except struct.error:
        raise bad(f"{where}.data[{len(elements)}]: expected a length of 4 bytes, {len(whole) - at} are left") from None
    if at < len(whole):
        raise bad(f"{where}: shape {list(shape)} needs {size} elements, {len(whole) - at} bytes follow them")
    return elements


class BinaryWriter:
    """Writes rows of one output as a binary tensor."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._values: Callable[[Any], list[Any]] = values_of(field)
        datatype = datatype_of(field)
        self._wire = WIRE.get(datatype)
        name = ENCODER.encode(field.name).replace(b"%", b"%%")
        self._form = b'{"name":%b,"shape":[%%b],"datatype":"%b","parameters":{"binary_data_size":%%d}}' % (
            name,
            datatype.encode(),
        )

    def tensor(self, array: Array | None) -> tuple[bytes, bytes] | None:
        """The JSON and the bytes of these rows (None: of none); None where a null is among them that has no bytes.

        Raises `bad-output` where the rows of a tensor differ in shape.
        """
        field = self._field
        if array is None or not len(array):
            shape: tuple[int, ...] = (
                0,
                *(max(size, 0) for size in (field.row_shape if isinstance(field, Tensor) else ())),
            )
            data: bytes | None = b""
        else:
            rows = array if isinstance(field, Column) else agreed(field, array)
            shape, data = rows.shape, self.bytes(rows)
        if data is None:
            return None
        return self._form % (b",".join([b"%d" % size for size in shape]), len(data)), data

    def bytes(self, array: Array) -> bytes | None:
        """The bytes of these rows; None where a null is among them that the datatype can't say."""
        column = isinstance(self._field, Column)
        if self._wire is None:
            values = self._values(array) if column else array.ravel().tolist()
            if None in values:
                return None
            elements = values if is_blob(self._field) else map(str.encode, values)
            return b"".join([part for element in elements for part in (_LENGTH.pack(len(element)), element)])
        may_hold_null = column and self._wire.kind in "ib" and array.dtype != self._wire
        if may_hold_null and any(value is None or value != value for value in array.tolist()):
            return None
        return array.astype(self._wire, copy=False).tobytes()


def agreed(field: Field, rows: Array) -> Array:
    """The rows of a tensor as one array; raises `bad-output` where their shapes differ."""
    if rows.dtype != object or rows.ndim > 1 or not isinstance(rows[0], np.ndarray):
        return rows
    if len({row.shape for row in rows}) > 1:
        raise error("bad-output", f"the rows of {field.name!r} differ in shape; send one row per request")
    return np.stack(list(rows))
