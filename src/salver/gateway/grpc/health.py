"""The standard health service, grpc.health.v1.Health: of the server, and of each model by its name."""

from __future__ import annotations

import asyncio
from typing import Final

from salver.errors import SalverError
from salver.gateway.grpc.calls import Unary
from salver.gateway.grpc.heads import Head
from salver.gateway.grpc.methods import SERVICE
from salver.gateway.grpc.service import Method, Service
from salver.gateway.grpc.trailers import OK
from salver.gateway.http2 import Connection
from salver.gateway.watch import LEFT
from salver.protocols import protobuf

HEALTH: Final = "grpc.health.v1.Health"
SERVING: Final = 1
NOT_SERVING: Final = 2
SERVICE_UNKNOWN: Final = 3
LOOK: Final = 0.1
"""Seconds between two looks at what those who watch are to hear."""


def methods() -> dict[bytes, Method]:
    """Both methods by their paths; the name of a model is known only to who may read its metadata."""
    watches = Watches()

    def begin(service: Service, line: Connection, number: int, head: Head) -> HealthWatch:
        return HealthWatch(service, line, number, head, watches)

    return {f"/{HEALTH}/Check".encode(): Method("health", Check), f"/{HEALTH}/Watch".encode(): Method("health", begin)}


def status(service: Service, name: str) -> int:
    """Whether the server (name '' or the inference service) or a model can predict."""
    serving = service.front.serving
    if name in ("", SERVICE):
        return SERVING if serving.ready else NOT_SERVING
    if name not in serving.table.routed:
        return SERVICE_UNKNOWN
    return SERVING if serving.model_ready(name) and not serving.draining else NOT_SERVING


class _Asking(Unary):
    """A call about one service."""

    __slots__ = ()

    def asked(self, message: bytes, now: int) -> None:
        """Find out which, and whether the caller may know."""
        self.seen = self.service.see(self.line, self.head, len(message), now)
        try:
            name = protobuf.text(dict(protobuf.fields(message)).get(10, memoryview(b"")))
        except protobuf.Malformed as problem:
            self.refuse("bad-protocol-body", f"the message can't be read: {problem}")
            return
        if name not in ("", SERVICE):
            who = self.service.check(self.line, self.head, "metadata", name)
            if isinstance(who, SalverError):
                self.refuse(who.code, str(who))
                return
            if who is not None and self.seen is not None:
                self.seen.key = who.name
        self.about(name)

    def about(self, name: str) -> None:
        """Say what is known of it."""
        raise NotImplementedError


class Check(_Asking):
    """Says once how a service is."""

    __slots__ = ()

    def about(self, name: str) -> None:
        """Say what is known of it."""
        found = status(self.service, name)
        if found == SERVICE_UNKNOWN:
            self.refuse("no-such-model", f"no model named {name[:100]!r} is served here")
            return
        answer = protobuf.integer(1, found)
        if self.seen is not None:
            self.seen.bytes_out = len(answer)
            self.tell("")
        self.line.answer(self, answer, OK + self.head.echo)


class HealthWatch(_Asking):
    """Says how a service is, and again whenever that changes."""

    __slots__ = ("_ends", "_found", "_said", "_watches", "name")

    def __init__(self, service: Service, line: Connection, number: int, head: Head, watches: Watches) -> None:
        super().__init__(service, line, number, head)
        self._watches = watches
        self._ends = line.now + head.deadline if head.deadline else 0
        self._found = 0
        self._said = 0
        self.name = ""

    def about(self, name: str) -> None:
        """Say what is known of it, from now on."""
        self.name = name
        self._watches.add(self)

    def say(self, found: int) -> None:
        """This is its status now."""
        self._found = found
        self.caught_up()

    def caught_up(self) -> None:
        """Say what is new, once what was said before has gone out."""
        if self._found == self._said or self.pending or self.trailer is not None:
            return
        self._said = self._found
        answer = protobuf.integer(1, self._found)
        if self.seen is not None:
            self.seen.status = 200
            self.seen.bytes_out += len(answer)
        self.line.message(self, answer)

    def refuse(self, code: str, words: str) -> None:
        """End the call with an error."""
        self._watches.discard(self)
        super().refuse(code, words)

    def abandon(self) -> None:
        """Nobody hears any more."""
        self._watches.discard(self)
        if self.seen is not None:
            self.tell(LEFT)

    def is_late(self, now: int) -> bool:
        """Whether the message comes too slowly, or the call's own deadline has passed."""
        return super().is_late(now) or bool(self._ends and now > self._ends and self.trailer is None)

    def refuse_late(self) -> None:
        """Say so."""
        self.refuse("deadline-exceeded", "the deadline of the call has passed")

    def leave(self) -> None:
        """The server is going: this call would not end by itself."""
        if self.trailer is None:
            self.refuse("draining", "this server is stopping")


class Watches:
    """The open Watches of one port: one look at what is served, now and then, tells all whom it concerns."""

    __slots__ = ("_known", "_looking", "_open")

    def __init__(self) -> None:
        self._open: dict[str, set[HealthWatch]] = {}
        self._known: dict[str, int] = {}  # what is served and its status, at the last look
        self._looking = False

    def add(self, watch: HealthWatch) -> None:
        """Tell one what is known, and whatever is new until it is discarded."""
        self._open.setdefault(watch.name, set()).add(watch)
        self._look(watch.service)
        watch.say(self._known.get(watch.name, SERVICE_UNKNOWN))
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(LOOK, self._go_on, watch.service)

    def discard(self, watch: HealthWatch) -> None:
        """Tell one no more."""
        same = self._open.get(watch.name)
        if same is not None:
            same.discard(watch)
            if not same:
                del self._open[watch.name]

    def _go_on(self, service: Service) -> None:
        self._looking = bool(self._open)
        if self._looking:
            self._look(service)
            asyncio.get_running_loop().call_later(LOOK, self._go_on, service)

    def _look(self, service: Service) -> None:
        names = ("", SERVICE, *service.front.serving.table.routed)
        known = {name: status(service, name) for name in names}
        changed = {name for name, _ in known.items() ^ self._known.items()}
        self._known = known
        for name in changed & self._open.keys():
            for watch in list(self._open[name]):
                watch.say(known.get(name, SERVICE_UNKNOWN))
