"""Columns as torch tensors and tensors as columns: what the adapters of PyTorch and of Keras share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from salver import plugins, tables
from salver.errors import error
from salver.frameworks import Columns
from salver.signature import Column, Field, Signature, Tensor

METHODS: Final = ("predict", "predict_proba")
_NUMBERS: Final = ("float", "int", "bool")


class Inputs(NamedTuple):
    """What a model is called with: one tensor, or tensors by the names of the signature's inputs."""

    one: Any = None
    named: Mapping[str, Any] = {}


def import_torch() -> Any:
    """The package torch, or the error that says how to install it."""
    try:
        import torch
    except ModuleNotFoundError as problem:
        if problem.name != "torch":
            raise
        raise plugins.missing_extra("torch", needed_for="a PyTorch model") from None
    return torch


def use_threads() -> None:
    """Give torch the number of threads that OMP_NUM_THREADS says; that is what a worker was granted."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        import_torch().set_num_threads(int(wanted))


def device(options: Mapping[str, Any]) -> Any:
    """The device that the option `device` names ("cpu" without one); raises `bad-settings` if it isn't here."""
    torch = import_torch()
    name = options.get("device", "cpu")
    found = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    try:
        wanted = torch.device(name)
        count = found[wanted.type]
    except (RuntimeError, TypeError, KeyError):
        raise error("bad-settings", f"unknown device {name!r}", hint="one of cpu, cuda, cuda:N, mps") from None
    if (wanted.index or 0) >= count:
        here = ", ".join(f"{kind}:{index}" for kind in found for index in range(found[kind]))
        raise error(
            "bad-settings",
            f"the device {name!r} isn't available",
            hint=f"here are {here}; release with options={{'device': 'cpu'}} or run where the device is",
        )
    return wanted if wanted.type == "cpu" else torch.device(wanted.type, wanted.index or 0)


def weights_dtype(tensors: Any) -> Any:
    """The dtype of the first tensor of floats, which is what a model expects of its inputs; float32 without one."""
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), import_torch().float32)


def arrangement(
    signature: Signature, names: Sequence[str], required: int, dtype: Any, place: Any
) -> Callable[[Columns], Inputs]:
    """Compile how columns become a model's inputs, copied to the device `place`.

    `names` are those of its arguments, of which the first `required` have to be there. One tensor input keeps its
    dtype. Several inputs that have the names of the arguments go by name; columns of floats get `dtype` then.
    Otherwise numeric columns become one matrix of `dtype`, in order. Raises `bad-signature` where none of it fits.
    """
    torch, inputs = import_torch(), signature.inputs
    given = [field.name for field in inputs]
    if any(isinstance(field, Tensor) and field.dtype == "str" for field in inputs):
        raise error("bad-signature", "torch has no tensors of text", hint="turn text into numbers before the model")
    if len(inputs) == 1 and isinstance(inputs[0], Tensor):
        return lambda columns: Inputs(torch.tensor(columns[given[0]], device=place))
    by_name = len(given) > 1 and set(given) <= set(names) and set(names[:required]) <= set(given)
    if by_name and all(map(_is_numeric, inputs)):
        kinds = {field.name: _dtype(field, dtype) for field in inputs}
        return lambda columns: Inputs(
            named={name: torch.tensor(columns[name], dtype=kind, device=place) for name, kind in kinds.items()}
        )
    if all(isinstance(field, Column) and _is_numeric(field) for field in inputs):
        return lambda columns: Inputs(torch.tensor(tables.matrix(columns, given), dtype=dtype, device=place))
    raise error(
        "bad-signature",
        f"the inputs {', '.join(given)} are neither numeric columns nor the model's arguments: {', '.join(names)}",
        hint="give examples as one array, or as a mapping of arrays named as the model's arguments",
    )


def _is_numeric(field: Field) -> bool:
    return isinstance(field, Tensor) or field.type in _NUMBERS


def _dtype(field: Field, dtype: Any) -> Any:
    """The dtype of one named input; None keeps that of its array."""
    return dtype if isinstance(field, Column) and field.type == "float" else None


def answering(options: Mapping[str, Any], outputs: Sequence[Field]) -> Callable[[Any], Any]:
    """Compile how a model's raw output becomes columns: as it is, or as classes and probabilities.

    Option `method`: `predict` keeps what the model returns; `predict_proba` makes `prediction` (of the option
    `classes`, else 0, 1, …) and `probabilities` from logits, or from probabilities where `from_logits` is false.
    """
    method = options.get("method", "predict")
    if method not in METHODS:
        raise error("bad-settings", f"unknown method {method!r}", hint=f"one of {', '.join(METHODS)}")
    if method == "predict":
        names = [field.name for field in outputs]
        return lambda raw: _named(raw, names)
    classes, from_logits = options.get("classes"), options.get("from_logits", True)
    return lambda raw: _classified(raw, classes, bool(from_logits))


def _named(raw: Any, names: Sequence[str]) -> Any:
    """Tensors as arrays: one by itself, several by name; those of a tuple get the outputs' names, or `output_0`, …"""
    if isinstance(raw, Mapping):
        return {str(name): _array(value) for name, value in raw.items() if value is not None}
    if not isinstance(raw, tuple | list):
        return _array(raw)
    if len(raw) == 1:
        return _array(raw[0])
    own = getattr(raw, "_fields", None) or [f"output_{place}" for place in range(len(raw))]
    chosen = names if len(names) == len(raw) else own
    return {name: _array(value) for name, value in zip(chosen, raw, strict=True)}


def _array(value: Any) -> Any:
    torch = import_torch()
    if not isinstance(value, torch.Tensor):
        raise error(
            "bad-output",
            f"the model returned a {type(value).__name__} where a tensor is expected",
            hint="return a tensor, a tuple of tensors or a dict of tensors",
        )
    return (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu().numpy()


def _classified(raw: Any, classes: Sequence[Any] | None, from_logits: bool) -> Columns:
    torch = import_torch()
    if isinstance(raw, tuple | list) and len(raw) == 1:
        raw = raw[0]
    if not isinstance(raw, torch.Tensor) or raw.ndim not in (1, 2):
        raise error(
            "unsupported-model",
            "method 'predict_proba' needs one score per class and row",
            hint="return a tensor of shape (rows, classes), (rows, 1) or (rows,), or use method 'predict'",
        )
    if raw.ndim == 1 or raw.shape[1] == 1:
        share = raw.reshape(-1, 1).sigmoid() if from_logits else raw.reshape(-1, 1)
        shares = torch.cat([1 - share, share], dim=1)
    else:
        shares = raw.softmax(dim=1) if from_logits else raw
    values = _array(shares)
    labels = np.arange(values.shape[1]) if classes is None else np.asarray(classes)
    if len(labels) != values.shape[1]:
        raise error("bad-settings", f"{len(labels)} classes were given for {values.shape[1]} scores")
    return {"prediction": labels[values.argmax(axis=1)], "probabilities": values}
