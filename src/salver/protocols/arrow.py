"""Arrow IPC streams: one column per input, by name; answered by a stream with one column per output.

Needs pyarrow among the release's own packages and loads it with the first such request: a worker never imports a
package that its release was not proven with. Buffers must be plain, since nothing bounds what compressed ones become;
the body as a whole may be compressed. Rows are counted from 1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from salver import tables
from salver.errors import error
from salver.limits import BODY
from salver.protocols import Options
from salver.protocols.arrays import Problems, check_column, number_column, table, tensor_rows
from salver.protocols.rows import MAX_ROWS, RowType, listed, optional, too_many_rows
from salver.protocols.tabular import Table, Tabular
from salver.signature import Column, Field, Tensor
from salver.tables import Columns, may_be_null

CONTENT_TYPE = "application/vnd.apache.arrow.stream"
MAX_BATCHES = 1024

_DAMAGE = (OSError, ValueError, TypeError, LookupError, ArithmeticError, NotImplementedError, MemoryError, struct.error)
"""What reading a damaged stream raises besides pyarrow's own errors."""
_DICTIONARY, _RECORD_BATCH = 2, 3
_HEADER_TYPE, _HEADER = 1, 2
_DATA, _COMPRESSION = 1, 3


class ArrowReader:
    """Reads Arrow streams for one signature."""

    def __init__(self, rows: RowType) -> None:
        self._fields = rows.fields
        self._names = frozenset(rows.names)

    def read(self, body: bytes, options: Options) -> Table:
        """The rows of one body; raises what is wrong with the stream or one of its columns."""
        del options
        arrow = _pyarrow()
        try:
            return self._table(arrow, body)
        except (arrow.ArrowException, *_DAMAGE):
            raise error("bad-protocol-body", "the body is no Arrow IPC stream that can be read") from None

    def _table(self, arrow: Any, body: bytes) -> Table:
        schema, batches = _batches(arrow, body)
        missing = [f.name for f in self._fields if f.name not in schema.names and not optional(f)]
        if missing:
            raise error("invalid-row", f"the stream lacks {listed(missing)}", hint=f"it has {listed(schema.names)}")
        if len(set(schema.names)) < len(schema.names):
            raise error("bad-protocol-body", "two columns have the same name")
        count = sum(batch.num_rows for batch in batches)
        problems: Problems = {}
        columns = {field.name: self._column(arrow, field, schema, batches, problems) for field in self._fields}
        ignored = (len(schema.names) - len(self._names.intersection(schema.names))) * count
        return table(columns, count, problems, (lambda: ignored) if ignored else None)

    def _column(self, arrow: Any, field: Field, schema: Any, batches: Sequence[Any], problems: Problems) -> Any:
        if field.name not in schema.names:
            column = arrow.nulls(sum(batch.num_rows for batch in batches))
            return _values(arrow, field, column, problems)
        kind = schema.field(field.name).type
        _check_type(arrow, field, kind)
        chunks = [batch.column(field.name) for batch in batches]
        for chunk in chunks:
            chunk.validate(full=True)  # a hostile stream may point outside its buffers
        column = arrow.concat_arrays(chunks) if chunks else arrow.array([], kind)
        return _values(arrow, field, column, problems)


class ArrowWriter:
    """Writes Arrow streams for one signature."""

    content_type = CONTENT_TYPE

    def __init__(self, outputs: tuple[Field, ...]) -> None:
        _pyarrow()
        self._outputs = outputs

    def write(self, outputs: Columns, count: int, endpoint: str) -> bytes:
        """`count` rows of the outputs as one body."""
        del count, endpoint
        arrow = _pyarrow()
        arrays = [_array(arrow, field, outputs[field.name]) for field in self._outputs]
        batch = arrow.record_batch(arrays, names=[field.name for field in self._outputs])
        sink = arrow.BufferOutputStream()
        with arrow.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        data: bytes = sink.getvalue().to_pybytes()
        return data


@cache
def _pyarrow() -> Any:
    """The release's own pyarrow; raises `not-implemented` where it has none."""
    if find_spec("pyarrow") is None:
        raise error(
            "not-implemented",
            "this release can't read or write Arrow: its environment has no pyarrow",
            hint="add pyarrow to the requirements of the release, or send JSON, CSV or .npy",
        )
    import pyarrow
    import pyarrow.ipc

    return pyarrow


def _batches(arrow: Any, body: bytes) -> tuple[Any, list[Any]]:
    """The schema and batches of a stream, which still lie in the body."""
    _check_plain(arrow, body)
    reader = arrow.ipc.open_stream(arrow.py_buffer(body))
    batches: list[Any] = []
    count = 0
    for batch in reader:
        count += batch.num_rows
        if count > MAX_ROWS:
            raise too_many_rows()
        batches.append(batch)
    return reader.schema, batches


def _check_plain(arrow: Any, body: bytes) -> None:
    """Refuse compressed buffers and very many batches."""
    for number, message in enumerate(arrow.ipc.MessageReader.open_stream(arrow.py_buffer(body))):
        if number > MAX_BATCHES:
            raise error("too-large", f"the stream has more than {MAX_BATCHES} batches", hint="send larger ones")
        if _is_compressed(message.metadata.to_pybytes()):
            raise error(
                "bad-protocol-body",
                "the buffers of the stream are compressed",
                hint="send them plain; content-encoding: zstd compresses the body as a whole",
            )


def _is_compressed(metadata: bytes) -> bool:
    """Whether the metadata of a message, a flatbuffer, names a compression; dictionaries hold a batch of their own."""
    (root,) = struct.unpack_from("<I", metadata, 0)
    kind = _field(metadata, root, _HEADER_TYPE)
    header = _field(metadata, root, _HEADER)
    if kind is None or header is None:
        return False
    table_at = _follow(metadata, header)
    if metadata[kind] == _DICTIONARY:
        data = _field(metadata, table_at, _DATA)
        table_at = -1 if data is None else _follow(metadata, data)
    elif metadata[kind] != _RECORD_BATCH:
        return False
    return table_at >= 0 and _field(metadata, table_at, _COMPRESSION) is not None


def _follow(metadata: bytes, at: int) -> int:
    """Where the table lies that is referred to at this place."""
    return at + int(struct.unpack_from("<I", metadata, at)[0])


def _field(metadata: bytes, table_at: int, number: int) -> int | None:
    """Where a field of a flatbuffer's table lies; None where it is absent. Raises struct.error outside the bytes."""
    vtable = table_at - struct.unpack_from("<i", metadata, table_at)[0]
    if vtable < 0:
        raise struct.error
    size = struct.unpack_from("<H", metadata, vtable)[0]
    if size < 6 + 2 * number:
        return None
    offset = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0]
    return table_at + offset if offset else None


def _check_type(arrow: Any, field: Field, kind: Any) -> None:
    """Refuse a type of column that can't hold the field's values, before any of them is looked at."""
    types = arrow.types
    inner = kind
    if isinstance(field, Tensor):
        while types.is_list(inner) or types.is_large_list(inner) or types.is_fixed_size_list(inner):
            inner = inner.value_type
        wanted = "text" if field.dtype == "str" else "bool" if field.dtype == "bool" else "number"
    else:
        wanted = {"bool": "bool", "float": "number", "int": "number", "datetime": "time", "bytes": "bytes"}.get(
            field.type, "text"
        )
        if types.is_dictionary(inner) and wanted in ("text", "bytes"):
            inner = inner.value_type
    fits = {
        "bool": types.is_boolean(inner),
        "number": types.is_integer(inner) or types.is_floating(inner),
        "time": types.is_timestamp(inner) or types.is_date(inner),
        "text": _is_text(types, inner),
        "bytes": types.is_binary(inner) or types.is_large_binary(inner) or _is_text(types, inner),
    }[wanted]
    if not fits and not (types.is_null(inner) and inner is kind and isinstance(field, Column)):
        raise error("invalid-row", f"column {field.name}: expected {wanted}, got {str(kind)[:60]}")


def _is_text(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _values(arrow: Any, field: Field, column: Any, problems: Problems) -> Any:
    """A column as the array of a field; adds what it can't hold to `problems`."""
    if isinstance(field, Tensor):
        return _tensor(arrow, field, column)
    if field.type in ("float", "int"):
        numbers = column.cast(arrow.float64()) if arrow.types.is_null(column.type) else column
        return number_column(field, numbers.to_numpy(zero_copy_only=False), problems)
    nulls = column.is_null().to_numpy(zero_copy_only=False)
    try:
        if field.type == "bool":
            array = column.cast(arrow.bool_()).to_numpy(zero_copy_only=False).astype(object)
            array = array if may_be_null(field) else np.equal(array, True).astype(np.bool_)
        elif field.type == "datetime":
            zone = getattr(column.type, "tz", None)
            array = column.cast(arrow.timestamp("us", tz=zone), safe=False).to_numpy(zero_copy_only=False)
        else:
            kind = arrow.binary() if field.type == "bytes" else arrow.string()
            array = column.cast(kind).to_numpy(zero_copy_only=False)
    except arrow.ArrowException:
        raise error("invalid-row", f"column {field.name}: a value is out of range") from None
    check_column(field, array, nulls, problems)
    return array


def _tensor(arrow: Any, field: Tensor, column: Any) -> Any:
    if not len(column):
        return tables.column(field, ())
    dense = _dense(arrow, field, column)
    if dense is not None:
        return tensor_rows(field, dense)
    rows = [_dense(arrow, field, column.slice(row, 1)) for row in range(len(column))]
    if any(row is None for row in rows):
        raise error("invalid-row", f"column {field.name}: expected lists of equal length within a row")
    return tables.stack([tensor_rows(field, row)[0] for row in rows], field)


def _dense(arrow: Any, field: Tensor, column: Any) -> Any:
    """Nested lists as one array; None where lists of one depth differ in length."""
    shape = [len(column)]
    while not (arrow.types.is_primitive(column.type) or arrow.types.is_string(column.type)):
        if column.null_count:
            break
        if arrow.types.is_large_string(column.type):
            column = column.cast(arrow.string())
            continue
        sizes = column.value_lengths().to_numpy(zero_copy_only=False) if len(column) else np.zeros(1, np.int64)
        if (sizes != sizes[0]).any():
            return None
        shape.append(int(sizes[0]))
        column = column.flatten()
    if column.null_count:
        raise error("invalid-row", f"column {field.name}: expected {field.dtype}, got null")
    if len(column) > BODY.elements:
        raise error("too-large", f"column {field.name} has more elements than {BODY.elements}")
    return column.to_numpy(zero_copy_only=False).reshape(shape)


def _array(arrow: Any, field: Field, values: Any) -> Any:
    """The column of one output; NaN is null where the output may hold null, and itself where it may be NaN."""
    if isinstance(field, Tensor):
        return _lists(arrow, field, values)
    if field.type in ("float", "int"):
        nulls = np.isnan(values) if may_be_null(field) else None
        kind = arrow.int64() if field.type == "int" else arrow.float64()
        plain = values if nulls is None or field.type == "float" else np.where(nulls, 0, values).astype(np.int64)
        return arrow.array(plain, kind, mask=nulls, from_pandas=False)
    if field.type == "datetime":
        return arrow.array(values.astype("datetime64[us]"), arrow.timestamp("us", tz="UTC"))
    kinds = {"bool": arrow.bool_(), "bytes": arrow.binary()}
    return arrow.array(values.tolist(), kinds.get(field.type, arrow.string()))


def _lists(arrow: Any, field: Tensor, values: Any) -> Any:
    kind = arrow.string() if field.dtype == "str" else arrow.from_numpy_dtype(np.dtype(field.dtype))
    if field.dtype == "str" or values.dtype == object or -1 in field.row_shape:
        for size in reversed(field.row_shape):
            kind = arrow.list_(kind, size)
        return arrow.array([np.asarray(row).tolist() for row in values], kind)
    array = arrow.array(np.ascontiguousarray(values).reshape(-1), kind, from_pandas=False)
    for size in reversed(field.row_shape):
        array = arrow.FixedSizeListArray.from_arrays(array, size)
    return array


PROTOCOL = Tabular("arrow", ArrowReader, ArrowWriter)
