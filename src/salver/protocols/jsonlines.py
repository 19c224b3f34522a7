"""JSON lines: one row object a line, answered one line a row; a bad line is answered in its place.

Empty lines are skipped. A line that is no JSON is a bad line like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from salver import tables
from salver.errors import SalverError
from salver.protocols import Options
from salver.protocols.extra import ExtraFields
from salver.protocols.refusals import settled
from salver.protocols.rows import MAX_ROWS, UNREADABLE, RowType, decoder, too_many_rows
from salver.protocols.tabular import Table, Tabular


class LinesReader:
    """Reads JSON lines for one signature."""

    def __init__(self, rows: RowType) -> None:
        self._rows = rows
        self._columns = tables.builder(rows.fields)
        self._strict = decoder(rows.strict).decode_lines
        self._lenient = decoder(rows.struct).decode_lines
        self._extra = ExtraFields(rows)

    def read(self, body: bytes, options: Options) -> Table:
        """The rows of one body; raises `too-many-rows`."""
        del options
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
        read, errors = self._one_by_one(lines)
        return Table(self._columns(read), len(read), len(lines), errors, partial(self._extra.count, lines))

    def _one_by_one(self, lines: Sequence[bytes]) -> tuple[list[Any], dict[int, SalverError]]:
        read: list[Any] = []
        errors: dict[int, SalverError] = {}
        for index, line in enumerate(lines):
            try:
                read.append(self._rows.read(line, f"line {index + 1}: $"))
            except SalverError as problem:
                errors[index] = settled(problem)
        return read, errors


PROTOCOL = Tabular("jsonlines", LinesReader, None)
