"""The HTTP/2 connection: one protocol object each, no task and no future per call.

    bytes ─▶ Cutter ─▶ frames ─▶ Service.opened ─▶ Stream.received ··· Sender.answer ─▶ bytes

Rule 1: whatever the peer does wrong ends its stream or its connection with the code for it, and never more.
Rule 2: what a connection may hold is bounded: the windows of its streams, and `limits.large_messages` bytes of
messages that are larger than those.
Rule 3: frames that cost us more than the peer are counted; too many of them end the connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from salver.gateway import http2_frames as h2
from salver.gateway.answers import page
from salver.gateway.front import Front
from salver.gateway.http2_control import ControlFrames
from salver.gateway.http2_frames import Broken, BrokenStream, Cutter
from salver.gateway.http2_headers import Blocks, Headers
from salver.gateway.http2_sender import BEGIN, Stream
from salver.gateway.listener import client_of, drop, names_of

LINGER_TIME: Final = 2.0
FAREWELL_TIME: Final = 1.0
"""Seconds that a peer gets to hear that no more streams are wanted before the last one is named."""
NOT_HTTP2 = b"this port speaks gRPC, over HTTP/2 from the first byte on; HTTP/1.1 has a port of its own\n"


class Service(Protocol):
    """Who answers the streams of a connection. A head is what the headers of a request mean."""

    def read(self, headers: Headers) -> Any:
        """The head of a request; that of the same bytes is read once."""
        ...

    def opened(self, line: Connection, number: int, head: Any) -> Stream | None:
        """A new stream; None where it was answered at once, by `line.refuse`."""
        ...

    def ends(self, head: Any) -> bool:
        """Whether these headers may stand at the end of a stream."""
        ...

    def broken(self, line: Connection, limit: str) -> None:
        """A connection can't go on, for what its peer did wrong: where that was a limit, one of `metrics.LIMITS`."""
        ...


class Connection(ControlFrames, asyncio.Protocol):
    """One client connection."""

    def __init__(self, front: Front, service: Service) -> None:
        super().__init__(front.limits)
        self.names: Sequence[str] = ()
        self.client = ""  # the caller's address, where somebody is told of calls
        self._front = front
        self._service = service
        self._cutter = Cutter()
        self._blocks = Blocks(service.read, 2 * front.limits.headers)
        self._greeting: bytes | None = b""  # what came of the preface, None when it is whole
        self._settled = False  # the first SETTINGS came
        self._block = bytearray()  # a header block whose CONTINUATION is still to come, and its stream and flags
        self._block_of = (0, 0)
        self._room = front.limits.connection_window
        self._taken = 0
        self._reserved = 0
        self._since = self._now
        self._stalled = 0
        self._paused = False

    # ── transport ────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what is allowed, or refuse the connection above the limit."""
        self._transport = cast("asyncio.Transport", transport)
        front = self._front
        if not front.enter(self):
            self._leaving = 3
            self._sealed = True
            self._transport.write(h2.goaway(0, h2.ENHANCE_YOUR_CALM, "too many connections are open"))
            self._transport.close()
            return
        if front.watch is not None:
            self.client = client_of(transport)
        if front.certificates:
            self.names = names_of(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the open streams: nobody waits for them."""
        del exc
        self._front.leave(self)
        self._sealed = True
        self._abandon()

    def pause_writing(self) -> None:
        """The client reads slowly: take nothing more from it until it has caught up."""
        self._writing = True
        self._stalled = time.monotonic_ns()
        if not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writing = False
        for stream in list(self.streams.values()):
            if not stream.pending:
                stream.caught_up()
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into frames and act on each; what they bring about goes out in one write."""
        if self._leaving == 3:
            return
        self._now = time.monotonic_ns()
        self._gathering = True
        try:
            if self._greeting is not None:
                data = self._greet(data)
            for kind, flags, number, payload in self._cutter.feed(data):
                try:
                    if kind == h2.DATA:
                        self._data(flags, number, payload)
                    else:
                        self._other(kind, flags, number, payload)
                except BrokenStream as problem:
                    self._reset(problem.stream, problem.code)
        except Broken as problem:
            self._break(problem)
        self._write_out()

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _greet(self, data: bytes) -> bytes:
        """Take the preface; returns what follows it."""
        data = (self._greeting or b"") + data
        if not h2.PREFACE.startswith(data[:24]):
            self._service.broken(self, "")
            self._transport.write(page(400, NOT_HTTP2, "text/plain", close=True))
            self._end_transport()
            return b""
        if len(data) < 24:
            self._greeting = data
            return b""
        self._greeting = None
        limits = self._limits
        said = {h2.STREAMS: limits.streams, h2.WINDOW: limits.stream_window, h2.HEADER_LIST: limits.headers}
        self.send(h2.settings(said) + h2.window_update(0, limits.connection_window - h2.FIRST_WINDOW))
        return data[24:]

    def _other(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Any frame but DATA, and DATA where it may not be."""
        if (kind == h2.CONTINUATION) != bool(self._block_of[0]) or (self._block_of[0] not in (0, number)):
            raise Broken(h2.PROTOCOL_ERROR, "a header block is broken off")
        if not self._settled:
            if kind != h2.SETTINGS or flags & h2.ACK:
                raise Broken(h2.PROTOCOL_ERROR, "the first frame is no SETTINGS")
            self._settled = True
        if kind == h2.HEADERS:
            self._headers(flags, number, payload)
            return
        if kind == h2.CONTINUATION:
            self._odd()
            self._continuation(flags, number, payload)
            return
        self.act(kind, flags, number, payload)

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number & 1:
            raise Broken(h2.PROTOCOL_ERROR, "a request has an even stream")
        if flags & h2.PADDED:
            payload = h2.unpadded(payload)
        if flags & h2.PRIORITIZED:
            payload = h2.without_priority(payload, number)
        if flags & h2.END_HEADERS:
            self._whole_block(flags, number, payload)
        else:
            self._block, self._block_of = bytearray(payload), (number, flags)
            self._since = self._now

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        self._block += payload
        if len(self._block) > self._limits.headers:
            raise Broken(h2.ENHANCE_YOUR_CALM, "the headers are too large", "headers")
        if flags & h2.END_HEADERS:
            first, block = self._block_of[1], bytes(self._block)
            self._block, self._block_of = bytearray(), (0, 0)
            self._whole_block(first, number, block)

    def _whole_block(self, flags: int, number: int, block: bytes) -> None:
        if len(block) > self._limits.headers:
            raise Broken(h2.ENHANCE_YOUR_CALM, "the headers are too large", "headers")
        head = self._blocks.meaning(block)  # also where nobody wants it: the next one builds on it
        if number <= self._last:
            self._trailers(flags, number, head)
            return
        if self._leaving >= 2:
            return  # it was told that this one is not answered
        self._last = number
        if len(self.streams) >= self._limits.streams:
            self._front.bound("streams")
            raise BrokenStream(number, h2.REFUSED_STREAM)
        stream = self._service.opened(self, number, head)
        if stream is None:
            if not flags & h2.END_STREAM:
                self._forget(number)
                self.send(h2.rst_stream(number, h2.NO_ERROR))
            return
        self.streams[number] = stream
        stream.room = self._limits.stream_window
        stream.window = self._first_window
        if flags & h2.END_STREAM:
            stream.ended = True
            stream.received(b"", self._now)

    def _trailers(self, flags: int, number: int, head: Any) -> None:
        stream = self.streams.get(number)
        if stream is None:
            if number not in self._forgotten:
                raise Broken(h2.STREAM_CLOSED, "headers on a stream that has ended")
        elif stream.ended:
            raise BrokenStream(number, h2.STREAM_CLOSED)
        elif not flags & h2.END_STREAM or not self._service.ends(head):
            raise BrokenStream(number, h2.PROTOCOL_ERROR)
        else:
            stream.ended = True
            stream.received(b"", self._now)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        if self._block_of[0] or not self._settled:
            self._other(h2.DATA, flags, number, payload)
        self._room -= size
        if self._room < 0:
            raise Broken(h2.FLOW_CONTROL_ERROR, "more came than the connection's window")
        self._taken += size
        if self._taken > self._limits.connection_window >> 1:
            self.send(h2.window_update(0, self._taken))
            self._room += self._taken
            self._taken = 0
        stream = self.streams.get(number)
        if stream is None or stream.ended:
            self._data_nobody_wants(stream, number)
            return
        if flags & h2.PADDED:
            payload = h2.unpadded(payload)
        stream.room -= size
        if stream.room < 0:
            raise BrokenStream(number, h2.FLOW_CONTROL_ERROR)
        if flags & h2.END_STREAM:
            stream.ended = True
        elif not payload:
            self._odd()
        stream.received(payload, self._now)
        if not stream.ended and number in self.streams:
            self.grant(stream)

    def _data_nobody_wants(self, stream: Stream | None, number: int) -> None:
        if stream is not None:
            raise BrokenStream(number, h2.STREAM_CLOSED)
        if not number & 1 or number > self._last:
            if number & 1 and self._leaving >= 2:
                return
            raise Broken(h2.PROTOCOL_ERROR, "data on a stream that is idle")
        if number not in self._forgotten:
            raise BrokenStream(number, h2.STREAM_CLOSED)

    # ── room ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def refuse(self, number: int, trailer: bytes) -> None:
        """Answer a stream with trailers alone."""
        self.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, number, self._shrunk() + BEGIN + trailer))

    def grant(self, stream: Stream) -> None:
        """Let a stream send what it needs; of large messages only so many come at once, the others wait in order."""
        missing = -1 if stream.ended or stream.trailer is not None else stream.missing()
        if missing < 0:
            self._thirsty.pop(stream.number, None)
            return
        limits = self._limits
        if missing > limits.stream_window and not stream.reserved:
            first = next(iter(self._thirsty), stream.number)
            if self._reserved and (first != stream.number or self._reserved + missing > limits.large_messages):
                if stream.number not in self._thirsty:
                    self._thirsty[stream.number] = stream
                    self._front.bound("large-messages")
                return
            stream.reserved = missing
            self._reserved += missing
        self._thirsty.pop(stream.number, None)
        wanted = max(limits.stream_window, missing)
        more = wanted - stream.room
        if more >= limits.stream_window >> 1:
            stream.room = wanted
            self.send(h2.window_update(stream.number, more))

    def release(self, stream: Stream) -> None:
        """A stream has no large message on its way any more, or was the last one."""
        self._reserved -= stream.reserved
        stream.reserved = 0
        while self._thirsty and self._reserved < self._limits.large_messages:
            waiting = next(iter(self._thirsty.values()))
            waiting.since = self._now
            self.grant(waiting)
            if waiting.number in self._thirsty:
                break
        if self.streams:
            return
        if self._leaving == 0:
            self._since = self._now
        elif self._leaving == 2:
            self._gone()

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def check_time(self, now: int) -> int:
        """Cut off what is past a deadline, and leave when the server does or nothing was asked for long.

        Each of the streams has its own deadlines: the connection wants to be looked at in every round.
        """
        self._check_time(now)
        return now

    def _check_time(self, now: int) -> None:
        limits = self._limits
        self._now = now
        age = (now - self._since) * 1e-9
        stalled = self._writing and (now - self._stalled) * 1e-9 > limits.write_time
        if stalled:
            self._front.bound("slow-read")
            drop(self._transport)
        elif self._leaving == 3:
            if age > LINGER_TIME:
                self._transport.abort()
        elif not self._settled or self._block_of[0]:
            limit = "slow-head" if age > limits.header_time else ""
            if limit or (self._front.ending and not self._settled and age > FAREWELL_TIME):
                words = f"nothing whole came within {limits.header_time:g} s"
                self._break(Broken(h2.ENHANCE_YOUR_CALM, words, limit))
        elif self._leaving == 1:
            if age > FAREWELL_TIME:
                self._name_last()
        elif self._leaving == 0 and (self._front.ending or (not self.streams and age > limits.keep_alive)):
            self._leaving = 1
            self._since = now
            self.send(h2.goaway(h2.MOST_WINDOW, h2.NO_ERROR) + h2.frame(h2.PING, 0, 0, bytes(8)))
        elif self.streams:
            self._check_streams(now)

    def _check_streams(self, now: int) -> None:
        for stream in self._thirsty.values():
            stream.since = now
        for stream in list(self.streams.values()):
            try:
                if stream.stalled and (now - stream.stalled) * 1e-9 > self._limits.write_time:
                    self._front.bound("slow-read")
                    self._reset(stream.number, h2.CANCEL)
                elif stream.is_late(now):
                    stream.refuse_late()
            except Broken as problem:
                self._break(problem)
                return

    def _break(self, problem: Broken) -> None:
        """Say what the peer did wrong, and hear no more of it."""
        self._service.broken(self, problem.limit)
        self._abandon()
        self.send(h2.goaway(self._last, problem.code, problem.words))
        self._write_out()
        self._end_transport()

    def _end_transport(self) -> None:
        """Close once the peer has, or in a moment: a close with unread bytes would undo what was just said."""
        if self._sealed:
            return
        self._leaving = 3
        self._sealed = True
        self._since = self._now
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _gone(self) -> None:
        self._write_out()
        self._end_transport()

    def _abandon(self) -> None:
        self._leaving = 3
        self._thirsty.clear()
        for stream in list(self.streams.values()):
            self._drop(stream)
            stream.abandon()
