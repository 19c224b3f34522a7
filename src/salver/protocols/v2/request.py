"""Requests of V2 as they come over HTTP: JSON, with the bytes of binary tensors behind it where a header says so.

The header Inference-Header-Content-Length holds the length of the JSON; with 0 the whole body is the only input.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Raw, Struct

from salver.errors import SalverError, error
from salver.protocols import Options
from salver.protocols.bounds import MOST_MEMBERS, beyond, has_many_members, more_than
from salver.protocols.rows import UNREADABLE
from salver.protocols.v2.binary import raw_shape
from salver.protocols.v2.datatypes import MAX_TENSORS, bad
from salver.protocols.v2.metadata import datatype
from salver.protocols.v2.parameters import BASE64, check_offered
from salver.signature import Field, Tensor

HEADER = "inference-header-content-length"
LONG = 1 << 20
_FEW = 12 * MAX_TENSORS
"""Bodies up to this many bytes can't ask for more outputs than allowed: one is at least `{"name":""},`."""
_DATA = re.compile(rb'"data"\s*:\s*((?:\[\s*)+)')
Length = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_NOTHING: Mapping[int, memoryview] = {}


class InputParameters(Struct, gc=False):
    """The parameters of an input that mean something here; others are ignored."""

    binary_data_size: int | None = None
    shared_memory_region: Any = None
    nulls: str = ""
    content_type: Any = None

    @property
    def base64(self) -> bool:
        """Whether the text of the input came as base64."""
        return bool(self.content_type == BASE64)


class OutputParameters(Struct, gc=False):
    """The parameters of a wanted output that mean something here."""

    binary_data: bool | None = None
    classification: Any = None
    shared_memory_region: Any = None


class RequestParameters(Struct, gc=False):
    """The parameters of a request that mean something here."""

    binary_data_output: bool | None = None
    sequence_id: Any = None
    sequence_start: Any = None
    sequence_end: Any = None


class InputTensor(Struct, gc=False):
    """One tensor of a request, its data not yet read; where it is, `depth` says how deep its lists are nested."""

    depth: ClassVar[int] = 0
    name: str
    shape: list[Length]
    datatype: str
    data: Raw = Raw()
    parameters: InputParameters | None = None


class OutputAsked(Struct, gc=False):
    """One output that a request wants."""

    name: str
    parameters: OutputParameters | None = None


class Request(Struct, gc=False):
    """The JSON of a request."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: RequestParameters | None = None
    outputs: list[OutputAsked] | None = None


Received = tuple[Request, Mapping[int, memoryview]]
"""A request, and the bytes of its binary inputs by their place."""


class RequestReader:
    """Reads the requests of one signature."""

    def __init__(self, fields: Sequence[Field], outputs: int) -> None:
        self._fields = fields
        self._most = (("inputs", MAX_TENSORS), ("outputs", max(MAX_TENSORS, outputs)))
        self._decode = msgspec.json.Decoder(Request).decode
        direct = all(isinstance(field, Tensor) and field.dtype.startswith("float") for field in fields)
        depths = {1, *(len(field.shape) for field in fields if isinstance(field, Tensor))} if direct else set()
        self._direct = {depth: msgspec.json.Decoder(_numbers_at(depth)).decode for depth in depths}

    def read(self, body: bytes, options: Options | None) -> Received:
        """Read one body; raises what decoding raises, and what is wrong with the binary data."""
        length = options.get("header_length", "") if options else ""
        if length:
            return self._split(body, length)
        if self._direct and len(body) <= LONG:
            found = self._directly(body)
            if found is not None:
                return found, _NOTHING
        return self._whole(body), _NOTHING

    def _whole(self, body: bytes) -> Request:
        """The request that JSON holds; one of too many tensors is refused before they are read."""
        if len(body) > _FEW:
            if has_many_members(body):
                raise bad(f"$: more than {MOST_MEMBERS} members")
            if more_than(MAX_TENSORS, body, b"{") and (name := beyond(body, self._most)):
                raise too_many(name, dict(self._most)[name])
        return self._decode(body)

    def _directly(self, body: bytes) -> Request | None:
        """The request with its data already read as floats, in one pass; None where it is not of that kind."""
        start = _DATA.search(body)
        decode = self._direct.get(start[1].count(b"[")) if start else None
        if decode is None:
            return None
        try:
            request: Request = decode(body)
        except UNREADABLE:
            return None
        return request if all(tensor.datatype in ("FP32", "FP64") for tensor in request.inputs) else None

    def _split(self, body: bytes, length: str) -> Received:
        if not length.isdecimal() or len(length) > 18:
            raise bad(f"{HEADER} must be the length of the JSON in bytes")
        at = int(length)
        if at == 0:
            return self._raw(body)
        if at > len(body):
            raise bad(f"{HEADER} says {at} bytes of JSON, the body has {len(body)}")
        request = self._whole(body[:at])
        binary = {}
        view = memoryview(body)
        for place, tensor in enumerate(request.inputs):
            size = tensor.parameters.binary_data_size if tensor.parameters else None
            if size is None:
                continue
            where = f"$.inputs[{place}]"
            if memoryview(tensor.data):
                raise bad(f"{where}: has both data and binary_data_size")
            if not 0 <= size <= len(body) - at:
                raise bad(f"{where}: binary_data_size is {size}, {len(body) - at} bytes are left in the body")
            binary[place] = view[at : at + size]
            at += size
        if at < len(body):
            raise bad(f"{len(body) - at} bytes follow the last binary input", f"check binary_data_size and {HEADER}")
        return request, binary

    def _raw(self, body: bytes) -> Received:
        """A body of nothing but the one row of the only input."""
        if len(self._fields) != 1:
            raise bad(
                f"a raw request needs a model with one input, this one has {len(self._fields)}",
                f"send JSON before the data, and its length as {HEADER}",
            )
        field = self._fields[0]
        kind = datatype(field)
        if kind == "BYTES":
            body = struct.pack("<I", len(body)) + body
        tensor = InputTensor(field.name, list(raw_shape(field, len(body))), kind)
        request = Request([tensor], parameters=RequestParameters(binary_data_output=True))
        return request, {0: memoryview(body)}


def too_many(name: str, most: int = MAX_TENSORS) -> SalverError:
    """The error of a request with more inputs, or wanted outputs, than allowed."""
    return error("too-many-tensors", f"$.{name}: more tensors than {most}")


def _numbers_at(depth: int) -> Any:
    """A request whose tensors hold floats, nested this deep."""
    data: Any = float
    for _ in range(depth):
        data = list[data]
    tensor = msgspec.defstruct(
        "NumberTensor", [("data", data)], bases=(InputTensor,), namespace={"depth": depth}, kw_only=True, gc=False
    )
    kind: Any = list[tensor]  # type: ignore[valid-type]
    return msgspec.defstruct("NumberRequest", [("inputs", kind)], bases=(Request,), kw_only=True, gc=False)


def no_data(tensor: InputTensor, where: str) -> SalverError:
    """Why a tensor without data can't be read."""
    parameters = tensor.parameters
    if parameters:
        check_offered([("shared_memory_region", parameters.shared_memory_region)], where)
    if parameters and parameters.binary_data_size is not None:
        return error("bad-protocol-body", f"{where}: binary_data_size needs the header {HEADER}")
    return error("bad-protocol-body", f"{where}: required field data is missing")
