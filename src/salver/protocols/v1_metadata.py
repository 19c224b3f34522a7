"""What TF Serving says of a model, from the signature alone; the gateway answers it, so numpy stays out."""

from __future__ import annotations

from typing import Any

from salver.signature import Column, Field, Signature

_COLUMNS = {"float": "DT_DOUBLE", "int": "DT_INT64", "bool": "DT_BOOL"}
_TENSORS = {
    "bool": "DT_BOOL",
    "str": "DT_STRING",
    "float16": "DT_HALF",
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
}


def model_status(number: int, *, ready: bool) -> dict[str, Any]:
    """The answer to `GET /v1/models/{model}` as TF Serving gives it."""
    status = {"error_code": "OK", "error_message": ""}
    state = "AVAILABLE" if ready else "LOADING"
    return {"model_version_status": [{"version": str(number), "state": state, "status": status}]}


def model_metadata(model: str, number: int, signature: Signature) -> dict[str, Any]:
    """The answer to `GET /v1/models/{model}/metadata`; the one signature is `serving_default`."""
    default = {
        "inputs": {field.name: _tensor(field) for field in signature.inputs},
        "outputs": {field.name: _tensor(field) for field in signature.outputs},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": model, "signature_name": "", "version": str(number)},
        "metadata": {"signature_def": {"signature_def": {"serving_default": default}}},
    }


def _tensor(field: Field) -> dict[str, Any]:
    if isinstance(field, Column):
        dtype = _COLUMNS.get(field.type, "DT_STRING")
    else:
        dtype = _TENSORS.get(field.dtype) or f"DT_{field.dtype.upper()}"
    shape = (-1,) if isinstance(field, Column) else field.shape
    dimensions = [{"size": str(size), "name": ""} for size in shape]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dimensions, "unknown_rank": False},
        "name": f"{field.name}:0",
    }
