"""LIBSVM text, as SageMaker's XGBoost reads it: `label index:value index:value` a line, indexes from 0.

The label may be there or not, and is ignored. A line is a row of a signature whose inputs are all numbers, in its
order, or of its only tensor if that has one fixed dimension. What a line lacks is null where null is allowed, as
missing is to XGBoost, and 0 else. Lines are counted from 1; a line that can't be read refuses the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from salver.errors import SalverError, error
from salver.limits import BODY
from salver.protocols import Options
from salver.protocols.arrays import Problems, number_column, number_tensor, table
from salver.protocols.npy import NUMBERS
from salver.protocols.rows import MAX_ROWS, RowType, too_many_rows
from salver.protocols.tabular import Table, Tabular
from salver.signature import Column, Field, Tensor
from salver.tables import may_be_null


class LibsvmReader:
    """Reads LIBSVM text for one signature."""

    def __init__(self, rows: RowType) -> None:
        self._columns = [field for field in rows.fields if isinstance(field, Column) and field.type in NUMBERS]
        self._tensor = _vector(rows.fields)
        fits = self._tensor is not None or len(self._columns) == len(rows.fields)
        width = self._tensor.row_shape[0] if self._tensor is not None else len(self._columns)
        self._width = width if fits else 0
        self._missing = [np.nan if may_be_null(field) else 0.0 for field in self._columns] or [0.0] * self._width

    def read(self, body: bytes, options: Options) -> Table:
        """The rows of one body; raises what is wrong with a line of it."""
        del options
        if not self._width:
            what = "LIBSVM can't hold the inputs of this model, which are not one row of numbers"
            raise error("bad-protocol-body", what, hint="send JSON, CSV or Arrow")
        if body.count(b"\n") > 2 * MAX_ROWS:
            raise too_many_rows()
        lines = [line for each in body.split(b"\n") if (line := each.partition(b"#")[0].strip())]
        if len(lines) > MAX_ROWS:
            raise too_many_rows()
        if len(lines) * self._width > BODY.elements:
            raise error("too-large", f"the rows have more values than {BODY.elements}", hint="send fewer rows")
        block = np.tile(np.array(self._missing), (len(lines), 1))
        for row, line in enumerate(lines):
            places, values = self._line(line, row + 1)
            block[row, places] = values
        if self._tensor is not None:
            return table({self._tensor.name: number_tensor(self._tensor, block)}, len(lines), {}, None)
        problems: Problems = {}
        columns = {field.name: number_column(field, block[:, at], problems) for at, field in enumerate(self._columns)}
        return table(columns, len(lines), problems, None)

    def _line(self, line: bytes, number: int) -> tuple[list[int], Any]:
        """The places that a line names, and their values."""
        tokens = line.split()
        if line.count(b":") > self._width or b"_" in line:
            raise _bad(number, f"it is not at most {self._width} pairs of index and value")
        try:
            if b":" not in tokens[0]:
                float(tokens.pop(0))  # the label
            pairs: Sequence[Sequence[bytes]] = [token.split(b":") for token in tokens]
            places = [int(place) for place, _ in pairs]
            values = np.array([float(value) for _, value in pairs])
        except ValueError:
            raise _bad(number, "it is no label and pairs of index and value", "0 3:5.1 7:0.2") from None
        if not np.isfinite(values).all():
            raise _bad(number, "a value is not finite")
        if places and (min(places) < 0 or max(places) >= self._width or len(set(places)) < len(places)):
            raise _bad(number, f"each index has to be there once, from 0 to {self._width - 1}")
        return places, values


def _vector(fields: tuple[Field, ...]) -> Tensor | None:
    """The only input, if it is a tensor of numbers with one dimension that is fixed."""
    only = fields[0]
    fits = len(fields) == 1 and isinstance(only, Tensor) and only.dtype not in ("str", "bool")
    return only if fits and isinstance(only, Tensor) and len(only.row_shape) == 1 and only.row_shape[0] > 0 else None


def _bad(number: int, what: str, hint: str = "") -> SalverError:
    return error("bad-protocol-body", f"line {number} is no LIBSVM: {what}", hint=hint and f"a line looks like {hint}")


PROTOCOL = Tabular("libsvm", LibsvmReader, None)
