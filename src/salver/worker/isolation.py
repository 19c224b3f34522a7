"""One bad row fails one row: where the model raises, a batch is halved until the bad rows stand alone.

For k bad rows in a chunk of n this costs at most 2k·ceil(log2 n) + 1 calls of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from salver import tables
from salver.errors import SalverError, error
from salver.frameworks import Columns, Predict
from salver.protocols.refusals import settled


class Outcome(NamedTuple):
    """The outputs of a batch, and the error of each row (by index) that has none."""

    outputs: Columns
    failures: dict[int, SalverError]


class Isolation:
    """Calls a model on a batch so that one row's failure is one row's failure.

    `max_rows` is the most rows given to one call. `bisect` is off for models with side effects: a raise then fails
    every row of its chunk. `check` returns the rows (within a chunk's outputs) that must not be answered, with why.
    """

    def __init__(
        self,
        predict: Predict,
        max_rows: int,
        *,
        bisect: bool,
        check: Callable[[Columns], dict[int, SalverError]],
        on_raise: Callable[[Exception], None],
    ) -> None:
        self._predict = predict
        self._max_rows = max_rows
        self._bisect = bisect
        self._check = check
        self._on_raise = on_raise

    def run(self, columns: Columns, count: int) -> Outcome:
        """Predict `count` rows; never raises for what the model does."""
        failures: dict[int, SalverError] = {}
        if count <= self._max_rows:
            pieces = self._chunk(columns, 0, count, failures)
        else:
            pieces = []
            for start in range(0, count, self._max_rows):
                stop = min(start + self._max_rows, count)
                pieces += self._chunk(tables.rows_between(columns, start, stop), start, stop, failures)
        return Outcome(_join(pieces, count), failures)

    def _chunk(
        self, columns: Columns, start: int, stop: int, failures: dict[int, SalverError]
    ) -> list[tuple[int, int, Columns]]:
        try:
            outputs = self._predict(columns)
        except Exception as raised:  # the model's own code may raise anything
            return self._halve(columns, (start, stop), raised, failures)
        for row, problem in self._check(outputs).items():
            failures[start + row] = problem
        return [(start, stop, outputs)]

    def _halve(
        self, columns: Columns, span: tuple[int, int], raised: Exception, failures: dict[int, SalverError]
    ) -> list[tuple[int, int, Columns]]:
        start, stop = span
        if stop - start == 1 or not self._bisect:
            self._on_raise(raised)
            problem = settled(raised) if isinstance(raised, SalverError) else model_error(raised)
            failures.update(dict.fromkeys(range(start, stop), problem))
            return []
        middle = (stop - start) // 2
        left = self._chunk(tables.rows_between(columns, 0, middle), start, start + middle, failures)
        return left + self._chunk(tables.rows_between(columns, middle, stop - start), start + middle, stop, failures)


def model_error(raised: Exception) -> SalverError:
    """What a caller may know of an exception in the model: its type, never its text, which may hold data."""
    return error(
        "model-error",
        f"the model raised {type(raised).__name__} for this row",
        hint="the server's log has the traceback",
    )


def _join(pieces: list[tuple[int, int, Columns]], count: int) -> Columns:
    """Put the pieces' outputs at their rows; rows without one hold zeros that nobody reads."""
    if len(pieces) == 1 and pieces[0][1] - pieces[0][0] == count:
        return pieces[0][2]
    joined: dict[str, NDArray[Any]] = {}
    for start, stop, outputs in pieces:
        for name, values in outputs.items():
            whole = joined.get(name)
            if whole is None:
                whole = joined[name] = np.zeros((count, *values.shape[1:]), values.dtype)
            elif whole.dtype != values.dtype:
                whole = joined[name] = whole.astype(np.promote_types(whole.dtype, values.dtype))
            whole[start:stop] = values
    return joined
