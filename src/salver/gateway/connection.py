"""The HTTP/1.1 connection: one protocol object each, no task, future or middleware per request.

    bytes ─▶ httptools ─▶ a whole request ─▶ Serving.find ─▶ Dispatcher.submit ··· answered ─▶ bytes

Rule 1: a connection has at most one open request; pipelined ones wait, and reading pauses meanwhile.
Rule 2: the body is passed on as it came; only framing and headers are read here.
Rule 3: whatever is wrong with the bytes themselves is answered once, and then the connection is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final, cast

import httptools

from salver.dispatch.batching import Call
from salver.errors import SalverError, error
from salver.frames import Reply
from salver.gateway.answers import error_body, page
from salver.gateway.front import HEAD_END, Front
from salver.gateway.paths import PREDICT, Target
from salver.gateway.request import Request
from salver.gateway.serving import Entry

IDLE: Final = 0
HEADERS: Final = 1
BODY: Final = 2
OPEN: Final = 3
LINGER: Final = 4
LINGER_TIME: Final = 2.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MESSAGES = {
    "overloaded": ("too many requests wait", "try again after the time in Retry-After"),
    "deadline-exceeded": ("no answer was ready before the deadline", "x-request-timeout-ms sets it"),
    "worker-died": ("the worker died and this model may not be asked twice", "its release declares side effects"),
    "poison-request": ("this body killed two workers and is refused for ten minutes", "the server's log has the crash"),
    "draining": ("this server is stopping", "try again"),
}


class Connection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_backlog",
        "_call",
        "_close",
        "_entry",
        "_fed",
        "_front",
        "_parser",
        "_paused",
        "_phase",
        "_reading",
        "_request",
        "_seen",
        "_since",
        "_transport",
        "_writing",
    )

    def __init__(self, front: Front) -> None:
        self._front = front
        self._parser = httptools.HttpRequestParser(self)
        self._transport = cast("asyncio.Transport", None)
        self._reading = self._request = Request(front.limits)  # being read, being answered
        self._backlog: deque[Request] = deque()
        self._call: Call | None = None
        self._entry: Entry | None = None
        self._phase = IDLE
        self._since = time.monotonic_ns()
        self._seen = 0
        self._fed = b""  # what is being fed, while it may hold one whole request
        self._paused = False
        self._writing = False
        self._close = False

    # ── transport ────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or refuse it above the limit."""
        self._transport = cast("asyncio.Transport", transport)
        front = self._front
        if len(front.connections) >= front.limits.connections:
            body, kind = error_body(error("overloaded", "too many connections are open", hint="try again"), "native")
            self._close = True
            self._transport.write(page(503, body, kind, close=True))
            self._transport.close()
            return
        front.connections.add(self)
        front.count("salver_connections")
        front.count("salver_accepted_connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the open request: nobody waits for it."""
        del exc
        front = self._front
        if self in front.connections:
            front.connections.remove(self)
            front.count("salver_connections", -1.0)
        self._backlog.clear()
        call, self._call = self._call, None
        if call is not None and self._entry is not None:
            self._entry.dispatcher.cancel(call)
            self._entry.tally.add("salver_abandoned")

    def pause_writing(self) -> None:
        """The client reads slowly: ask for no further work until it has caught up."""
        self._writing = True
        self._since = time.monotonic_ns()
        self._pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writing = False
        self._since = time.monotonic_ns()
        self._next()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a request line or head that never ends is cut off."""
        if self._phase == IDLE:
            head, _, body = data.partition(HEAD_END)
            known = self._front.heads.get(head)
            if known is not None and len(body) == known.length and not self._close:
                self._phase = OPEN
                self._request = known
                self._predict(known, body)
                return
            self._phase = HEADERS
            self._since = time.monotonic_ns()
            self._seen = 0
            self._fed = data
        if self._close:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._close = True
        except httptools.HttpParserCallbackError as wrapped:
            cause = wrapped.__context__
            if not isinstance(cause, SalverError):
                raise
            self._malformed(cause)
        except httptools.HttpParserError as problem:
            self._malformed(error("bad-request", f"the request can't be read as HTTP: {problem}"))
        self._fed = b""
        if self._phase == HEADERS:
            self._seen += len(data)
            limits = self._front.limits
            if self._seen > limits.request_line + limits.headers:
                self._malformed(error("headers-too-large", f"the head is over {limits.headers} bytes"))

    def eof_received(self) -> bool:
        """A half-closed client still gets its answer."""
        self._close = True
        return self._call is not None

    # ── parser ───────────────────────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """A new request begins."""
        self._reading = Request(self._front.limits)

    def on_url(self, url: bytes) -> None:
        """A part of the request line's target."""
        request = self._reading
        request.url = request.url + url if request.url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._reading.header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: refuse what is too large before its body comes."""
        self._reading.head_complete()
        if self._phase == HEADERS:
            self._phase = BODY
        if self._reading.expect:
            self._transport.write(CONTINUE)

    def on_chunk_header(self) -> None:
        """One more chunk of the body."""
        self._reading.chunk()

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        self._reading.add(data)

    def on_message_complete(self) -> None:
        """The request is whole: answer it, or let it wait behind the open one."""
        request = self._reading
        request.method = self._parser.get_method()
        request.keep_alive = self._parser.should_keep_alive()
        if self._call is not None or self._backlog or self._writing:
            self._backlog.append(request)
            self._pause()
        else:
            self._handle(request)
            if self._fed and request.target is not None and not self._close:
                self._front.learn(self._fed, request)
        self._fed = b""

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _handle(self, request: Request) -> None:
        front = self._front
        self._request = request
        self._phase = OPEN
        if not request.keep_alive or front.closing:
            self._close = True
        url = request.url
        found = front.targets.get((request.method, url)) or front.target(request.method, url)
        if not isinstance(found, Target):
            front.count("salver_malformed_requests")
            self._write_error(found, "v2" if url[:3] == b"/v2" else "v1" if url[:3] == b"/v1" else "native")
            return
        if found.kind != PREDICT:
            self._finish(front.pages(found, front))
            return
        refusal = request.refusal()
        if refusal is not None and not (found.form.protocol == "v1" and request.is_form()):
            self._write_error(refusal, found.form.protocol)
            return
        request.target = found
        self._predict(request, bytes(request.body))

    def _predict(self, request: Request, body: bytes) -> None:
        front = self._front
        target = cast("Target", request.target)
        entry = front.serving.live.get(target.model) if target.number is None else None
        if entry is None:
            found = front.serving.find(target.model, target.number)
            if not isinstance(found, Entry):
                self._write_error(found, target.form.protocol)
                return
            entry = found
        self._entry = entry
        now = time.monotonic_ns()
        deadline = now + (request.timeout_ns or front.timeout_ns)
        front.requests += 1
        call = Call(front.requests, target.form, deadline, body, self, now)
        refusal = entry.dispatcher.submit(call)
        if refusal:
            self._refused(call, refusal)
            return
        self._call = call

    def predicted(self, call: Call, head: bytes, body: bytes, now: int) -> None:
        """The worker's answer, one row in JSON: write it."""
        self._call = None
        if self._close or self._front.closing or self._request.request_id:
            self._write(call, head, body)
            return
        self._transport.write(b"%b%08x\r\ncontent-length: %d\r\n\r\n%b" % (head, call.id & 0xFFFFFFFF, len(body), body))
        self._phase = IDLE
        self._since = now
        if self._backlog or self._paused:
            self._next()

    def replied(self, call: Call, reply: Reply, now: int) -> None:
        """The worker's answer, of any other kind: write it."""
        self._call = None
        if reply.code == "deadline-exceeded":
            self._refused(call, reply.code)
            return
        head = cast("Entry", self._entry).heads.other(reply.status, reply.content_type, now)
        self._write(call, head, reply.body, reply.row_errors)

    def failed(self, call: Call, code: str) -> None:
        """No worker answered: say why."""
        self._call = None
        self._refused(call, code)

    def _refused(self, call: Call, code: str) -> None:
        entry = cast("Entry", self._entry)
        message, hint = MESSAGES[code]
        problem = error(code, f"{entry.loaded.release}: {message}", hint=hint)
        entry.tally.refused(code)
        body, kind = error_body(problem, call.form.protocol)
        self._write(call, entry.heads.other(problem.meaning.http, kind, time.monotonic_ns()), body)

    def _write(self, call: Call, head: bytes, body: bytes, row_errors: int = 0) -> None:
        """Write an answer that needs more than the plain headers."""
        request_id = self._request.request_id
        self._close = self._close or self._front.closing
        parts = [
            b"%b%08x\r\ncontent-length: %d\r\n" % (head, call.id & 0xFFFFFFFF, len(body)),
            b"x-salver-row-errors: %d\r\n" % row_errors if row_errors else b"",
            b"x-request-id: " + request_id + b"\r\n" if request_id else b"",
            b"connection: close\r\n\r\n" if self._close else b"\r\n",
            body,
        ]
        self._finish(b"".join(parts))

    def _write_error(self, problem: SalverError, protocol: str) -> None:
        body, kind = error_body(problem, protocol)
        self._finish(page(problem.meaning.http, body, kind, close=self._close))

    def _finish(self, data: bytes) -> None:
        self._transport.write(data)
        self._phase = IDLE
        self._since = time.monotonic_ns()
        if self._close:
            self._transport.close()
        elif self._backlog or self._paused:
            self._next()

    def _next(self) -> None:
        """Go on with the requests that waited, then with reading."""
        if self._call is None and not self._writing and not self._transport.is_closing():
            if self._backlog:
                self._handle(self._backlog.popleft())
            elif self._paused:
                self._paused = False
                self._transport.resume_reading()

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
        self._close = True
        if self._call is not None or not self._transport.can_write_eof():
            self._transport.close()
            return
        body, kind = error_body(problem, "native")
        self._transport.write(page(problem.meaning.http, body, kind, close=True))
        self._transport.write_eof()
        self._phase = LINGER
        self._since = time.monotonic_ns()

    def check_time(self, now: int) -> None:
        """Cut the connection off where it is past a deadline."""
        limits = self._front.limits
        age = (now - self._since) * 1e-9
        if self._writing:
            if age > limits.write_time:
                self._transport.abort()
        elif self._phase == HEADERS and age > limits.header_time:
            self._malformed(error("slow-request", f"no whole head within {limits.header_time:g} s"))
        elif self._phase == BODY and (
            age > limits.body_time
            or (age > limits.body_rate_after and self._reading.size < limits.body_rate * (age - limits.body_rate_after))
        ):
            self._malformed(
                error("slow-request", f"no whole body within {limits.body_time:g} s, or it came too slowly")
            )
        elif self._phase == LINGER and age > LINGER_TIME:
            self._transport.abort()
        elif self._phase == IDLE and (age > limits.keep_alive or self._front.ending):
            self._transport.close()
