"""JSON lines: one row object a line, answered one line a row; a bad line is answered in its place.

At `/invocations` a line may also be a list of the values in order, as rows are in its JSON; of a signature that is one
tensor, the tensor. Empty lines are skipped. A line that is no JSON is a bad line like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from msgspec import Raw

from salver import tables
from salver.errors import SalverError
from salver.protocols import Options
from salver.protocols.bounds import elements
from salver.protocols.extra import ExtraFields
from salver.protocols.refusals import settled
from salver.protocols.rows import MAX_ROWS, UNREADABLE, RowType, decoder, too_many_rows
from salver.protocols.tabular import Table, Tabular
from salver.signature import Tensor


class LinesReader:
    """Reads JSON lines for one signature."""

    def __init__(self, rows: RowType) -> None:
        self._rows = rows
        self._columns = tables.builder(rows.fields)
        self._strict = decoder(rows.strict).decode_lines
        self._lenient = decoder(rows.struct).decode_lines
        self._extra = ExtraFields(rows)
        self._is_tensor = len(rows.fields) == 1 and isinstance(rows.fields[0], Tensor)
        in_order: Any = rows.kinds[0] if self._is_tensor else tuple.__class_getitem__(tuple(rows.kinds))
        self._lists = decoder(in_order).decode_lines
        self._of_lists = tables.builder(rows.fields, tuple)

    def read(self, body: bytes, options: Options) -> Table:
        """The rows of one body; raises `too-many-rows`."""
        if body.count(b"\n") > 2 * MAX_ROWS:
            raise too_many_rows()
        lines = [line for each in body.split(b"\n") if (line := each.strip())]
        if len(lines) > MAX_ROWS:
            raise too_many_rows()
        if all(line.startswith(b"{") for line in lines):
            text = b"\n".join(lines)
            for decode in (self._strict, self._lenient):
                try:
                    rows = decode(text)
                except UNREADABLE:
                    continue
                if len(rows) == len(lines):
                    extra = partial(self._extra.count, lines) if decode is self._lenient else None
                    return Table(self._columns(rows), len(rows), len(rows), {}, extra)
        listed = options.get("endpoint") == "invocations"
        if listed and all(line.startswith(b"[") for line in lines):
            try:
                rows = self._lists(b"\n".join(lines))
            except UNREADABLE:
                rows = []
            if len(rows) == len(lines):
                values = [(row,) for row in rows] if self._is_tensor else rows
                return Table(self._of_lists(values), len(rows), len(rows), {})
        read, errors = self._one_by_one(lines, listed=listed)
        objects = [line for line in lines if not line.startswith(b"[")]
        return Table(self._columns(read), len(read), len(lines), errors, partial(self._extra.count, objects))

    def _one_by_one(self, lines: Sequence[bytes], *, listed: bool) -> tuple[list[Any], dict[int, SalverError]]:
        read: list[Any] = []
        errors: dict[int, SalverError] = {}
        for index, line in enumerate(lines):
            try:
                read.append(self._line(line, f"line {index + 1}: $", listed=listed))
            except SalverError as problem:
                errors[index] = settled(problem)
        return read, errors

    def _line(self, line: bytes, where: str, *, listed: bool) -> Any:
        """The row of one line."""
        if not listed or not line.startswith(b"["):
            return self._rows.read(line, where)
        if self._is_tensor:
            return self._rows.read_positions([Raw(line)], where, [where])
        return self._rows.read_positions(elements(line, where), where)


PROTOCOL = Tabular("jsonlines", LinesReader, None)
