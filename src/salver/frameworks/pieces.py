"""Models that yield: the pieces of an answer one by one, and the whole answer that they make together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from salver import tables
from salver.errors import SalverError, error
from salver.frameworks import Columns
from salver.signature import Signature

STREAM = "stream"
"""The capability of a release whose model yields."""


class Abandoned(BaseException):
    """Nobody waits for the answer that was being made: no failure of the model, and not caught as one."""


class Streaming:
    """A model that yields, as a `Predict` of whole answers; its `stream` gives the pieces.

    Each piece has one entry per row, like an answer of `predict`. A whole answer has the pieces of a text put together,
    and of everything else the last piece. `wanted` is asked after each piece of a whole answer.
    """

    def __init__(self, call: Callable[[Columns], Generator[Any, None, None]], signature: Signature) -> None:
        self._call = call
        self._first, self._outputs = signature.inputs[0].name, signature.outputs
        self.wanted: Callable[[], bool] = lambda: True

    def __call__(self, columns: Columns) -> Columns:
        """The outputs of all rows at once; raises `Abandoned`, its generator closed, once they are not wanted."""
        made = []
        with closing(self._call(columns)) as pieces:
            for piece in pieces:
                made.append(piece)
                if not self.wanted():
                    raise Abandoned
        return self._fitted(gathered(made), columns)

    def stream(self, columns: Columns) -> Iterator[Columns]:
        """The outputs of all rows, piece by piece; raises `bad-output` where there is none."""
        piece = None
        for piece in self._call(columns):
            yield self._fitted(piece, columns)
        if piece is None:
            raise _none_yielded()

    def _fitted(self, raw: Any, columns: Columns) -> Columns:
        return tables.outputs_from(raw, self._outputs, len(columns[self._first]))


def gathered(pieces: Sequence[Any]) -> Any:
    """The pieces that a model yielded, as the answer it might have returned; raises `bad-output` where it is none."""
    if not pieces:
        raise _none_yielded()
    last = pieces[-1]
    if isinstance(last, Mapping):
        return {name: _joined([piece[name] for piece in pieces]) for name in last}
    if hasattr(last, "columns") and hasattr(last, "to_numpy"):  # a DataFrame, without importing pandas
        return {str(name): _joined([piece[name] for piece in pieces]) for name in last.columns}
    if isinstance(last, tuple):
        return tuple(_joined(each) for each in zip(*pieces, strict=True))
    return _joined(pieces)


def _none_yielded() -> SalverError:
    return error("bad-output", "predict yielded nothing", hint="yield one entry per row at least once")


def _joined(values: Sequence[Any]) -> Any:
    """One output's values of each piece: texts put together, row by row; else the last."""
    rows = [list(value) for value in values]
    if not all(isinstance(text, str) for row in rows for text in row):
        return values[-1]
    if len({len(row) for row in rows}) > 1:
        raise error("row-count", "predict yielded pieces of different numbers of rows", hint="yield one entry per row")
    return ["".join(texts) for texts in zip(*rows, strict=True)]
