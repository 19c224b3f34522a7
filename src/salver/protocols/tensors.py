"""The tensors of V2 JSON: reads one into the values of a field, writes the rows of an output as one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from salver.errors import SalverError, error
from salver.protocols.answers import ENCODER, lines, values_of
from salver.protocols.metadata import datatype
from salver.protocols.rows import MAX_ROWS, UNREADABLE, bad_json, column_type, decoder, describe, element_type
from salver.signature import Column, Field, Tensor
from salver.tables import may_be_null

MAX_ELEMENTS = 16 << 20

_INTS = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
_FLOATS = ("FP64", "FP32", *_INTS)
_RAW_ONLY = ("FP16", "BF16")
_KNOWN = ("BOOL", *_FLOATS, "BYTES")
_NESTED = re.compile(rb"\s*\[\s*\[")
_LONG = 1 << 20


class InputTensor(Struct, gc=False):
    """One tensor of a request, its data not yet read."""

    name: str
    shape: list[int]
    datatype: str
    data: Raw
    parameters: dict[str, str | int | float | bool] | None = None


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

    def field(self, field: Field, tensor: InputTensor, where: str, *, long: bool = False) -> list[Any]:
        """One value per row of `field` (an array for a tensor); raises what is wrong with the tensor."""
        shape = tensor.shape
        if len(shape) == 1 and isinstance(field, Column) and not long:
            values = self._at_once(field, tensor, shape[0])
            if values is not None:
                return values
        _check_datatype(field, tensor, where)
        wanted = field.row_shape if isinstance(field, Tensor) else ()
        fits = len(shape) == 1 + len(wanted) and all(w in (-1, s) for w, s in zip(wanted, shape[1:], strict=False))
        if not fits and not (isinstance(field, Column) and len(shape) == 2 and shape[1] == 1):
            rows = ", ".join(["n", *map(str, wanted)])
            raise _bad(f"{where}: shape {shape} of {field.name!r} must be [{rows}]")
        values = self._values(field, tensor, where)
        if isinstance(field, Column):
            return values
        dtype = np.dtype(object if field.dtype == "str" else field.dtype)
        try:
            return list(np.array(values, dtype).reshape(shape))
        except OverflowError:
            raise error("invalid-row", f"{where}.data: expected {dtype}, got a number out of range") from None

    def matrix(self, tensor: InputTensor, where: str, *, long: bool = False) -> Iterable[Sequence[Any]]:
        """The rows of all fields, all of them float columns, from one tensor of shape [n, fields]."""
        width = len(self._fields)
        values = None if long else self._at_once(self._cell, tensor, tensor.shape[0] * width)
        if values is None:
            _check_datatype(self._cell, tensor, where)
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
        shape, data = tensor.shape, tensor.data
        size = _size(tensor, where)
        depth = len(shape) if len(shape) > 1 and _NESTED.match(memoryview(data)) else 1
        if tensor.datatype != "BYTES" and len(memoryview(data)) > _LONG:
            _check_length(bytes(data).count(b",") + 1, size, tensor, where)  # before they are held in memory
        try:
            values: list[Any] = self._decoder(field, tensor.datatype, depth)(data)
        except msgspec.ValidationError as problem:
            raise error("invalid-row", describe(problem, f"{where}.data", field)) from None
        except UNREADABLE as problem:
            raise bad_json(problem, data, f"{where}.data") from None
        if depth > 1:
            values = _flattened(values, shape, where)
        _check_length(len(values), size, tensor, where)
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


def _bad(message: str, hint: str = "") -> SalverError:
    return error("bad-protocol-body", message, hint=hint)


def _check_datatype(field: Field, tensor: InputTensor, where: str) -> None:
    got = tensor.datatype
    if got in _RAW_ONLY:
        raise _bad(f"{where}: {got} data can't be sent as JSON", "send FP32")
    kind = field.type if isinstance(field, Column) else field.dtype
    if kind.startswith("float"):
        accepted: tuple[str, ...] = _FLOATS
    elif kind.startswith(("int", "uint")):
        accepted = _INTS
    else:
        accepted = (datatype(field),)
    if got not in accepted:
        unknown = "" if got in _KNOWN else "unknown "
        raise _bad(f"{where}: {tensor.name!r} is {kind}; {unknown}datatype {got!r} must be {' or '.join(accepted)}")


def _size(tensor: InputTensor, where: str) -> int:
    """The number of elements a shape promises."""
    if min(tensor.shape, default=0) < 0:
        raise _bad(f"{where}: shape {tensor.shape} has a negative size")
    if tensor.shape and tensor.shape[0] > MAX_ROWS:
        raise error("too-many-rows", f"{where}: {tensor.shape[0]} rows in one request, the limit is {MAX_ROWS}")
    size = math.prod(tensor.shape)
    if size > MAX_ELEMENTS:
        raise error("too-large", f"{where}: shape {tensor.shape} has {size} elements, the limit is {MAX_ELEMENTS}")
    return size


def _check_length(length: int, size: int, tensor: InputTensor, where: str) -> None:
    if length != size:
        raise _bad(f"{where}: shape {tensor.shape} needs {size} elements, data has {length}")


def _flattened(values: list[Any], shape: Sequence[int], where: str) -> list[Any]:
    if len(values) != shape[0]:
        raise _bad(f"{where}.data: shape {list(shape)} needs {shape[0]} arrays, data has {len(values)}")
    for size in shape[1:]:
        wrong = next((len(each) for each in values if len(each) != size), None)
        if wrong is not None:
            raise _bad(f"{where}.data: shape {list(shape)} needs arrays of length {size}, one has length {wrong}")
        values = list(chain.from_iterable(values))
    return values


def _element(field: Field, datatype: str) -> Any:
    """The type of one element: what the field allows, within the range of an integer datatype."""
    if datatype not in _INTS:
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
    """An output's rows as JSON: the elements of each row without brackets, and the shape of each row of a tensor."""

    rows: Sequence[bytes] = ()
    shapes: Sequence[tuple[int, ...]] = ()


class TensorWriter:
    """Writes one output of a signature."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._values = values_of(field)
        name = ENCODER.encode(field.name).replace(b"%", b"%%")
        self._form = b'{"name":%b,"shape":[%%b],"datatype":"%b","data":[%%b]}' % (name, datatype(field).encode())

    def rows(self, array: Any) -> Written:
        """Every row of an output, for `tensor` to choose from."""
        if isinstance(self._field, Column):
            return Written(lines(self._values(array)))
        each = list(array) if array.dtype == object else array
        shapes = [np.shape(row) for row in each] if array.dtype == object else [array.shape[1:]] * len(array)
        return Written([line[1:-1] for line in lines(np.ravel(row).tolist() for row in each)], shapes)

    def tensor(self, written: Written, start: int, stop: int) -> bytes:
        """The rows from `start` up to `stop` as one tensor; raises `bad-output` where their shapes differ."""
        shape = b"%d" % (stop - start)
        if isinstance(self._field, Tensor):
            shapes = set(written.shapes[start:stop]) or {tuple(max(size, 0) for size in self._field.row_shape)}
            if len(shapes) > 1:
                raise error("bad-output", f"the rows of {self._field.name!r} differ in shape; send one row per request")
            shape = b",".join([shape, *(b"%d" % size for size in shapes.pop())])
        return self._form % (shape, b",".join(written.rows[start:stop]))
