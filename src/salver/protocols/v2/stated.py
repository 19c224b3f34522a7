"""Inputs of V2 over HTTP whose parameters say more of their values: which rows are null, that text came as base64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from salver.errors import error
from salver.protocols.v2.grpc_tensors import FieldReader
from salver.protocols.v2.grpc_tensors import InputTensor as RawTensor
from salver.protocols.v2.parameters import blank, from_base64, null_rows
from salver.protocols.v2.request import InputParameters, InputTensor, no_data
from salver.protocols.v2.tensors import TensorReader
from salver.signature import Column, Field, is_blob
from salver.tables import may_be_null


def says_more(tensor: InputTensor) -> bool:
    """Whether the parameters of a tensor say more of its values."""
    said = tensor.parameters
    return said is not None and (bool(said.nulls) or said.base64)


def read_stated(field: Field, tensor: InputTensor, data: memoryview | None, where: str, reader: TensorReader) -> Any:
    """One value per row of a tensor that says more; `data` are its bytes, None where it holds JSON."""
    said = tensor.parameters or InputParameters()
    nulls = null_rows(said.nulls)
    if data is not None:
        raw = RawTensor(tensor.name, tensor.datatype, tuple(tensor.shape), (), nulls, said.base64)
        return FieldReader(field).rows(raw, data, where)
    if nulls and not (isinstance(field, Column) and may_be_null(field)):
        raise error("invalid-row", f"{where}: {field.name!r} may not be null")
    if said.base64:
        from_base64(tensor.datatype, (), where)
    if not memoryview(tensor.data):
        raise no_data(tensor, where)
    values = msgspec.json.decode(tensor.data)
    if said.base64 and not is_blob(field):
        values = _texts(values, where)
    if nulls and isinstance(values, list):
        nested = bool(values) and isinstance(values[0], list)
        blank(values, nulls, where)
        if nested:
            values = [[None] if value is None else value for value in values]
    found = reader.field(field, replace(tensor, data=Raw(msgspec.json.encode(values))), where, long=True)
    return _decoded(found, where) if said.base64 and is_blob(field) else found


def _decoded(values: Sequence[bytes | None], where: str) -> list[bytes | None]:
    """The bytes that each base64 text stands for; null stays."""
    return [None if value is None else from_base64("BYTES", (value,), where)[0] for value in values]


def _texts(value: Any, where: str) -> Any:
    """Text for base64, at whatever depth of the arrays; null stays."""
    if isinstance(value, list):
        return [_texts(each, where) for each in value]
    if value is None:
        return None
    try:
        return from_base64("BYTES", (value,), where)[0].decode()
    except UnicodeDecodeError:
        raise error("invalid-row", f"{where}: text must be UTF-8") from None
