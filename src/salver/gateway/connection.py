"""The HTTP/1.1 connection: one protocol object each, no task, future or middleware per request.

    bytes ─▶ httptools ─▶ a whole request ─▶ Exchange ··· answer ─▶ bytes

Rule 1: a connection has at most one open request; pipelined ones wait, and reading pauses meanwhile. Where the parser
        is and whether a request is open are two things: `_phase` says the one, the exchange the other.
Rule 2: the body is passed on as it came; only framing and headers are read here.
Rule 3: whatever is wrong with the bytes themselves is answered once, and then the connection is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final, cast

import httptools

from salver.errors import SalverError, error
from salver.gateway.answers import error_body, error_page, page
from salver.gateway.exchange import Exchange
from salver.gateway.front import HEAD_END, Front
from salver.gateway.listener import client_of, drop, names_of, unread
from salver.gateway.paths import endpoint_of
from salver.gateway.request import Request
from salver.limits import over

IDLE: Final = 0
HEADERS: Final = 1
BODY: Final = 2
LINGER: Final = 3
CHUNK_LINE: Final = 12
"""Bytes that a chunk may cost beside its data; more of them count as those of a head do."""
LINGER_TIME: Final = 2.0
"""Seconds that a client gets to read why it is cut off."""
FIRST_TIME: Final = 1.0
"""Seconds that a connection which was accepted last gets for its request."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_backlog",
        "_begun",
        "_exchange",
        "_fed",
        "_framing",
        "_front",
        "_going_on",
        "_parser",
        "_paused",
        "_phase",
        "_reading",
        "_since",
        "_stalled",
        "_transport",
        "_writing",
        "close",
    )

    def __init__(self, front: Front) -> None:
        self._front = front
        self._parser = httptools.HttpRequestParser(self)
        self._transport = cast("asyncio.Transport", None)
        self._reading = Request(front.limits)
        self._backlog: deque[Request] = deque()
        self._exchange = Exchange(front, self)
        self._phase = IDLE
        self._since = self._begun = time.monotonic_ns()
        self._stalled = 0
        self._framing = 0  # bytes that came and were no body, since the last whole request
        self._fed = b""  # what is being fed, while it may hold one whole request
        self._paused = False
        self._going_on = False
        self._writing = False
        self.close = False

    # ── transport ────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or refuse it above the limit."""
        self._transport = cast("asyncio.Transport", transport)
        front = self._front
        if not front.enter(self):
            body, kind = error_body(error("overloaded", "too many connections are open", hint="try again"), "native")
            self.close = True
            self._transport.write(page(503, body, kind, close=True))
            self._transport.close()
            return
        if front.certificates:
            self._exchange.names = names_of(transport)
        if front.watch is not None:
            self._exchange.client = client_of(transport).encode()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the open request: nobody waits for it."""
        del exc
        self._front.leave(self)
        self._backlog.clear()
        self._exchange.abandon()
        self._parser = cast("httptools.HttpRequestParser", None)  # it and this hold each other, and its buffers

    def pause_writing(self) -> None:
        """The client reads slowly: ask for no further work until it has caught up."""
        self._writing = True
        self._stalled = time.monotonic_ns()
        self._pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writing = False
        self._exchange.caught_up()
        self._next()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; framing that never ends is cut off."""
        if self._phase == IDLE and self._exchange.call is None and not self._backlog:
            head, _, body = data.partition(HEAD_END)
            known = self._front.heads.get(head)
            if known is not None and len(body) == known.length and not self.close and not self._writing:
                self._exchange.predict(known, body)
                return
            self._fed = data
        if self.close:
            return
        self._framing += len(data)
        problem = self._parse(data)
        if problem is not None:
            self._malformed(problem)
        self._fed = b""

    def _parse(self, data: bytes) -> SalverError | None:
        """Feed the parser; the error of bytes that are no request, or one over a limit."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as wrapped:
            return _raised_in(wrapped)
        except httptools.HttpParserError:
            return error("bad-request", "the request can't be read as HTTP/1.1")
        limits = self._front.limits
        if self._framing > limits.request_line + limits.headers:
            return error("headers-too-large", f"the head is over {limits.headers} bytes")
        return None

    def _without_upgrade(self, rest: bytes) -> SalverError | None:
        """Go on in HTTP/1.1 as a server may that is offered another protocol: a new parser reads the body."""
        request = self._reading
        if request.method == b"CONNECT":
            return error("method-not-allowed", "CONNECT is not allowed here", hint="this is no proxy")
        self._parser = httptools.HttpRequestParser(self)
        if request.has_body:
            framing = b"content-length: %d" % request.length if request.length >= 0 else b"transfer-encoding: chunked"
            problem = self._parse(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        else:
            request.upgrades = False
            self.on_message_complete()
            problem = None
        return self._parse(rest) if problem is None and rest and not self.close else problem

    def eof_received(self) -> bool:
        """The client has closed, as far as one can tell: nobody waits any more."""
        return False

    # ── parser ───────────────────────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """A new request begins, or the one that was offered an upgrade goes on."""
        self._phase = HEADERS
        if not self._reading.upgrades:
            self._reading = Request(self._front.limits)
            self._since = time.monotonic_ns()

    def on_url(self, url: bytes) -> None:
        """A part of the request line's target."""
        request = self._reading
        if not request.upgrades:
            request.url = request.url + url if request.url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._reading.header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: refuse what is too large before its body comes."""
        self._phase = BODY
        front, request = self._front, self._reading
        if request.whole:
            request.upgrades = False
            return
        request.method = self._parser.get_method()
        request.version = self._parser.get_http_version()
        request.keep_alive = self._parser.should_keep_alive()
        request.upgrades = self._parser.should_upgrade()
        request.head_complete()
        if front.guard is not None:
            early = front.guard.early(request, front.asked(request), self._exchange.names)
            if early is not None:
                raise early
        if request.expect:
            self._transport.write(CONTINUE)

    def on_chunk_header(self) -> None:
        """One more chunk of the body."""
        self._framing = max(0, self._framing - CHUNK_LINE)
        self._reading.chunk()

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._framing -= len(data)
        self._reading.add(data)

    def on_message_complete(self) -> None:
        """The request is whole: answer it, or let it wait behind the open one."""
        request = self._reading
        if request.upgrades:
            return
        self._phase = IDLE
        self._framing = 0
        self._since = time.monotonic_ns()
        request.end()
        if self._exchange.call is not None or self._backlog or self._writing:
            most = self._front.limits.pipelined
            if len(self._backlog) >= most:
                raise over("pipelined", "bad-request", f"over {most} requests wait here", "read the answers first")
            self._backlog.append(request)
            self._pause()
        else:
            self._exchange.handle(request)
            if self._fed and request.target is not None and not self.close:
                self._front.learn(self._fed, request)
        self._fed = b""

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, data: bytes) -> bool:
        """Send a part of an answer; False asks to wait until the client has caught up."""
        self._transport.write(data)
        return not self._writing

    def answered(self, data: bytes, now: int) -> None:
        """Send an answer on a connection that stays open, and go on with the next request."""
        self._transport.write(data)
        if self._phase == IDLE:
            self._since = now
        if self._backlog or self._paused:
            self._next()

    def finish(self, data: bytes) -> None:
        """Send an answer, or its last part, and go on with the next request or close."""
        self._transport.write(data)
        if self._phase == IDLE:
            self._since = time.monotonic_ns()
        if self.close:
            self._transport.close()
        elif self._backlog or self._paused:
            self._next()

    def _next(self) -> None:
        """Go on with the request that waited longest, or with reading; one that is answered at once comes back here."""
        if self._going_on:
            return
        if self._backlog and self._is_free():
            self._going_on = True
            self._exchange.handle(self._backlog.popleft())
            self._going_on = False
            if self._backlog and self._is_free():
                asyncio.get_running_loop().call_soon(self._next)  # other connections get their turn
                return
        if self._paused and not self._backlog and self._is_free():
            self._paused = False
            self._transport.resume_reading()

    def _is_free(self) -> bool:
        return self._exchange.call is None and not self._writing and not self._transport.is_closing()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _malformed(self, problem: SalverError) -> None:
        self._front.count("salver_malformed_requests")
        self._refuse(problem)

    def _refuse(self, problem: SalverError) -> None:
        """Answer what can't be parsed any further, then close; an open request ends unanswered.

        The close waits until the client has, or a moment: a close with unread bytes would reset the connection
        before the client has read why.
        """
        self.close = True
        self._backlog.clear()
        if problem.limit:
            self._front.bound(problem.limit)
        if self._exchange.call is not None:
            self._transport.close()
            return
        answer = error_page(problem, endpoint_of(self._reading.url.decode("latin-1")), b"", close=True)
        self._transport.write(answer)
        if self._front.watch is not None:
            self._exchange.unread(self._reading, problem.code, answer)
        self._phase = LINGER
        self._since = time.monotonic_ns()
        self._front.sweep.watch(self, self._due(self._since))
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:  # TLS
            self._transport.close()

    def check_time(self, now: int) -> int:
        """Cut the connection off where it is past a deadline; when it may be the next time if nothing happens."""
        age, lasts = (now - self._since) * 1e-9, self._lasts()
        if self._writing and (now - self._stalled) * 1e-9 > self._front.limits.write_time:
            self._front.bound("slow-read")
            drop(self._transport)
        elif self._phase == LINGER:
            if age > lasts:
                self._transport.abort()
        elif self._writing or self._exchange.call is not None or self._backlog:
            pass
        elif self._phase == IDLE:
            if (age > lasts or self._is_over(age)) and not self._goes_on():
                self._leave(age)
        elif age > lasts:
            self._malformed(self._too_slow())
        return self._due(now)

    def _due(self, now: int) -> int:
        """The first deadline that may pass: of what the connection is at, or of what it may begin from now on."""
        limits, lasts = self._front.limits, self._lasts()
        if self._phase == HEADERS:
            lasts = min(lasts, limits.body_time_of(0))  # a body's time began with its head
        due = min(self._since + int(lasts * 1e9), now + self._front.shortest_ns)
        return min(due, self._stalled + int(limits.write_time * 1e9)) if self._writing else due

    def _lasts(self) -> float:
        """The seconds that what the connection is at may take, as far as it has come."""
        limits = self._front.limits
        if self._phase == HEADERS:
            return limits.header_time
        if self._phase == BODY:
            return limits.body_time_of(self._reading.received)
        return LINGER_TIME if self._phase == LINGER else limits.keep_alive

    def _too_slow(self) -> SalverError:
        limits = self._front.limits
        if self._phase == HEADERS:
            return over("slow-head", "slow-request", f"no whole head within {limits.header_time:g} s")
        message = f"no whole body within {limits.body_time:g} s, or it came too slowly"
        return over("slow-body", "slow-request", message)

    def _leave(self, age: float) -> None:
        """End an idle connection; one whose client does not take its last answer would never be closed."""
        if age > self._front.limits.write_time and self._transport.get_write_buffer_size():
            self._front.bound("slow-read")
            drop(self._transport)
        else:
            self._transport.close()

    def _goes_on(self) -> bool:
        """Whether the next request has come, but was not read yet."""
        return not self._transport.is_closing() and unread(self._transport) > 0

    def _is_over(self, age: float) -> bool:
        """Whether an idle connection ends with the server; one that has just begun gets time for its first request."""
        return self._front.ending and (self._since != self._begun or age > FIRST_TIME)


def _raised_in(wrapped: httptools.HttpParserCallbackError) -> SalverError:
    """The error that a callback of the parser raised, without the frames it went through: they hold what was read."""
    cause = wrapped.__context__
    if not isinstance(cause, SalverError):
        raise wrapped
    return cause.with_traceback(None)
