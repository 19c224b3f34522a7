"""NumPy's `.npy`: one array holds all rows. It is the tensor of a signature that has one, or the matrix of its columns.

A matrix has shape [rows, columns] and holds numbers or bools; the only column may also come as [rows]. The header is
read here, within bounds, and nothing is ever unpickled. Rows are counted from 1.
"""

from __future__ import annotations

import io
import math
import re
import struct
from typing import Any

import numpy as np

from salver.errors import SalverError, error
from salver.limits import BODY
from salver.protocols import Options
from salver.protocols.arrays import Problems, number_column, table, tensor_rows
from salver.protocols.rows import MAX_ROWS, RowType, too_many_rows
from salver.protocols.tabular import Table, Tabular
from salver.signature import Column, Field, Tensor
from salver.tables import Columns

MAX_HEADER = 4096
NUMBERS = ("float", "int", "bool")

_MAGIC = b"\x93NUMPY"
_LENGTHS = {1: struct.Struct("<H"), 2: struct.Struct("<I"), 3: struct.Struct("<I")}
_ENTRY = re.compile(
    r"'(descr|fortran_order|shape)'\s*:\s*(?:'([<>|=]?(?:b1|[iu][1248]|f[248]))'|(True|False)|\(([\d\s,]*)\))"
)


class NpyReader:
    """Reads arrays for one signature."""

    def __init__(self, rows: RowType) -> None:
        self._fields = rows.fields
        self._columns = [field for field in rows.fields if isinstance(field, Column) and field.type in NUMBERS]

    def read(self, body: bytes, options: Options) -> Table:
        """The rows of one body; raises what is wrong with the array."""
        del options
        return self.rows(read_array(body))

    def rows(self, array: Any) -> Table:
        """The rows of one array; raises what is wrong with it."""
        if not array.ndim:
            raise error("bad-protocol-body", "the array has no dimension; its first is the row")
        count = len(array)
        if count > MAX_ROWS:
            raise too_many_rows()
        only = self._fields[0]
        if len(self._fields) == 1 and isinstance(only, Tensor):
            return table({only.name: tensor_rows(only, array)}, count, {}, None)
        width = len(self._fields)
        if len(self._columns) < width:
            raise error(
                "bad-protocol-body",
                "one array can't hold the inputs of this model, which are not all numbers",
                hint="send JSON, CSV or Arrow",
            )
        if array.ndim == 1 and width == 1:
            array = array[:, None]
        if array.shape[1:] != (width,):
            raise error("bad-protocol-body", f"expected shape [n, {width}], got {list(array.shape)}")
        problems: Problems = {}
        columns = {field.name: number_column(field, array[:, at], problems) for at, field in enumerate(self._columns)}
        return table(columns, count, problems, None)


class NpyWriter:
    """Writes one array: the only output, or the matrix of several outputs of numbers."""

    content_type = "application/x-npy"

    def __init__(self, outputs: tuple[Field, ...]) -> None:
        together = len(outputs) == 1 or all(isinstance(field, Column) for field in outputs)
        if not together or not all(map(fits, outputs)):
            raise unfit("one array")
        self._outputs = outputs

    def write(self, outputs: Columns, count: int, endpoint: str) -> bytes:
        """`count` rows of the outputs as one body."""
        del count, endpoint
        arrays = [numbers_of(outputs[field.name]) for field in self._outputs]
        file = io.BytesIO()
        whole = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)
        np.lib.format.write_array(file, np.ascontiguousarray(whole), allow_pickle=False)
        return file.getvalue()


def fits(field: Field) -> bool:
    """Whether an array of numbers can hold an output."""
    if isinstance(field, Column):
        return field.type in NUMBERS
    return field.dtype != "str" and -1 not in field.row_shape


def unfit(what: str) -> SalverError:
    """The error of a model whose outputs `what` can't hold."""
    hint = "accept JSON, CSV, JSON lines or Arrow"
    return error("not-acceptable", f"{what} can't hold the outputs of this model", hint=hint)


def read_array(body: bytes) -> Any:
    """The array in a body, which still lies there; raises what is wrong with it before anything is allocated."""
    if body[:6] != _MAGIC or len(body) < 10 or body[6] not in _LENGTHS:
        raise _bad("it does not begin as one of version 1, 2 or 3 does")
    length = _LENGTHS[body[6]]
    start = 8 + length.size
    if len(body) < start:
        raise _bad("it ends within its header")
    size = length.unpack_from(body, 8)[0]
    if size > MAX_HEADER or start + size > len(body):
        raise _bad(f"its header is over {MAX_HEADER} bytes, or ends too early")
    header = body[start : start + size].decode("latin-1").strip()
    found = {name: descr or order or shape for name, descr, order, shape in _ENTRY.findall(header)}
    if len(found) < 3 or _ENTRY.sub("", header).replace(" ", "").replace(",", "") != "{}":
        raise _bad("its header must name a dtype of numbers or bools, the order and the shape", "nothing is unpickled")
    try:
        shape = tuple(int(each) for each in found["shape"].split(",") if each.strip())
    except ValueError:
        raise _bad("its shape can't be read") from None
    try:
        dtype = np.dtype(found["descr"])
    except TypeError:
        raise _bad("its dtype can't be read") from None
    elements = math.prod(shape)
    if max(elements, *shape, 0) > BODY.elements:
        raise error("too-large", f"the array has more elements than {BODY.elements}")
    if len(shape) > 32 or elements * dtype.itemsize != len(body) - start - size:
        raise _bad(f"shape {list(shape[:32])} of {dtype} needs {elements * dtype.itemsize} bytes")
    flat = np.frombuffer(body, dtype, elements, start + size) if elements else np.empty(0, dtype)
    if dtype.kind == "b" and elements and flat.view(np.uint8).max() > 1:
        raise _bad("a bool is neither 0 nor 1")
    return flat.reshape(shape, order="F" if found["fortran_order"] == "True" else "C")


def _bad(what: str, hint: str = "") -> SalverError:
    return error("bad-protocol-body", f"the body is no .npy array: {what}", hint=hint)


def numbers_of(array: Any) -> Any:
    """Objects are bools that may be null: as numbers, with NaN for null."""
    return array.astype(np.float64) if array.dtype == object else array


PROTOCOL = Tabular("npy", NpyReader, NpyWriter)
