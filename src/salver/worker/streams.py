"""Answers that come in pieces: one model call each, advanced in turns between the batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from salver.frames import AHEAD, Answers, Batch, Form, Piece, Reply
from salver.frameworks.pieces import STREAM
from salver.protocols import Encoded, Options
from salver.protocols.media import EVENT_STREAM, EVENTS
from salver.release import Manifest

_STREAMED = (EVENTS, "jsonlines", STREAM)

P = TypeVar("P")


def is_streamed(form: Form, manifest: Manifest) -> bool:
    """Whether a request of this form is answered in pieces by such a release; events are, by any.

    Lines of JSON are not where each is the record of a row: in a batch job, which splits its files by line.
    """
    answer = form.options.get("answer") if form.options else None
    if answer == "jsonlines" and form.protocol == "invocations":
        return False
    return answer == EVENTS or (answer in _STREAMED and STREAM in manifest.capabilities)


def of_pieces(options: Options) -> Mapping[str, str]:
    """The options with which a codec writes a piece: as events hold JSON, those of JSON."""
    return {name: value for name, value in options.items() if name != "answer" or value not in (EVENTS, STREAM)}


def written(piece: Encoded, options: Options) -> Encoded:
    """A piece as it goes out: as events, each is one of them."""
    if options.get("answer") != EVENTS or piece.status != 200:
        return piece
    return Encoded(200, b"data: %b\n\n" % piece.body, EVENT_STREAM, piece.row_errors, piece.code)


class Stream(Generic[P]):
    """One streamed answer on its way to `peer`."""

    __slots__ = ("_credit", "_errors", "_generation", "_pieces", "_rows", "id", "peer", "traces")

    def __init__(self, peer: P, batch: Batch, pieces: Iterator[Encoded], rows: int) -> None:
        self.peer = peer
        self.id = batch.ids[0]
        self.traces = batch.traces
        self._generation = batch.generation
        self._pieces = pieces
        self._credit = AHEAD
        self._rows = rows
        self._errors = 0

    @property
    def may_go_on(self) -> bool:
        """Whether its reader takes one more piece."""
        return self._credit > 0

    def more(self) -> None:
        """Its reader has taken one."""
        self._credit += 1

    def step(self) -> Piece | Answers:
        """Make one piece; an `Answers` is its end."""
        piece = next(self._pieces, None)
        if piece is None:
            return self._end(Reply(self.id, 200, b"", self._rows, self._errors))
        if piece.status != 200:
            return self._end(
                Reply(self.id, piece.status, piece.body, self._rows, piece.row_errors, piece.code, piece.content_type)
            )
        self._errors = max(self._errors, piece.row_errors)
        self._credit -= 1
        return Piece(self._generation, self.id, piece.body, piece.content_type)

    def stopped(self) -> Answers:
        """The end of a stream that nobody waits for; with it goes the model's generator."""
        self._pieces = iter(())
        return self._end(Reply(self.id, 504, b"", 0, 0, "deadline-exceeded"))

    def _end(self, reply: Reply) -> Answers:
        return Answers(self._generation, 0, replies=[reply])
