"""The tensors of V2 over gRPC, written: the rows of an output as one tensor, raw or typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from salver.errors import error
from salver.protocols import protobuf
from salver.protocols.answers import values_of
from salver.protocols.v2.datatypes import WIRE
from salver.protocols.v2.grpc_tensors import CONTENTS
from salver.protocols.v2.metadata import datatype
from salver.protocols.v2.parameters import NULLS
from salver.signature import Field, Tensor


class Written(NamedTuple):
    """An output's rows: the raw bytes of each (for BYTES a list of elements), its shape, and which are null."""

    rows: Sequence[Any] = ()
    shapes: Sequence[tuple[int, ...]] = ()
    nulls: Sequence[bool] = ()


class TensorWriter:
    """Writes one output of a signature; `raw_only` says that its datatype has no typed contents."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._datatype = datatype(field)
        self._dtype = WIRE.get(self._datatype)
        self._number = CONTENTS.get(self._datatype, 0)
        self.raw_only = not self._number
        self._values = values_of(field)
        self._head = protobuf.string(1, field.name) + protobuf.string(2, self._datatype)
        self._heads: dict[tuple[int, ...], bytes] = {}

    def rows(self, array: Any) -> Written:
        """Every row of an output, for `tensor` to choose from."""
        field = self._field
        if isinstance(field, Tensor):
            each = list(array)
            return Written([self._row(row) for row in each], [np.shape(row) for row in each])
        if self._dtype is None:
            values = self._values(array)
            elements = [value.encode() if isinstance(value, str) else value for value in values]
            return Written([[element or b""] for element in elements], (), _missing(values))
        missing: Sequence[bool] = ()
        if array.dtype == object:
            missing = _missing(array.tolist())
            array = np.array([bool(value) for value in array.tolist()])
        elif self._datatype == "INT64" and array.dtype.kind == "f":
            missing = np.isnan(array).tolist()
            array = np.nan_to_num(array)
        data = array.astype(self._dtype).tobytes()
        width = self._dtype.itemsize
        return Written([data[at : at + width] for at in range(0, len(data), width)], (), missing)

    def tensor(self, written: Written, start: int, stop: int, *, raw: bool) -> tuple[bytes, bytes]:
        """The rows from `start` up to `stop`: the message in outputs, and the raw contents or b''.

        Raises `bad-output` where the shapes of a tensor's rows differ.
        """
        shape = (stop - start, *self._row_shape(written, start, stop))
        head = self._heads.get(shape)
        if head is None:
            if len(self._heads) > 64:
                self._heads.clear()
            head = self._heads[shape] = self._head + protobuf.packed(3, shape)
        rows = written.rows[start:stop]
        nulls = [row for row, null in enumerate(written.nulls[start:stop]) if null]
        if nulls:
            said = protobuf.block(2, protobuf.string(3, ",".join(map(str, nulls))))
            head += protobuf.block(4, protobuf.string(1, NULLS) + said)
        if not raw:
            contents = protobuf.block(5, self._contents(rows))
            return protobuf.block(5, head + contents), b""
        data = rows[0] if len(rows) == 1 and self._dtype is not None else self._joined(rows)
        return protobuf.block(5, head), protobuf.block(6, data)

    def _row_shape(self, written: Written, start: int, stop: int) -> tuple[int, ...]:
        if not isinstance(self._field, Tensor):
            return ()
        shapes = set(written.shapes[start:stop]) or {tuple(max(size, 0) for size in self._field.row_shape)}
        if len(shapes) > 1:
            raise error("bad-output", f"the rows of {self._field.name!r} differ in shape; send one row per request")
        return shapes.pop()

    def _row(self, row: Any) -> Any:
        if self._dtype is None:
            return [text.encode() for text in np.ravel(row).tolist()]
        return np.ascontiguousarray(row, self._dtype).tobytes()

    def _joined(self, rows: Sequence[Any]) -> bytes:
        if self._dtype is not None:
            return b"".join(rows)
        return b"".join([len(text).to_bytes(4, "little") + text for row in rows for text in row])

    def _contents(self, rows: Sequence[Any]) -> bytes:
        if self._dtype is None:
            return b"".join([protobuf.block(8, text) for row in rows for text in row])
        data = b"".join(rows)
        if self._datatype in ("FP32", "FP64", "BOOL"):
            return protobuf.block(self._number, data) if data else b""
        return protobuf.packed(self._number, np.frombuffer(data, self._dtype).tolist())


def _missing(values: Sequence[Any]) -> Sequence[bool]:
    return [value is None for value in values] if None in values else ()
