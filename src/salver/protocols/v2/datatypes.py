"""What V2 says in every form: datatypes and their bytes, the shapes of tensors, the outputs a request asks for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salver.errors import SalverError, error
from salver.limits import BODY
from salver.protocols.rows import MAX_ROWS, listed
from salver.protocols.v2.metadata import datatype
from salver.signature import Column, Field

Array = NDArray[Any]
MAX_ELEMENTS = BODY.elements
MAX_TENSORS = BODY.tensors
INTS = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
FLOATS = ("FP64", "FP32", *INTS)
RAW_ONLY = ("FP16", "BF16")
KNOWN = ("BOOL", *FLOATS, *RAW_ONLY, "BYTES")
WIRE: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{name: np.dtype(name.lower()).newbyteorder("<") for name in INTS},
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
}
"""How elements of a fixed size lie in binary data; a BF16 is the upper half of an FP32, here as its bits."""


def bad(message: str, hint: str = "") -> SalverError:
    """The error of a tensor that breaks the rules of V2."""
    return error("bad-protocol-body", message, hint=hint)


def check_datatype(field: Field, got: str, where: str, *, raw: bool = False, name: str = "") -> None:
    """Refuse a datatype that the field does not take; `raw` data may also be FP16 and BF16, `name` is the input's."""
    if got in RAW_ONLY and not raw:
        raise bad(f"{where}: {got} data can't be sent as JSON", "send FP32")
    kind = field.type if isinstance(field, Column) else field.dtype
    if kind.startswith("float"):
        accepted: tuple[str, ...] = (*FLOATS, *RAW_ONLY) if raw else FLOATS
    elif kind.startswith(("int", "uint")):
        accepted = INTS
    else:
        accepted = (datatype(field),)
    if got not in accepted:
        unknown = "" if got in KNOWN else "unknown "
        raise bad(
            f"{where}: {(name or field.name)!r} is {kind}; {unknown}datatype {got!r} must be {' or '.join(accepted)}"
        )


def check_shape(field: Field, shape: Sequence[int], where: str) -> None:
    """Refuse a shape that is not rows of the field; a column may come as [n] or [n, 1]."""
    wanted = () if isinstance(field, Column) else field.row_shape
    fits = len(shape) == 1 + len(wanted) and all(w in (-1, s) for w, s in zip(wanted, shape[1:], strict=False))
    if not fits and not (isinstance(field, Column) and len(shape) == 2 and shape[1] == 1):
        rows = ", ".join(["n", *map(str, wanted)])
        raise bad(f"{where}: shape {list(shape)[:16]} of {field.name!r} must be [{rows}]")


def count(shape: Sequence[int], where: str) -> int:
    """The number of elements a shape promises, of which there may be 16 Mi in 10,000 rows."""
    if min(shape, default=0) < 0:
        raise bad(f"{where}: shape {shape} has a negative size")
    if shape and shape[0] > MAX_ROWS:
        raise error("too-many-rows", f"{where}: {shape[0]} rows in one request, the limit is {MAX_ROWS}")
    size = math.prod(shape)
    span = size or math.prod(length or 1 for length in shape)  # no array has a shape of no elements and endless size
    if span > MAX_ELEMENTS:
        raise error("too-large", f"{where}: shape {list(shape)} has {span} elements, the limit is {MAX_ELEMENTS}")
    return size


def check_length(length: int, size: int, shape: Sequence[int], where: str) -> None:
    """Refuse data that is not what its shape promises."""
    if length != size:
        raise bad(f"{where}: shape {shape} needs {size} elements, data has {length}")


def decode(datatype: str, data: memoryview, where: str) -> Array:
    """The elements of any datatype but BYTES, flat, from their binary data; BF16 comes as float32."""
    if datatype == "BOOL":
        flags = np.frombuffer(data, np.uint8)
        if len(flags) and flags.max() > 1:
            row = int(flags.argmax())
            raise error("invalid-row", f"{where}[{row}]: expected a byte 0 or 1 for BOOL, got another")
        return flags.view(np.bool_)
    values = np.frombuffer(data, WIRE[datatype])
    return (values.astype(np.uint32) << 16).view(np.float32) if datatype == "BF16" else values


def check_outputs(asked: Collection[str], known: Sequence[str], where: str) -> None:
    """Refuse a request for outputs that the model does not have."""
    unknown = [repr(name[:100]) for name in asked if name not in known]
    if unknown:
        raise bad(f"{where}: no output is named {listed(unknown)}", f"outputs: {listed(known)}")
