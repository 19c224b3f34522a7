"""What V2 says of a server and a model, from the signature alone; the gateway answers it, so numpy stays out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from salver import __version__
from salver.signature import Column, Field, Signature

_COLUMNS = {"float": "FP64", "int": "INT64", "bool": "BOOL", "str": "BYTES", "category": "BYTES", "datetime": "BYTES"}
_TENSORS = {
    "bool": "BOOL",
    "str": "BYTES",
    "float16": "FP32",  # V2 has no JSON form of FP16
    "float32": "FP32",
    "float64": "FP64",
}


def datatype(field: Field) -> str:
    """The V2 datatype of a field: what its answers are sent as, and the one its requests had best use."""
    if isinstance(field, Column):
        return _COLUMNS[field.type]
    return _TENSORS.get(field.dtype) or field.dtype.upper()


def server_metadata() -> dict[str, Any]:
    """The answer to `GET /v2`."""
    return {"name": "salver", "version": __version__, "extensions": []}


def model_metadata(model: str, numbers: Iterable[int], framework: str, signature: Signature) -> dict[str, Any]:
    """The answer to `GET /v2/models/{model}`; `numbers` are the releases that can answer, -1 in a shape is free."""
    return {
        "name": model,
        "versions": [str(number) for number in numbers],
        "platform": framework,
        "inputs": [_tensor(field) for field in signature.inputs],
        "outputs": [_tensor(field) for field in signature.outputs],
    }


def _tensor(field: Field) -> dict[str, Any]:
    shape = [-1] if isinstance(field, Column) else list(field.shape)
    return {"name": field.name, "datatype": datatype(field), "shape": shape}
