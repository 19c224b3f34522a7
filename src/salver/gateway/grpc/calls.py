"""Calls of one message and one answer: predictions, and what is answered at once.

Of a prediction only the model's name, its version and few parameters are read here; the worker reads the rest and
writes the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from salver.access.principal import Principal
from salver.dispatch.call import Call
from salver.errors import SalverError, error
from salver.frames import Answers, Form, Piece, Reply
from salver.gateway.grpc.heads import Head
from salver.gateway.grpc.messages import Messages
from salver.gateway.grpc.requests import NONE, Wishes, read
from salver.gateway.grpc.service import Service
from salver.gateway.grpc.trailers import OK, id_of, refused
from salver.gateway.http2 import Connection
from salver.gateway.http2_frames import PROTOCOL_ERROR, BrokenStream
from salver.gateway.http2_sender import Stream
from salver.gateway.seen import Seen
from salver.gateway.serving import Entry
from salver.gateway.watch import LEFT
from salver.protocols import protobuf
from salver.protocols.refusals import PROBLEM

FORM: Final = Form("v2-grpc")


class Unary(Stream):
    """A call of one message; `seen` is what is told of it since that was whole, where somebody is told."""

    __slots__ = ("came", "head", "line", "messages", "seen", "service", "whole")
    line: Connection

    def __init__(self, service: Service, line: Connection, number: int, head: Head) -> None:
        super().__init__(line, number, line.now)
        self.line = line
        self.service = service
        self.head = head
        self.came = 0
        self.messages: Messages | None = None
        self.whole: bytes | None = None
        self.seen: Seen | None = None

    def received(self, data: bytes, now: int) -> None:
        """Take a part of the message; most come whole at once."""
        head = self.head
        if self.ended and not self.came and not head.gzip:
            size = len(data)
            if size > 4 and not data[0] and int.from_bytes(data[1:5], "big") == size - 5 and head.length in (-1, size):
                self.asked(data[5:], now)
                return
        try:
            self._collect(data, now)
        except SalverError as problem:
            self.service.bound(problem)
            self.refuse(problem.code, str(problem))

    def _collect(self, data: bytes, now: int) -> None:
        if self.messages is None:
            self.messages = Messages(self.service.limits, gzip=self.head.gzip)
        self.came += len(data)
        for message in self.messages.feed(data):
            if self.whole is not None:
                raise error("bad-request", "the call has more than one message")
            self.whole = message
        if self.whole is not None and len(self.messages):
            raise error("bad-request", "the call has more than one message")
        if not self.ended:
            return
        if self.head.length not in (-1, self.came):
            raise BrokenStream(self.number, PROTOCOL_ERROR)
        if self.whole is None:
            raise error("bad-request", "the call ends without a whole message")
        if self.reserved:
            self.line.release(self)
        message, self.whole, self.messages = self.whole, None, None
        self.asked(message, now)

    def missing(self) -> int:
        """How many bytes of the message must still come."""
        return self.messages.missing if self.messages is not None else 0

    def is_late(self, now: int) -> bool:
        """Whether the message comes too slowly."""
        limits, age = self.service.limits, (now - self.since) * 1e-9
        return not self.ended and age > limits.body_time_of(self.came)

    def refuse_late(self) -> None:
        """Say so."""
        self.service.front.bound("slow-body")
        self.refuse("slow-request", f"no whole message within {self.service.limits.body_time:g} s, or too slowly")

    def asked(self, message: bytes, now: int) -> None:
        """Answer the message."""
        raise NotImplementedError

    def refuse(self, code: str, words: str) -> None:
        """End the call with an error."""
        self.tell(code)
        self.line.end(self, refused(code, words) + self.head.echo)

    def tell(self, code: str, batch: Answers | None = None) -> None:
        """The call ends with this code, '' for none: tell of it."""
        seen, self.seen = self.seen, None
        if seen is not None:
            self.service.tell(seen, code, batch)
        elif code:
            self.service.refused(self.line, self.head, code, self.came)


def page(answer: Callable[[Service, bytes, Principal | None], bytes]) -> type[Unary]:
    """A call that `answer` answers at once; it may raise a `SalverError` or `Malformed`."""

    class Page(Unary):
        """Such a call."""

        __slots__ = ()

        def asked(self, message: bytes, now: int) -> None:
            """Answer the message."""
            service = self.service
            self.seen = service.see(self.line, self.head, len(message), now)
            try:
                who = service.check(self.line, self.head, self.head.method.scope, "")
                if isinstance(who, SalverError):
                    raise who
                if who is not None and self.seen is not None:
                    self.seen.key = who.name
                found = answer(service, message, who)
            except SalverError as problem:
                self.refuse(problem.code, str(problem))
            except protobuf.Malformed as problem:
                self.refuse("bad-protocol-body", f"the message can't be read: {problem}")
            else:
                if self.seen is not None:
                    self.seen.bytes_out = len(found)
                    self.tell("")
                self.line.answer(self, found, OK + self.head.echo)

    return Page


class Infer(Unary):
    """A ModelInfer; `call` is its way to a worker."""

    __slots__ = ("call", "entry", "principal")

    def __init__(self, service: Service, line: Connection, number: int, head: Head) -> None:
        super().__init__(service, line, number, head)
        self.call: Call | None = None
        self.entry: Entry
        self.principal: Principal | None = None

    def asked(self, message: bytes, now: int) -> None:
        """Send the message on its way to a worker."""
        head, service = self.head, self.service
        try:
            asked = Asked(message, now + (head.timeout or service.timeout_ns), now)
            if service.front.watch is not None:
                asked.seen = self.seen = service.see(self.line, head, len(message), now)
            self.call, self.entry, self.principal = submit(self, self, asked, FORM)
        except SalverError as problem:
            self.refuse(problem.code, str(problem))

    def abandon(self) -> None:
        """Nobody waits any more."""
        call, self.call = self.call, None
        if call is not None:
            self.entry.dispatcher.cancel(call)
            self.entry.tally.add("salver_abandoned")
            self.tell(LEFT)

    def predicted(self, call: Call, head: bytes, body: bytes, now: int) -> None:
        """The worker's answer to one row."""
        del head
        if self.principal is not None:
            self.service.front.charge(self.principal, 1, now)
        self._succeed(call, body, now, 1)

    def _succeed(self, call: Call, body: bytes, now: int, rows: int) -> None:
        self.call = None
        named = self.service.names(self.entry.loaded.release).ok(now)
        trailer = b"%b%08x%b" % (named, call.id & 0xFFFFFFFF, self.head.echo)
        if self.seen is not None:
            self.seen.prediction_id, self.seen.rows, self.seen.bytes_out = id_of(named, call.id), rows, len(body)
            self.tell("", self.entry.batch)
        self.line.answer(self, body, trailer)

    def replied(self, call: Call, reply: Reply, now: int) -> None:
        """The worker's answer, of any other kind."""
        if self.principal is not None:
            self.service.front.charge(self.principal, reply.rows, now)
        if reply.status == 200:
            self._succeed(call, reply.body, now, reply.rows)
        elif reply.code == "deadline-exceeded":
            self.failed(call, reply.code)
        else:
            if self.seen is not None:
                self.seen.status, self.seen.rows = reply.status, reply.rows
            self._fail(call, reply.code, words_of(reply), self.entry.batch)

    def pieced(self, call: Call, piece: Piece, now: int) -> None:
        """A part of an answer, which was not asked for."""
        del piece, now
        self.entry.dispatcher.more(call)

    def failed(self, call: Call, code: str) -> None:
        """No worker answered: say why."""
        self.entry.tally.refused(code)
        self._fail(call, code, str(self.entry.problem(code)))

    def _fail(self, call: Call, code: str, words: str, batch: Answers | None = None) -> None:
        self.call = None
        named = self.service.names(self.entry.loaded.release).other(time.monotonic_ns())
        trailer = b"%b%b%08x%b" % (refused(code, words), named, call.id & 0xFFFFFFFF, self.head.echo)
        if self.seen is not None:
            self.seen.prediction_id = id_of(named, call.id)
            self.tell(code, batch)
        self.line.end(self, trailer)


class Asked:
    """A prediction that is asked for: the message, when it is due and when it came, in monotonic nanoseconds.

    `wishes` are what its message asks of the gateway, `seen` is what is told of it, where somebody is told.
    """

    __slots__ = ("deadline", "message", "now", "seen", "wishes")

    def __init__(self, message: bytes, deadline: int, now: int) -> None:
        self.message = message
        self.deadline = deadline
        self.now = now
        self.wishes = NONE
        self.seen: Seen | None = None

    def heed(self, wishes: Wishes) -> None:
        """Take what the message wishes; it may be due earlier than its call says, never later."""
        self.wishes = wishes
        if wishes.timeout:
            self.deadline = min(self.deadline, self.now + wishes.timeout)


def words_of(reply: Reply) -> str:
    """What a refusal says, whoever wrote it."""
    if reply.content_type != PROBLEM:
        return reply.body.decode("utf-8", "replace")
    said = msgspec.json.decode(reply.body)
    return f"{said['detail']} · hint: {said['hint']}" if said.get("hint") else str(said["detail"])


class Caller(Protocol):
    """A stream that asks for predictions."""

    service: Service
    line: Connection
    head: Head


def submit(caller: Caller, owner: object, asked: Asked, form: Form) -> tuple[Call, Entry, Principal | None]:
    """Hand a message to its release's dispatcher, its answer to go to `owner`; raises the error that refuses it."""
    service, message = caller.service, asked.message
    front = service.front
    model, version, wishes = read(message)
    if wishes is not NONE:
        asked.heed(wishes)
    who: Principal | None = None
    if front.access is not None:
        known = service.check(caller.line, caller.head, "predict", model)
        if isinstance(known, SalverError):
            _count_refusal(service, model, known)
            raise known
        who = known
        if who is not None and asked.seen is not None:
            asked.seen.key = who.name
    entry = service.find(model, version)
    if isinstance(entry, SalverError):
        front.count("salver_malformed_requests")
        raise entry
    if front.access is not None and who is not None:
        over = front.access.use(who, len(message), time.time(), asked.now * 1e-9)
        if over is not None:
            entry.tally.refused(over.code)
            raise over
    front.requests += 1
    call = Call(front.requests, form, asked.deadline, message, owner, asked.now)
    if who is not None:
        call.key, call.priority = who.name, who.priority
    if front.watch is not None and asked.seen is not None:
        asked.seen.release, asked.seen.call = entry.loaded.release, call
        tracer, context = front.watch.tracer, caller.head.context
        if tracer is not None and tracer.follows(context[0]):
            tracer.begin(asked.seen, call, *context)
    code = entry.dispatcher.submit(call)
    if code:
        entry.tally.refused(code)
        raise entry.problem(code)
    return call, entry, who


def _count_refusal(service: Service, model: str, problem: SalverError) -> None:
    """Count a message that its caller may not ask for."""
    entry = service.front.serving.live.get(model)
    if entry is None:
        service.front.count("salver_malformed_requests")
    else:
        service.bound(problem)
        entry.tally.refused(problem.code, problem.limit)
