"""One request after another of a connection: who may ask, what is asked, its way to a worker, its answer.

a whole request ─▶ guard ─▶ Serving.find ─▶ Dispatcher.submit ··· predicted │ replied │ pieced │ failed ─▶ bytes
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import random
from typing import Protocol, cast

from salver.access.principal import Principal
from salver.dispatch.call import Call
from salver.errors import SalverError
from salver.frames import Form, Piece, Reply
from salver.gateway.answers import error_body, error_page, with_headers
from salver.gateway.chunked import Chunked
from salver.gateway.front import Front
from salver.gateway.paths import PREDICT, Target, endpoint_of
from salver.gateway.request import Request
from salver.gateway.seen import Seen, path_of
from salver.gateway.serving import Entry
from salver.gateway.watch import LEFT
from salver.protocols.refusals import status_in


class Line(Protocol):
    """The connection, as far as answering needs it; `close` says that this answer is its last."""

    close: bool

    def write(self, data: bytes) -> bool:
        """Send a part of an answer; False asks to wait until the client has caught up."""
        ...

    def finish(self, data: bytes) -> None:
        """Send an answer, or its last part, and go on with the next request."""
        ...

    def answered(self, data: bytes, now: int) -> None:
        """The same, on a connection that stays open."""
        ...


class Exchange:
    """The requests of one connection, one at a time. `call` is the open one, None while none is."""

    __slots__ = (
        "_chunked",
        "_entry",
        "_front",
        "_holder",
        "_line",
        "_owed",
        "_request",
        "_seen",
        "call",
        "client",
        "names",
    )

    def __init__(self, front: Front, line: Line) -> None:
        self.call: Call | None = None
        self.names: Sequence[str] = ()  # of the client certificate
        self.client = b""  # the caller's address, where somebody is told of requests
        self._front = front
        self._line = line
        self._request = Request(front.limits)
        self._holder: Principal | None = None  # for whom the connection counts
        self._entry: Entry | None = None
        self._chunked: Chunked | None = None  # the answer that has begun, of those that come in pieces
        self._owed = 0  # pieces of it that are not asked for yet
        self._seen: Seen | None = None  # the open request, where somebody is told of it

    def handle(self, request: Request) -> None:
        """Answer a request, or send it on its way."""
        front = self._front
        self._request = request
        if front.watch is not None:
            self._see(request)
        if not request.keep_alive or front.closing:
            self._line.close = True
        asked = found = front.asked(request)
        if front.guard is not None:
            found = front.guard.admit(request, asked, self.names)
        if not isinstance(found, Target):
            self._count_refusal(asked, found)
            self._write_error(found, endpoint_of(request.url.decode("latin-1")))
            return
        if found.kind != PREDICT:
            crowded = self._hold(request.principal)
            if crowded is not None:
                self._write_error(crowded, found.form.protocol)
                return
            self._finish(with_headers(front.pages(found, front, request), request.cors))
            return
        form = front.form(found, request)
        if not isinstance(form, Form):
            self._write_error(form, found.form.protocol)
            return
        request.target, request.form = found, form
        request.plain = not request.request_id and not request.cors
        self.predict(request, cast("bytes", request.body))

    def predict(self, request: Request, body: bytes) -> None:
        """Send a request that is known to ask for a prediction on its way."""
        front = self._front
        self._request = request
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
        who = request.principal
        if front.access is not None and who is not None:
            refused = self._hold(who) if who is not self._holder else None
            if refused is None and not who.free:
                refused = front.access.use(who, len(body), time.time(), now * 1e-9)
            if refused is not None:
                entry.tally.refused(refused.code)
                self._write_error(refused, target.form.protocol)
                return
        deadline = now + (request.timeout_ns or front.timeout_ns)
        front.requests += 1
        call = Call(front.requests, cast("Form", request.form), deadline, body, self, now)
        if who is not None:
            call.key, call.priority = who.name, who.priority
        watch = front.watch
        if watch is not None and watch.tracer is not None and watch.tracer.follows(request.traceparent):
            watch.tracer.begin(self._see(request, call), call, request.traceparent, request.tracestate)
        refusal = entry.dispatcher.submit(call)
        if refusal:
            self._refused(call, refusal)
            return
        self.call = call

    def abandon(self) -> None:
        """The connection is gone: drop the open request, nobody waits for it."""
        call, self.call = self.call, None
        if call is not None and self._entry is not None:
            self._entry.dispatcher.cancel(call)
            self._entry.tally.add("salver_abandoned")
            if self._chunked is not None:
                self._entry.tally.add("salver_open_streams", -1.0)
            self._note(call, LEFT)
            self._tell()
        self._line = cast("Line", None)  # it and this hold each other, and what was read

    def unread(self, request: Request, code: str, answer: bytes) -> None:
        """What came can't be read any further and was answered: tell of it."""
        seen = self._see(request)
        seen.code = code
        seen.wrote(answer)
        self._tell()

    def caught_up(self) -> None:
        """The client has read what was written: ask for the pieces that were held back."""
        owed, self._owed = self._owed, 0
        if self.call is not None and self._entry is not None:
            for _ in range(owed):
                self._entry.dispatcher.more(self.call)

    def predicted(self, call: Call, head: bytes, body: bytes, now: int) -> None:
        """The worker's answer, one row in JSON: write it."""
        self.call = None
        request = self._request
        who = request.principal
        if who is not None and who.rows is not None:
            self._front.charge(who, 1, now)
        if request.plain and self._seen is None and not self._line.close and not self._front.closing:
            digits = b"%08x" % (call.id & 0xFFFFFFFF)
            answer = b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (head, digits, len(body), body)
            watch = self._front.watch
            if watch is not None and watch.log is not None:
                watch.log.predicted((request, call.started, self.client, head, digits, len(answer), now))
            self._line.answered(answer, now)
            return
        self._note(call, "", 1)
        self._write(call, head, body)

    def replied(self, call: Call, reply: Reply, now: int) -> None:
        """The worker's answer, of any other kind: write it."""
        self.call = None
        if self._request.principal is not None:
            self._front.charge(self._request.principal, reply.rows, now)
        self._note(call, reply.code, reply.rows)
        if self._chunked is not None:
            self._end(reply.code, reply.body)
            return
        if reply.code == "deadline-exceeded":
            self._refused(call, reply.code)
            return
        head = cast("Entry", self._entry).heads.other(reply.status, reply.content_type, now)
        self._write(call, head, reply.body, reply.row_errors, reply.headers)

    def pieced(self, call: Call, piece: Piece, now: int) -> None:
        """A part of the worker's answer: write it, and ask for more unless the client is slow."""
        entry = cast("Entry", self._entry)
        head = b""
        if self._chunked is None:
            self._line.close = self._line.close or self._front.closing or self._request.version == "1.0"
            self._chunked = Chunked(piece.content_type, framed=self._request.version != "1.0")
            head = b"".join(
                [
                    entry.heads.other(200, piece.content_type, now),
                    b"%08x\r\n" % (call.id & 0xFFFFFFFF),
                    self._chunked.headers,
                    self._headers(),
                ]
            )
            entry.tally.add("salver_open_streams")
        data = head + self._chunked.piece(piece.body)
        if self._front.watch is not None:
            self._see(self._request, call).wrote(data)
        if self._line.write(data):
            entry.dispatcher.more(call)
        else:
            self._owed += 1

    def failed(self, call: Call, code: str) -> None:
        """No worker answered: say why."""
        self.call = None
        if self._chunked is not None:
            entry = cast("Entry", self._entry)
            entry.tally.refused(code)
            self._note(call, code)
            self._end(code, error_body(entry.problem(code), "native")[0])
            return
        self._refused(call, code)

    def _end(self, code: str, body: bytes) -> None:
        """The last part of an answer in pieces; `body` is the error of `code`, where there is one."""
        chunked, self._chunked, self._owed = cast("Chunked", self._chunked), None, 0
        cast("Entry", self._entry).tally.add("salver_open_streams", -1.0)
        self._finish(chunked.end(body if code else b""))

    def _refused(self, call: Call, code: str) -> None:
        entry = cast("Entry", self._entry)
        entry.tally.refused(code)
        self._note(call, code)
        form = cast("Target", self._request.target).form
        protocol = form.protocol
        known = entry.refusals.get((code, protocol))
        if known is None:
            problem = entry.problem(code)
            status = status_in((form.options or {}).get("dialect", ""), problem)
            known = entry.refusals[code, protocol] = (status, *error_body(problem, protocol))
        status, body, kind = known
        head = entry.heads.other(status, kind, time.monotonic_ns(), entry.dispatcher.retry_after(random()))
        self._write(call, head, body)

    def _write(self, call: Call, head: bytes, body: bytes, row_errors: int = 0, headers: str = "") -> None:
        """Write an answer that needs more than the plain headers."""
        self._line.close = self._line.close or self._front.closing
        parts = [
            b"%b%08x\r\ncontent-length: %d\r\n" % (head, call.id & 0xFFFFFFFF, len(body)),
            headers.encode("latin-1"),
            b"x-salver-row-errors: %d\r\n" % row_errors if row_errors else b"",
            self._headers(),
            body,
        ]
        self._finish(b"".join(parts))

    def _headers(self) -> bytes:
        """The last headers of an answer: what the request asked for, and whether the connection ends."""
        request = self._request
        named = b"x-request-id: " + request.request_id + b"\r\n" if request.request_id else b""
        return request.cors + named + (b"connection: close\r\n\r\n" if self._line.close else b"\r\n")

    def _write_error(self, problem: SalverError, protocol: str) -> None:
        asked = self._request
        head = asked.method == b"HEAD"
        self._note(None, problem.code)
        if problem.limit:
            self._front.bound(problem.limit)
        self._finish(error_page(problem, protocol, asked.cors, close=self._line.close, head=head))

    def _count_refusal(self, asked: Target | SalverError, problem: SalverError) -> None:
        """Count a request that may not be answered, where it asks for a prediction by its model."""
        predicts = isinstance(asked, Target) and asked.kind == PREDICT
        entry = self._front.serving.live.get(cast("Target", asked).model) if predicts else None
        if entry is None:
            self._front.count("salver_malformed_requests")
        else:
            entry.tally.refused(problem.code, problem.limit)

    # ── the access log and the traces ────────────────────────────────────────────────────────────────────────────

    def _see(self, request: Request, call: Call | None = None) -> Seen:
        """What is known of the open request; a plain prediction that goes well is told of without."""
        seen = self._seen
        if seen is None:
            seen = self._seen = Seen(
                request.method.decode("latin-1"),
                path_of(request.url),
                self.client.decode(),
                time.monotonic_ns() if call is None else call.started,
                request.request_id.decode("latin-1"),
                bytes_in=request.received,
            )
        if call is not None:
            seen.release, seen.call = cast("Entry", self._entry).loaded.release, call
        return seen

    def _note(self, call: Call | None, code: str, rows: int = 0) -> None:
        """Remember how the open request ends."""
        if self._front.watch is not None:
            seen = self._see(self._request, call)
            seen.code, seen.rows = code, rows

    def _hold(self, who: Principal | None) -> SalverError | None:
        """Count the connection for who asks; the refusal of one that would be too many, which is the last answer."""
        crowded = self._front.hold(self._line, who)
        if crowded is None:
            self._holder = who
        else:
            self._line.close = True
        return crowded

    def _finish(self, data: bytes) -> None:
        """Send an answer, or its last part; the connection may begin with the next request within."""
        if self._seen is not None:
            self._seen.wrote(data)
            self._tell()
        self._line.finish(data)

    def _tell(self) -> None:
        """Tell of the request that has ended."""
        seen, self._seen = self._seen, None
        if seen is not None and self._front.watch is not None:
            principal = self._request.principal
            seen.key = "" if principal is None else principal.name
            self._front.watch.end(seen, cast("Entry", self._entry).batch if seen.call is not None else None)
