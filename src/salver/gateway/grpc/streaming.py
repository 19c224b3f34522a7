"""Calls of many messages: predictions in order, what a health service says over time, and reflection."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from salver.access.principal import Principal
from salver.dispatch.call import Call
from salver.errors import SalverError, error
from salver.frames import Answers, Form, Piece, Reply
from salver.gateway.grpc.calls import Asked, submit, words_of
from salver.gateway.grpc.heads import Head
from salver.gateway.grpc.messages import Messages
from salver.gateway.grpc.requests import LAST, NOT_LAST, ends_last, ends_wrong
from salver.gateway.grpc.service import Service
from salver.gateway.grpc.trailers import MOST_WORDS, OK, id_of, refused
from salver.gateway.http2 import Connection
from salver.gateway.http2_sender import Stream
from salver.gateway.seen import Seen
from salver.gateway.serving import Entry
from salver.gateway.watch import LEFT
from salver.protocols.protobuf import block

FORM: Final = Form("v2-grpc", {"answer": "stream"})
LEAVE_TIME: Final = 2_000_000_000
"""Nanoseconds that a stream gets to end by itself when the server goes."""
MOST_OPEN: Final = 64
"""Predictions of one stream that are on their way at once."""


class Streaming(Stream):
    """A call whose messages are each answered by itself."""

    __slots__ = ("_ends", "_going", "_held", "_last", "_leaves", "_messages", "head", "service")
    line: Connection

    def __init__(self, service: Service, line: Connection, number: int, head: Head) -> None:
        super().__init__(line, number, line.now)
        self.line = line
        self.service = service
        self.head = head
        self._messages = Messages(service.limits, gzip=head.gzip)
        self._held: deque[bytes] = deque()  # messages that came and wait for room
        self._ends = line.now + head.deadline if head.deadline else 0
        self._going = False
        self._leaves = 0  # when it is cut because the server goes, 0 for never
        self._last = False  # nothing more is taken

    def received(self, data: bytes, now: int) -> None:
        """Take the messages in order, as many at once as may be open."""
        if self.trailer is not None:
            return
        if not len(self._messages):
            self.since = now
        self._messages.limits = self.service.limits  # while a stream is open they may change
        try:
            for message in self._messages.feed(data):
                self._held.append(message)
            if self.ended and len(self._messages):
                raise error("bad-request", "the stream ends within a message")
        except SalverError as problem:
            self.service.bound(problem)
            self.refuse(problem.code, str(problem))
            return
        self.go_on(now)

    def go_on(self, now: int) -> None:
        """Take what waits, while there is room; end when all is answered."""
        if self._going:
            return  # an answer that was there at once comes back here
        self._going = True
        waited = bool(self._held)
        while self._held and not self._last and self.trailer is None and self.is_free():
            self.took(self._held.popleft(), now)
        self._going = False
        if waited and not self._held:  # the next message has its own time, and its own room
            self.since = now
            if self.reserved:
                self.line.release(self)
        if self.trailer is not None:
            return
        if self.is_answered() and not self._held and (self.ended or self._last):
            if self._last:
                self.refuse("draining", "this server is stopping")
            else:
                self.over("")
                self.line.end(self, OK + self.head.echo)

    def took(self, message: bytes, now: int) -> None:
        """Answer one message."""
        raise NotImplementedError

    def is_free(self) -> bool:
        """Whether one more message may be taken."""
        return not self.pending and self.line.is_free

    def is_answered(self) -> bool:
        """Whether no answer is still to come."""
        return not self.pending

    def missing(self) -> int:
        """How many bytes of the next message must still come."""
        return -1 if self._held else self._messages.missing

    def caught_up(self) -> None:
        """What was sent has all gone out."""
        if self.trailer is not None:
            return
        held = bool(self._held)
        self.go_on(self.line.now)
        if held and self.number in self.line.streams and not self.ended:
            self.line.grant(self)

    def leave(self) -> None:
        """The server is going: most streams end soon, the others are cut."""
        self._leaves = self.line.now + LEAVE_TIME

    def is_late(self, now: int) -> bool:
        """Whether the call's own deadline or that of the server has passed, or a message comes too slowly."""
        if self.trailer is not None:
            return False
        return self._is_slow(now) or self._is_past(self._ends, now) or self._is_past(self._leaves, now)

    @staticmethod
    def _is_past(moment: int, now: int) -> bool:
        return bool(moment) and now > moment

    def _is_slow(self, now: int) -> bool:
        limits, came, age = self.service.limits, len(self._messages), (now - self.since) * 1e-9
        return bool(came) and not self._held and age > limits.body_time_of(came)

    def refuse_late(self) -> None:
        """Say so; where the server goes, no more messages are taken, but every answer is sent."""
        now = self.line.now
        if self._is_slow(now):
            self.service.front.bound("slow-body")
        elif not self._is_past(self._ends, now):
            self._last = True
            self._held.clear()
            self.go_on(now)
            return
        self.refuse("deadline-exceeded", "the stream's deadline has passed, or a message came too slowly")

    def refuse(self, code: str, words: str) -> None:
        """End the call with an error."""
        self._held.clear()
        self.over(code)
        self.line.end(self, refused(code, words) + self.head.echo)

    def abandon(self) -> None:
        """Nobody waits any more."""
        self._held.clear()
        self.over(LEFT)

    def over(self, code: str) -> None:
        """The call ends with this code, '' for none: drop what is still open, and tell of it."""
        raise NotImplementedError


class StreamInfer(Streaming):
    """A ModelStreamInfer: each message is a prediction, answered in order; what is wrong with one is said there."""

    __slots__ = ("_open",)

    def __init__(self, service: Service, line: Connection, number: int, head: Head) -> None:
        super().__init__(service, line, number, head)
        self._open: deque[Item] = deque()

    def took(self, message: bytes, now: int) -> None:
        """Send one message on its way to a worker."""
        service = self.service
        asked = Asked(message, now + (self.head.timeout or service.timeout_ns), now)
        item = Item(self, asked)
        self._open.append(item)
        if service.front.watch is not None:
            asked.seen = item.seen = service.see(self.line, self.head, len(message), now)
        try:
            item.call, item.entry, item.principal = submit(self, item, asked, FORM)
        except SalverError as problem:
            item.fail(str(problem)[:MOST_WORDS], problem.code)
            return
        if asked.wishes.ends:
            loaded = item.entry.loaded
            item.last = ends_last(loaded.model, loaded.number, asked.wishes.id)

    def is_free(self) -> bool:
        """Whether one more message may be taken."""
        return len(self._open) < MOST_OPEN and super().is_free()

    def is_answered(self) -> bool:
        """Whether no answer is still to come."""
        return not self._open and not self.pending

    def is_next(self, item: Item) -> bool:
        """Whether it is this one's turn to be answered."""
        return bool(self._open) and self._open[0] is item

    def advance(self) -> None:
        """Send what is ready, in order, and take more."""
        while self._open:
            item = self._open[0]
            item.flush()
            if not item.done:
                break
            self._open.popleft()
        if self.number in self.line.streams and self.trailer is None:
            self.caught_up()

    def caught_up(self) -> None:
        """What was sent has all gone out."""
        if self._open:
            self._open[0].ask_more()
        super().caught_up()

    def over(self, code: str) -> None:
        """Drop the messages that are still open, each of which is told by itself, and tell why the others won't be."""
        for item in self._open:
            item.abandon(code)
        self._open.clear()
        if code and code != LEFT:
            self.service.refused(self.line, self.head, code)


class Item:
    """One prediction of a stream, and those parts of its answer that wait for their turn.

    `last` is what is sent behind an answer in pieces, where that was asked for.
    """

    __slots__ = ("_owed", "_pieces", "_ready", "asked", "call", "done", "entry", "last", "principal", "seen", "stream")

    def __init__(self, stream: StreamInfer, asked: Asked) -> None:
        self.stream = stream
        self.asked = asked
        self.call: Call | None = None
        self.entry: Entry
        self.principal: Principal | None = None
        self.seen: Seen | None = None
        self.done = False
        self.last = b""
        self._ready: list[bytes] = []
        self._pieces = False
        self._owed = 0

    def flush(self) -> None:
        """Send what is ready."""
        for message in self._ready:
            self.stream.line.message(self.stream, message)
        self._ready.clear()
        self.ask_more()

    def ask_more(self) -> None:
        """Ask for pieces once those before have gone out."""
        if self.call is not None and not self.stream.pending and self.stream.line.is_free:
            owed, self._owed = self._owed, 0
            for _ in range(owed):
                self.entry.dispatcher.more(self.call)

    def abandon(self, code: str) -> None:
        """Nobody waits any more, for this reason."""
        call = self.call
        if call is not None:
            self.entry.dispatcher.cancel(call)
            self.entry.tally.add("salver_abandoned")
            self._close(code, None)

    def fail(self, words: str, code: str, batch: Answers | None = None) -> None:
        """There is no answer, for this reason."""
        self.end(ends_wrong(words, self.asked.wishes.id), code, batch)

    def end(self, message: bytes, code: str = "", batch: Answers | None = None) -> None:
        """The answer is whole."""
        if self.seen is not None:
            self.seen.bytes_out += len(message)
        self._close(code, batch)
        self.done = True
        if message:
            self._ready.append(message)
        if self.stream.is_next(self):
            self.stream.advance()

    def _close(self, code: str, batch: Answers | None) -> None:
        """No more comes of the answer: count and tell that."""
        call, self.call = self.call, None
        if self._pieces:
            self.entry.tally.add("salver_open_streams", -1.0)
        seen, self.seen = self.seen, None
        if seen is None:
            return
        service = self.stream.service
        if call is not None and (code != LEFT or self._pieces):
            seen.prediction_id = id_of(service.names(self.entry.loaded.release).ok(time.monotonic_ns()), call.id)
        service.tell(seen, code, batch)

    def pieced(self, call: Call, piece: Piece, now: int) -> None:
        """A part of the worker's answer."""
        del call, now
        message = block(2, piece.body + NOT_LAST)
        if not self._pieces:
            self._pieces = True
            self.entry.tally.add("salver_open_streams")
        if self.seen is not None:
            self.seen.status = 200
            self.seen.bytes_out += len(message)
        self._ready.append(message)
        self._owed += 1
        if self.stream.is_next(self):
            self.flush()

    def predicted(self, call: Call, head: bytes, body: bytes, now: int) -> None:
        """The worker's answer to one row."""
        del call, head
        self._charge(1, now)
        if self.seen is not None:
            self.seen.rows = 1
        self.end(block(2, body + LAST), "", self.entry.batch)

    def replied(self, call: Call, reply: Reply, now: int) -> None:
        """The worker's answer, of any other kind, or the end of its pieces."""
        del call
        self._charge(reply.rows, now)
        if self.seen is not None:
            self.seen.status, self.seen.rows = self.seen.status or reply.status, reply.rows
        if reply.status == 200:
            self.end(self.last if self._pieces else block(2, reply.body + LAST), "", self.entry.batch)
        elif reply.code == "deadline-exceeded":
            self.entry.tally.refused(reply.code)
            self.fail(str(self.entry.problem(reply.code)), reply.code)
        else:
            self.fail(words_of(reply)[:MOST_WORDS], reply.code, self.entry.batch)

    def failed(self, call: Call, code: str) -> None:
        """No worker answered: say why."""
        del call
        self.entry.tally.refused(code)
        self.fail(str(self.entry.problem(code)), code)

    def _charge(self, rows: int, now: int) -> None:
        if self.principal is not None:
            self.stream.service.front.charge(self.principal, rows, now)
