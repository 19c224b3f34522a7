"""CSV as in RFC 4180: quotes, line breaks within quotes, one record a row; what a cell means is said by the signature.

The first record is a header if one of its cells is the name of a column, unless `header=present` or `header=absent`
of the content type says so; without a header the cells are the columns in order, or the elements of the only tensor.
An empty cell is null where null is allowed, and empty text else. Numbers are decimal and finite, bools are `true` and
`false` (or 1 and 0), times ISO 8601, bytes base64, tensors JSON. Rows are counted from 1, without the header.

Answers have a header at the native endpoint and none at `/invocations`, where records stand for themselves.
"""

from __future__ import annotations

import csv
import io
import math
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal

import msgspec
import numpy as np

from salver import tables
from salver.errors import SalverError, error
from salver.protocols import Options
from salver.protocols.answers import lines, values_of
from salver.protocols.rows import (
    MAX_ROWS,
    RowType,
    describe,
    invalid_row,
    listed,
    optional,
    read_custom,
    too_many_rows,
)
from salver.protocols.tabular import Table, Tabular
from salver.signature import Column, Field, Tensor
from salver.tables import Columns, MatrixColumns, may_be_null

CONTENT_TYPE = "text/csv; charset=utf-8"
CELL = 1 << 20
"""The longest cell, in characters; tensors may be long."""

Cells = Sequence[str | None]
_INTEGER = re.compile(r"\s*[+-]?\d{1,19}(\.0*)?\s*")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


class CsvReader:
    """Reads CSV for one signature."""

    def __init__(self, rows: RowType) -> None:
        self._rows = rows
        self._fields = rows.fields
        self._places = {name: place for place, name in enumerate(rows.names)}
        self._columns = tables.builder(rows.fields, tuple)
        self._plain = all(isinstance(f, Column) and f.type == "float" and not f.enforce for f in rows.fields)
        self._parsers = [_parser(field) for field in rows.fields]
        only = rows.fields[0] if len(rows.fields) == 1 else None
        self._vector = only.row_shape[0] if isinstance(only, Tensor) and len(only.row_shape) == 1 else 0

    def read(self, body: bytes, options: Options) -> Table:
        """The rows of one body; raises what makes the body no CSV, or its header no header."""
        records = _records(body)
        order = self._order(records[0] if records else [], options.get("header", ""))
        width = len(self._fields)
        if order is not None:
            width = len(records.pop(0))
        elif self._vector and records and len(records[0]) > 1:
            records = [[f"[{','.join(record)}]"] for record in records]
        if len(records) > MAX_ROWS:
            raise too_many_rows()
        errors = {
            index: error("invalid-row", f"row {index + 1}: expected {width} cells, got {len(record)}")
            for index, record in enumerate(records)
            if len(record) != width
        }
        ignored = 0
        if order is not None:
            ignored = (width - sum(place is not None for place in order)) * len(records)
        if self._plain and not errors and order in (None, list(range(width))):
            block = _floats(records)
            if block is not None:
                columns = MatrixColumns(self._rows.names, block.reshape(len(records), width))
                return Table(columns, len(records), len(records), {})
        whole = [index for index in range(len(records)) if index not in errors]
        read = self._read([records[index] for index in whole], order, whole, errors)
        return Table(self._columns(read), len(read), len(records), errors, (lambda: ignored) if ignored else None)

    def _order(self, first: Sequence[str], header: str) -> list[int | None] | None:
        """The place of each field in the records, None where it is absent; None without a header."""
        names = [cell.strip() for cell in first]
        if header == "absent" or (not header and not any(name in self._places for name in names)):
            return None
        if len(set(names)) < len(names):
            raise error("bad-protocol-body", "the header names a column twice")
        missing = [f.name for f in self._fields if f.name not in names and not optional(f)]
        if missing:
            raise error(
                "bad-protocol-body",
                f"the header lacks {listed(missing)}",
                hint=f"the columns are {listed(self._rows.names)}; text/csv;header=absent says this is a row",
            )
        return [names.index(name) if name in names else None for name in self._rows.names]

    def _read(
        self,
        records: Sequence[Sequence[str]],
        order: Sequence[int | None] | None,
        numbers: Sequence[int],
        errors: dict[int, SalverError],
    ) -> list[tuple[Any, ...]]:
        """The values of each good record; adds the errors of the others. `numbers` are the rows' own."""
        by_place: list[Cells] = list(zip(*records, strict=True)) if records else []
        empty: Cells = [None] * len(records)
        problems: dict[int, list[str]] = {}
        columns: list[Sequence[Any]] = []
        for place, parse in enumerate(self._parsers):
            at = place if order is None else order[place]
            cells = empty if at is None or not by_place else by_place[at]
            wrong: dict[int, str] = {}
            columns.append(parse(cells, wrong))
            for index, what in wrong.items():
                problems.setdefault(index, []).append(
                    f"row {numbers[index] + 1}, column {self._rows.names[place]}{what}"
                )
        for index, each in problems.items():
            errors[numbers[index]] = invalid_row(f"row {numbers[index] + 1}", each, "")
        rows = list(zip(*columns, strict=True))
        return [row for index, row in enumerate(rows) if index not in problems] if problems else rows


def _records(body: bytes) -> list[list[str]]:
    """The records of a body, empty lines skipped; holds at most one more than is allowed, and its header."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error("bad-protocol-body", f"the body is not UTF-8 at byte {problem.start}") from None
    csv.field_size_limit(CELL)
    records: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for record in reader:
            if record:
                records.append(record)
                if len(records) > MAX_ROWS + 1:
                    raise too_many_rows()
    except csv.Error as problem:
        raise error("bad-protocol-body", f"the body is not CSV: {problem}, at line {reader.line_num}") from None
    return records


def _floats(records: Sequence[Sequence[str]]) -> Any:
    """Cells that are all finite numbers as an array; None if one is not."""
    cells = list(chain.from_iterable(records))
    try:
        block = np.array(list(map(float, cells)))
    except ValueError:
        return None
    return block if np.isfinite(block).all() and "_" not in "".join(cells) else None


def _parser(field: Field) -> Callable[[Cells, dict[int, str]], Sequence[Any]]:
    """What reads the cells of one column, and says what is wrong with which."""
    parse = _cell_parser(field)
    nullable = isinstance(field, Column) and may_be_null(field)
    keeps_empty = isinstance(field, Column) and field.type in ("str", "category", "bytes") and not nullable

    def read(cells: Cells, wrong: dict[int, str]) -> Sequence[Any]:
        values: list[Any] = []
        for index, cell in enumerate(cells):
            value = None
            if cell or (cell is not None and keeps_empty):
                try:
                    value = parse(cell)
                except msgspec.ValidationError as problem:
                    wrong[index] = describe(problem, "", field)
                except (ValueError, KeyError):
                    wrong[index] = f": expected {_kind(field)}, got other text"
                except RecursionError:
                    wrong[index] = ": nested too deeply"
            elif not nullable:
                wrong[index] = f": expected {_kind(field)}, got an empty cell"
            values.append(value)
        return values

    return read


def _cell_parser(field: Field) -> Callable[[str], Any]:
    """What reads one cell that is not empty; raises what is wrong."""
    kind = RowType((field,)).kinds[0]

    def checked(value: Any) -> Any:
        return msgspec.convert(value, kind, dec_hook=read_custom)

    if isinstance(field, Tensor):
        return msgspec.json.Decoder(kind, dec_hook=read_custom).decode
    match field.type:
        case "float":
            return lambda text: checked(_float(text)) if field.enforce else _float(text)
        case "int":
            return lambda text: checked(_int(text))
        case "bool":
            return lambda text: _BOOLEANS[text.strip().lower()]
        case _:
            return checked


def _float(text: str) -> float:
    value = float(text)
    if "_" in text or not math.isfinite(value):
        raise ValueError
    return value


def _int(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError
    return int(text.partition(".")[0])


def _kind(field: Field) -> str:
    return field.type if isinstance(field, Column) else "an array in JSON"


class CsvWriter:
    """Writes CSV for one signature."""

    content_type = CONTENT_TYPE

    def __init__(self, outputs: tuple[Field, ...]) -> None:
        self._outputs = outputs
        self._texts = [_texts(field) for field in outputs]

    def write(self, outputs: Columns, count: int, endpoint: str) -> bytes:
        """`count` rows of the outputs as one body."""
        del count
        columns = [texts(outputs[field.name]) for field, texts in zip(self._outputs, self._texts, strict=True)]
        header = [field.name for field in self._outputs] if endpoint == "native" else None
        text = _write(header, columns, csv.QUOTE_MINIMAL)
        if "\r" in text:  # which the writer leaves bare, and readers take for the end of a record
            text = _write(header, columns, csv.QUOTE_ALL)
        return text.encode()


def _write(header: Sequence[str] | None, columns: Sequence[Sequence[Any]], quoting: Literal[0, 1]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=quoting)
    if header is not None:
        writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def _texts(field: Field) -> Callable[[Any], Sequence[Any]]:
    """What writes one column: null is empty, NaN and infinities are their words, tensors are JSON."""
    values = values_of(field)
    if isinstance(field, Tensor):
        return lambda array: [line.decode() for line in lines(values(array))]
    if field.type == "bool":
        return lambda array: [None if value is None else str(value).lower() for value in values(array)]
    if field.type == "float":
        null = "" if may_be_null(field) else "NaN"
        return lambda array: [null if value != value else value for value in values(array)]
    if field.type == "bytes":
        return lambda array: [None if value is None else b64encode(value).decode() for value in values(array)]
    return values


PROTOCOL = Tabular("csv", CsvReader, CsvWriter)
