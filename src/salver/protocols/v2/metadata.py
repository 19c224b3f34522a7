"""What V2 says of a server and a model, from the signature alone; the gateway answers it, so numpy stays out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from salver import __version__
from salver.signature import Column, Field, Signature

_COLUMNS = {"float": "FP64", "int": "INT64", "bool": "BOOL"}
_TENSORS = {"bool": "BOOL", "str": "BYTES", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration")


def datatype(field: Field) -> str:
    """The V2 datatype of a field: what its binary answers are sent as, and the one its requests had best use."""
    if isinstance(field, Column):
        return _COLUMNS.get(field.type, "BYTES")
    return _TENSORS.get(field.dtype) or field.dtype.upper()


def json_datatype(field: Field) -> str:
    """The V2 datatype of a field in JSON, which has no form of FP16: those are sent as FP32."""
    found = datatype(field)
    return "FP32" if found == "FP16" else found


def server_metadata() -> dict[str, Any]:
    """The answer to `GET /v2`."""
    return {"name": "salver", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(model: str, numbers: Iterable[int], framework: str, signature: Signature) -> dict[str, Any]:
    """The answer to `GET /v2/models/{model}`; `numbers` are the releases that can answer, -1 in a shape is free.

    The parameters of a tensor say that it may hold nulls, or be left out; MLServer has them too.
    """
    return {
        "name": model,
        "versions": [str(number) for number in numbers],
        "platform": framework,
        "inputs": [_tensor(field) for field in signature.inputs],
        "outputs": [_tensor(field) for field in signature.outputs],
    }


def model_config(
    model: str, numbers: Iterable[int], framework: str, max_batch: int, signature: Signature
) -> dict[str, Any]:
    """The answer to `GET /v2/models/{model}/config`, in the words of Triton; dims are those of one row."""
    return {
        "name": model,
        "platform": framework,
        "backend": "salver",
        "version_policy": {"specific": {"versions": list(numbers)}},
        "max_batch_size": max_batch,
        "input": [_configured_input(field) for field in signature.inputs],
        "output": [_configured(field) for field in signature.outputs],
    }


def repository_index(releases: Iterable[tuple[str, int, bool]]) -> list[dict[str, str]]:
    """The answer to `POST /v2/repository/index`, from the model, number and readiness of each release."""
    return [
        {
            "name": model,
            "version": str(number),
            "state": "READY" if ready else "UNAVAILABLE",
            "reason": "" if ready else "no worker is proven",
        }
        for model, number, ready in releases
    ]


def _configured(field: Field) -> dict[str, Any]:
    found = datatype(field)
    dims = [1] if isinstance(field, Column) else list(field.row_shape)
    return {"name": field.name, "data_type": f"TYPE_{'STRING' if found == 'BYTES' else found}", "dims": dims or [1]}


def _configured_input(field: Field) -> dict[str, Any]:
    may_be_absent = isinstance(field, Column) and field.optional
    return _configured(field) | ({"optional": True} if may_be_absent else {})


def _tensor(field: Field) -> dict[str, Any]:
    shape = [-1] if isinstance(field, Column) else list(field.shape)
    said = {name: True for name in ("nullable", "optional") if getattr(field, name, False)}
    return {"name": field.name, "datatype": datatype(field), "shape": shape} | ({"parameters": said} if said else {})
