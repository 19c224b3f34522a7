"""The tensors of V2 JSON: reads one into the values of a field, writes the rows of an output as one."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from msgspec.structs import replace

from salver.errors import error
from salver.protocols.answers import ENCODER, lines, values_of
from salver.protocols.rows import MAX_ROWS, UNREADABLE, bad_json, column_type, decoder, describe, element_type
from salver.protocols.v2.datatypes import INTS, bad, check_datatype, check_length, check_shape, count
from salver.protocols.v2.metadata import json_datatype
from salver.protocols.v2.request import LONG, InputTensor, no_data
from salver.protocols.values import Utf8
from salver.signature import Column, Field, Tensor, is_blob
from salver.tables import may_be_null

_FORMATS = {"float16": "e", "float32": "f", "float64": "d"}
_NESTED = re.compile(rb"\s*\[\s*\[")


class TensorReader:
    """Reads tensors as the fields of one signature; `long` bodies are counted before they are held in memory."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = fields
        nullable = any(isinstance(field, Column) and may_be_null(field) for field in fields)
        self._cell = Column("", "float", nullable=nullable)
        self._checked = [
            (place, field)
            for place, field in enumerate(fields)
            if isinstance(field, Column) and (field.enforce or may_be_null(field) != nullable)
        ]
        self._decoders: dict[tuple[str, str, int], Any] = {}

    def field(self, field: Field, tensor: InputTensor, where: str, *, long: bool = False) -> Any:
        """One value per row of `field` (an array for a tensor); raises what is wrong with the tensor."""
        shape = tensor.shape
        if len(shape) == 1 and isinstance(field, Column) and not long:
            values = self._at_once(field, tensor, shape[0])
            if values is not None:
                return values
        check_datatype(field, tensor.datatype, where)
        check_shape(field, shape, where)
        values = self._values(field, tensor, where)
        if isinstance(field, Column):
            return values
        return _array(field, values, where).reshape(shape)

    def matrix(self, tensor: InputTensor, where: str, *, long: bool = False) -> Iterable[Sequence[Any]]:
        """The rows of all fields, all of them float columns, from one tensor of shape [n, fields]."""
        width = len(self._fields)
        values = None if long else self._at_once(self._cell, tensor, tensor.shape[0] * width)
        if values is None:
            check_datatype(self._cell, tensor.datatype, where, name=tensor.name)
            values = self._values(self._cell, tensor, where)
        for place, field in self._checked:
            try:
                msgspec.convert(values[place::width], list[column_type(field)])  # type: ignore[misc]
            except msgspec.ValidationError as problem:
                raise error("invalid-row", describe(problem, f"{where}.data, column {field.name!r} ", field)) from None
        return zip(*[iter(values)] * width, strict=True)

    def _at_once(self, field: Column, tensor: InputTensor, size: int) -> list[Any] | None:
        """The values of flat data that is as it should be; None if it isn't, or this datatype has not been read yet."""
        decode = self._decoders.get((field.name, tensor.datatype, 1))
        if decode is None or not 0 <= tensor.shape[0] <= MAX_ROWS:
            return None
        try:
            values: list[Any] = decode(tensor.data)
        except UNREADABLE:
            return None
        return values if len(values) == size else None

    def _values(self, field: Field, tensor: InputTensor, where: str) -> list[Any]:
        """The tensor's values in row-major order, checked and counted."""
        shape = tensor.shape
        data: Any = tensor.data
        size = count(shape, where)
        values: list[Any]
        if type(data) is list:
            values, depth = data, tensor.depth
            if depth not in (1, len(shape)):
                raise bad(f"{where}.data: arrays nested {depth} deep don't fit shape {shape}")
        else:
            if not memoryview(data):
                raise no_data(tensor, where)
            depth = len(shape) if len(shape) > 1 and _NESTED.match(memoryview(data)) else 1
            if tensor.datatype != "BYTES" and len(memoryview(data)) > LONG:
                check_length(bytes(data).count(b",") + 1, size, shape, where)  # before they are held in memory
            try:
                values = self._decoder(field, tensor.datatype, depth)(data)
            except msgspec.ValidationError as problem:
                raise error("invalid-row", describe(problem, f"{where}.data", field)) from None
            except UNREADABLE as problem:
                raise bad_json(problem, data, f"{where}.data") from None
        if depth > 1:
            values = _flattened(values, shape, where)
        check_length(len(values), size, shape, where)
        return values

    def _decoder(self, field: Field, datatype: str, depth: int) -> Any:
        key = (field.name, datatype, depth)
        found = self._decoders.get(key)
        if found is None:
            kind = _element(field, datatype)
            for _ in range(depth):
                kind = list[kind]  # type: ignore[valid-type]
            found = self._decoders[key] = decoder(kind).decode
        return found


def _array(field: Tensor, values: list[Any], where: str) -> Any:
    """The array of a tensor's checked values, flat."""
    form = _FORMATS.get(field.dtype)
    try:
        if form is not None:  # a third of the time that np.array takes for a list
            return np.frombuffer(struct.pack(f"={len(values)}{form}", *values), field.dtype)
        return np.array(values, object if field.dtype == "str" else field.dtype)
    except OverflowError:
        raise error("invalid-row", f"{where}.data: expected {field.dtype}, got a number out of range") from None


def _flattened(values: list[Any], shape: Sequence[int], where: str) -> list[Any]:
    if len(values) != shape[0]:
        raise bad(f"{where}.data: shape {list(shape)} needs {shape[0]} arrays, data has {len(values)}")
    for size in shape[1:]:
        wrong = next((len(each) for each in values if len(each) != size), None)
        if wrong is not None:
            raise bad(f"{where}.data: shape {list(shape)} needs arrays of length {size}, one has length {wrong}")
        values = list(chain.from_iterable(values))
    return values


def _element(field: Field, datatype: str) -> Any:
    """The type of one element: what the field allows, within the range of an integer datatype."""
    if isinstance(field, Column) and field.type == "bytes":
        return Utf8 | None if may_be_null(field) else Utf8
    if datatype not in INTS:
        return column_type(field) if isinstance(field, Column) else element_type(field.dtype)
    low, high = _bounds(datatype.lower())
    if isinstance(field, Tensor):
        if not field.dtype.startswith("float"):
            low, high = max(low, _bounds(field.dtype)[0]), min(high, _bounds(field.dtype)[1])
        return Annotated[int, Meta(ge=low, le=high if high < 2**63 else None)]
    if field.enforce:
        low = max(low, math.ceil(field.minimum)) if field.minimum is not None else low
        high = min(high, math.floor(field.maximum)) if field.maximum is not None else high
    return column_type(replace(field, type="int", enforce=True, minimum=low, maximum=high))


def _bounds(dtype: str) -> tuple[int, int]:
    bounds = np.iinfo(dtype)
    return int(bounds.min), int(bounds.max)


class Written(NamedTuple):
    """An output's rows as JSON: the elements of each row without brackets, and the shape of each row of a tensor.

    Those of an output of bytes are the bytes.
    """

    rows: Sequence[Any] = ()
    shapes: Sequence[tuple[int, ...]] = ()


class TensorWriter:
    """Writes one output of a signature."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._values = values_of(field)
        name = ENCODER.encode(field.name).replace(b"%", b"%%")
        head = b'{"name":%b,"shape":[%%b],"datatype":"%b",' % (name, json_datatype(field).encode())
        self._form = head + b'"data":[%b]}'
        self._base64_form = head + b'"parameters":{"content_type":"base64"},"data":[%b]}'

    def rows(self, array: Any) -> Written:
        """Every row of an output, for `tensor` to choose from."""
        if isinstance(self._field, Column):
            return Written(array.tolist() if is_blob(self._field) else lines(self._values(array)))
        each = list(array) if array.dtype == object else array
        shapes = [np.shape(row) for row in each] if array.dtype == object else [array.shape[1:]] * len(array)
        flat = (
            (np.ravel(row).tolist() for row in each)
            if array.dtype == object
            else array.reshape(len(array), -1).tolist()
        )
        return Written([line[1:-1] for line in lines(flat)], shapes)

    def tensor(self, written: Written, start: int, stop: int) -> bytes:
        """The rows from `start` up to `stop` as one tensor; raises `bad-output` where their shapes differ."""
        shape = b"%d" % (stop - start)
        if is_blob(self._field):
            return self._of_blobs(written.rows[start:stop], shape)
        if isinstance(self._field, Tensor):
            shapes = set(written.shapes[start:stop]) or {tuple(max(size, 0) for size in self._field.row_shape)}
            if len(shapes) > 1:
                raise error("bad-output", f"the rows of {self._field.name!r} differ in shape; send one row per request")
            shape = b",".join([shape, *(b"%d" % size for size in shapes.pop())])
        return self._form % (shape, b",".join(written.rows[start:stop]))

    def _of_blobs(self, rows: Sequence[bytes | None], shape: bytes) -> bytes:
        """Bytes as the text that they are in UTF-8, or all of them in base64 where one is no text."""
        try:
            texts = [None if row is None else row.decode() for row in rows]
        except UnicodeDecodeError:
            return self._base64_form % (shape, b",".join(lines(rows)))
        return self._form % (shape, b",".join(lines(texts)))
