"""The sending half of an HTTP/2 connection: answers within the peer's windows, many frames in one write."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from struct import Struct
from typing import cast

from salver.gateway.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    HEAD,
    HEADERS,
    LARGEST,
    NO_ERROR,
    frame,
    rst_stream,
)
from salver.gateway.http2_headers import OK_STATUS, SHRINK, literal

BEGIN = OK_STATUS + literal(b"content-type", b"application/grpc")
"""The headers of every answer."""
_MESSAGE = Struct(">BI")
_START = Struct(f">HBBBI{len(BEGIN)}sHBBBIBI")
"""The headers of an answer, and the head of its one message."""
MOST_FORGOTTEN = 1024


class Stream:
    """One stream: what was sent and received on it, as far as flow control needs to know, and what is still to send.

    `room` is what the peer may still send, `window` what we may; `ended` says that the peer has said all. `since` is
    when its first byte came, or that of its open message; `stalled` when the message that is sent next first ran out of
    window, 0 for never; `reserved` how many bytes of room are kept for the large message that is on its way.
    A subclass knows what it is for.
    """

    __slots__ = ("begun", "ended", "line", "number", "pending", "reserved", "room", "since", "stalled", "trailer",
                 "window")  # fmt: skip

    def __init__(self, line: Sender, number: int, since: int) -> None:
        self.line = line
        self.number = number
        self.room = 0
        self.window = 0
        self.since = since
        self.stalled = 0
        self.reserved = 0
        self.begun = False
        self.ended = False
        self.pending: deque[memoryview] | None = None
        self.trailer: bytes | None = None

    def received(self, data: bytes, now: int) -> None:
        """Take a part of what the peer says; `ended` is set with the last."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Nobody waits any more."""

    def caught_up(self) -> None:
        """What was sent has all gone out."""

    def leave(self) -> None:
        """The server is going: end, if it would not by itself."""

    def missing(self) -> int:
        """How many bytes must still come before anything can be done, -1 where no more are wanted."""
        return 0

    def is_late(self, now: int) -> bool:
        """Whether it is to be cut off."""
        del now
        return False

    def refuse_late(self) -> None:
        """Say so."""


class Sender:
    """What goes out on one connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = cast("asyncio.Transport", None)
        self._out: list[bytes | memoryview] = []
        self._gathering = False  # somebody will write what is in `_out`
        self._writing = False
        self._sealed = False  # nothing may be written any more
        self._shrink = False
        self._window = FIRST_WINDOW
        self._first_window = FIRST_WINDOW
        self._largest = LARGEST
        self._blocked: dict[int, Stream] = {}
        self._thirsty: dict[int, Stream] = {}  # those that wait to send a large message, the first to get room first
        self._forgotten: dict[int, None] = {}  # the streams that we ended before the peer did
        self.streams: dict[int, Stream] = {}
        self.owed = 0  # bytes of answers that wait for the peer's windows

    @property
    def is_free(self) -> bool:
        """Whether the client reads as fast as we write."""
        return not self._writing

    def answer(self, stream: Stream, message: bytes, trailer: bytes) -> None:
        """Send the whole answer of a stream, one message."""
        size = len(message) + 5
        if size > stream.window or size > self._window or size > self._largest or stream.begun or self._shrink:
            self.message(stream, message)
            self.end(stream, trailer)
            return
        self._window -= size
        number, last = stream.number, len(trailer)
        out = self._out
        out.append(
            _START.pack(
                0, len(BEGIN), HEADERS, END_HEADERS, number, BEGIN,
                size >> 8, size & 255, DATA, 0, number, 0, size - 5,
            )
        )  # fmt: skip
        out.append(message)
        out.append(HEAD.pack(last >> 8, last & 255, HEADERS, END_HEADERS | END_STREAM, number))
        out.append(trailer)
        if not self._gathering:
            self._gather()
        self._close(stream)

    def message(self, stream: Stream, message: bytes) -> None:
        """Send one message; what is over the peer's windows waits."""
        if not stream.begun:
            stream.begun = True
            self.send(frame(HEADERS, END_HEADERS, stream.number, self._shrunk() + BEGIN))
        if stream.pending is None:
            stream.pending = deque()
        stream.pending.append(memoryview(_MESSAGE.pack(0, len(message)) + message))
        self.owed += len(message) + 5
        self._pump(stream, hear=False)

    def end(self, stream: Stream, trailer: bytes) -> None:
        """End a stream behind all that was sent on it; without any message the trailers are all there is."""
        if not stream.begun:
            stream.begun = True
            trailer = self._shrunk() + BEGIN + trailer
        stream.trailer = trailer
        if not stream.pending:
            self._finish(stream)

    def send(self, data: bytes | memoryview) -> None:
        """Send frames with the next write."""
        self._out.append(data)
        if not self._gathering:
            self._gather()

    def _shrunk(self) -> bytes:
        if not self._shrink:
            return b""
        self._shrink = False
        return SHRINK

    def _gather(self) -> None:
        """All that is sent in one turn of the loop goes out in one write."""
        self._gathering = True
        self._loop.call_soon(self._write_out)

    def _write_out(self) -> None:
        self._gathering = False
        out = self._out
        if out:
            self._out = []
            if not self._sealed:
                self._transport.write(b"".join(out))

    def _pump(self, stream: Stream, *, hear: bool = True) -> None:
        """Send what waits on a stream, as far as the windows allow."""
        waiting = stream.pending
        while waiting:
            part = waiting[0]
            size = min(len(part), self._window, stream.window, self._largest)
            if size <= 0:
                self._blocked[stream.number] = stream
                stream.stalled = stream.stalled or time.monotonic_ns()
                return
            self.send(HEAD.pack(size >> 8, size & 255, DATA, 0, stream.number))
            self.send(part[:size])
            self._window -= size
            stream.window -= size
            self.owed -= size
            if size == len(part):
                waiting.popleft()
                stream.stalled = 0
            else:
                waiting[0] = part[size:]
        self._blocked.pop(stream.number, None)
        stream.stalled = 0
        if stream.trailer is not None:
            self._finish(stream)
        elif hear:
            stream.caught_up()

    def _finish(self, stream: Stream) -> None:
        self.send(frame(HEADERS, END_HEADERS | END_STREAM, stream.number, stream.trailer or b""))
        self._close(stream)

    def _close(self, stream: Stream) -> None:
        """All was said on our side; what the peer has still to say is not wanted."""
        if not stream.ended:
            self.send(rst_stream(stream.number, NO_ERROR))
            self._forget(stream.number)
        self._drop(stream)

    def _forget(self, number: int) -> None:
        if len(self._forgotten) >= MOST_FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]
        self._forgotten[number] = None

    def _drop(self, stream: Stream) -> None:
        """A stream is gone, with what it had still to send."""
        self.streams.pop(stream.number, None)
        if stream.pending:
            self.owed -= sum(map(len, stream.pending))
            stream.pending.clear()
            self._blocked.pop(stream.number, None)
        self._thirsty.pop(stream.number, None)
        if stream.reserved or self._thirsty or not self.streams:
            self.release(stream)

    def release(self, stream: Stream) -> None:
        """A stream that held memory is gone, or it was the last one."""
