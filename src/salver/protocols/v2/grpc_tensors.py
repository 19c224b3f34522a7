"""The tensors of V2 over gRPC, read: the values of a field from one tensor, raw or typed.

NaN in a column of floats is null, so it is refused where null is, and so is an infinity; a tensor takes both as they
are sent. A null of any other type is stated by the parameter `nulls` of its tensor; what stands there in the data is
ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np

from salver.errors import error
from salver.protocols import protobuf
from salver.protocols.protobuf import Malformed
from salver.protocols.rows import column_type, describe, read_custom
from salver.protocols.v2.datatypes import WIRE, bad, check_datatype, check_length, check_shape, count, decode
from salver.protocols.v2.parameters import BASE64, CONTENT_TYPE, NULLS, blank, check_offered, from_base64, null_rows
from salver.signature import Column, Field, Tensor, is_blob
from salver.tables import may_be_null

Array = Any
_LONG = 64
_MOST_FORMS = 256


CONTENTS = {
    "BOOL": 1, "INT8": 2, "INT16": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT16": 4, "UINT32": 4, "UINT64": 5,
    "FP32": 6, "FP64": 7, "BYTES": 8,
}  # fmt: skip
"""The field of the typed contents that holds each datatype; the others have raw contents only."""


class InputTensor(NamedTuple):
    """One tensor of a request: its values lie in `contents` (a message, in parts) or in the request's raw contents.

    `nulls` are the rows that are null, `base64` says that its text came as that.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    contents: tuple[memoryview, ...] = ()
    nulls: tuple[int, ...] = ()
    base64: bool = False


def read_tensor(message: memoryview) -> InputTensor:
    """Read an InferInputTensor, its values not yet."""
    name = kind = ""
    shape: list[int] = []
    contents: list[memoryview] = []
    said: dict[str, str] = {}
    for key, value in protobuf.fields(message):
        match key:
            case 10:
                name = protobuf.text(value)
            case 18:
                kind = protobuf.text(value)
            case 24:
                shape.append(protobuf.signed(value))
            case 26:
                shape += map(protobuf.signed, protobuf.varints(value))
            case 34:
                said.update([text_parameter(value)])
            case 42:
                contents.append(value)
            case _:
                if key >> 3 <= 5:
                    raise Malformed(f"field {key >> 3} of a tensor has the wrong wire type")
    form = (name, kind, tuple(shape), tuple(contents))
    if not said:
        return InputTensor(*form)
    check_offered(said.items(), f"input {name!r}")
    return InputTensor(*form, null_rows(said.get(NULLS, "")), said.get(CONTENT_TYPE) == BASE64)


def text_parameter(entry: memoryview) -> tuple[str, str]:
    """The name and text of a parameter; '' for one that is no text."""
    found = dict(protobuf.fields(entry))
    said = dict(protobuf.fields(found.get(18, memoryview(b""))))
    return protobuf.text(found.get(10, memoryview(b""))), protobuf.text(said.get(26, memoryview(b"")))


class FieldReader:
    """Reads tensors as one field of a signature."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self._sizes: dict[tuple[str, tuple[int, ...]], int] = {}
        self._check: Callable[[Any], Any] | None = None
        self._nullable = isinstance(field, Column) and may_be_null(field)
        self._is_blob = is_blob(field)
        self._is_float = isinstance(field, Column) and field.type == "float"
        if isinstance(field, Column) and (field.enforce or field.type in ("int", "datetime")):
            kind: Any = list[column_type(field)]  # type: ignore[misc]
            self._check = partial(msgspec.convert, type=kind, dec_hook=read_custom)

    def rows(self, tensor: InputTensor, raw: memoryview | None, where: str) -> list[Any]:
        """One value per row (an array for a tensor field); raises what is wrong with it."""
        form = (tensor.datatype, tensor.shape)
        size = self._sizes.get(form)
        if size is None:
            size = self._size(tensor, where)
        values = read_values(tensor, raw, size, where)
        if tensor.nulls and not self._nullable:
            raise error("invalid-row", f"{where}: {self.field.name!r} may not be null")
        if tensor.base64:
            values = from_base64(tensor.datatype, values, where)
        if isinstance(self.field, Tensor):
            return self._arrays(self.field, tensor, values, where)
        if isinstance(values, np.ndarray):
            cells = values.tolist()
        else:
            cells = list(map(bytes, values)) if self._is_blob else _texts(values, where)
        if tensor.nulls:
            blank(cells, tensor.nulls, where)
        return self.cells(cells, where)

    def cells(self, cells: list[Any], where: str) -> list[Any]:
        """The values of a column, checked."""
        if self._is_float and any(cell is None or cell - cell for cell in cells):
            cells = self._unusual(cells, where)
        if self._check is None:
            return cells
        try:
            checked: list[Any] = self._check(cells)
        except msgspec.ValidationError as problem:
            raise error("invalid-row", describe(problem, where, self.field)) from None
        return checked

    def _unusual(self, cells: list[Any], where: str) -> list[Any]:
        """Floats among which are NaN, which is null, or infinities."""
        cells = [None if cell != cell else cell for cell in cells]
        for row, cell in enumerate(cells):
            if cell is None and not self._nullable:
                raise error("invalid-row", f"{where}[{row}]: expected float, got null (NaN)")
            if cell is not None and cell - cell:
                raise error("invalid-row", f"{where}[{row}]: expected float, got an infinity")
        return cells

    def _size(self, tensor: InputTensor, where: str) -> int:
        """How many elements the shape promises; refuses a datatype or a shape that is none of this field's."""
        check_datatype(self.field, tensor.datatype, where, raw=True)
        check_shape(self.field, tensor.shape, where)
        size = count(tensor.shape, where)
        if len(self._sizes) >= _MOST_FORMS:
            self._sizes.clear()
        self._sizes[tensor.datatype, tensor.shape] = size
        return size

    def _arrays(self, field: Tensor, tensor: InputTensor, values: Any, where: str) -> list[Any]:
        if field.dtype == "str":
            array = np.empty(len(values), object)
            array[:] = _texts(values, where)
        else:
            array = _fitted(values, np.dtype(field.dtype), where)
        return list(array.reshape(tensor.shape))


def read_values(tensor: InputTensor, raw: memoryview | None, size: int, where: str) -> Any:
    """The values of a tensor of a known datatype: an array of numbers or a list of bytes, `size` of them."""
    values = _from_raw(tensor, raw, where) if raw is not None else _from_contents(tensor, where)
    if len(values) != size:
        check_length(len(values), size, tensor.shape, where)
    return values


def _from_raw(tensor: InputTensor, raw: memoryview, where: str) -> Any:
    """An array of numbers or a list of bytes, from raw little-endian contents."""
    kind = tensor.datatype
    if kind == "BYTES":
        return _split(raw, where)
    if len(raw) % WIRE[kind].itemsize:
        raise bad(f"{where}: {len(raw)} raw bytes are no whole number of {kind}")
    return decode(kind, raw, where)


def _split(raw: memoryview, where: str) -> list[memoryview]:
    """The elements of raw BYTES: each a length of 4 bytes, then that many bytes."""
    parts = []
    at, end = 0, len(raw)
    while at < end:
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        if at > end or start > end:
            raise bad(f"{where}: the raw bytes end in the middle of an element")
        parts.append(raw[start:at])
    return parts


def _from_contents(tensor: InputTensor, where: str) -> Any:
    """An array of numbers or a list of bytes, from the field of the contents that the datatype asks for."""
    kind = tensor.datatype
    number = CONTENTS.get(kind)
    if number is None:
        raise bad(f"{where}: {kind} can only be sent in raw_input_contents")
    found: list[tuple[int, Any]] = []
    for part in tensor.contents:
        found += protobuf.fields(part)
    for key, _ in found:
        if key >> 3 != number and key >> 3 <= 8:
            raise bad(f"{where}: {kind} belongs in another field of the contents than {key >> 3}")
    found = [(key & 7, value) for key, value in found if key >> 3 == number]
    if kind == "BYTES":
        if any(wire != protobuf.BYTES for wire, _ in found):
            raise Malformed("the contents have the wrong wire type")
        return [value for _, value in found]
    if kind in ("FP32", "FP64"):
        return _fixed(found, kind)
    values = _integers(found)
    if kind == "BOOL":
        return values != 0
    if "U" not in kind:
        values = values.view(np.int64)
    bounds = np.iinfo(kind.lower())
    if len(values) and (values.min() < bounds.min or values.max() > bounds.max):
        raise error("invalid-row", f"{where}: a number is out of the range of {kind}")
    return values


def _fixed(found: list[tuple[int, Any]], kind: str) -> Array:
    """Floats, packed or one by one."""
    one, single = (protobuf.FIXED32, struct.Struct("<I")) if kind == "FP32" else (protobuf.FIXED64, struct.Struct("<Q"))
    parts = []
    for wire, value in found:
        if wire == protobuf.BYTES and len(value) % single.size == 0:
            parts.append(value)
        elif wire == one:
            parts.append(single.pack(value))
        else:
            raise Malformed("the contents have the wrong wire type or length")
    return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), WIRE[kind])


def _integers(found: list[tuple[int, Any]]) -> Array:
    """Unsigned 64-bit integers, packed or one by one."""
    parts: list[Array] = []
    for wire, value in found:
        if wire == protobuf.BYTES:
            parts.append(_unpacked(value) if len(value) > _LONG else np.array(protobuf.varints(value), np.uint64))
        elif wire == protobuf.VARINT:
            parts.append(np.array([value], np.uint64))
        else:
            raise Malformed("the contents have the wrong wire type")
    if not parts:
        return np.empty(0, np.uint64)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _unpacked(view: memoryview) -> Array:
    """Packed varints, all at once."""
    data = np.frombuffer(view, np.uint8)
    ends = np.flatnonzero(data < 128)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise Malformed("the integers end in the middle of one")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > 10:
        raise Malformed("an integer has more than 10 bytes")
    values = np.zeros(len(ends), np.uint64)
    for place in range(longest):
        at = np.flatnonzero(lengths > place)
        values[at] |= (data[starts[at] + place] & 127).astype(np.uint64) << np.uint64(7 * place)
    return values


def _texts(values: Sequence[memoryview | bytes], where: str) -> list[Any]:
    try:
        return [str(value, "utf-8") for value in values]
    except UnicodeDecodeError:
        raise error("invalid-row", f"{where}: text must be UTF-8") from None


def _fitted(values: Array, kind: np.dtype[Any], where: str) -> Array:
    """Numbers as the dtype of a tensor field; raises where one doesn't fit."""
    if values.dtype == kind:
        return values
    with np.errstate(over="ignore"):
        array = values.astype(kind)
    if kind.kind == "f":
        fine = values.dtype.kind != "f" or np.array_equal(np.isfinite(values), np.isfinite(array))
    else:
        bounds = np.iinfo(kind)
        fine = not len(values) or (int(values.min()) >= bounds.min and int(values.max()) <= bounds.max)
    if not fine:
        raise error("invalid-row", f"{where}: expected {kind}, got a number out of range")
    return array
