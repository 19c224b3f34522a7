"""Who answers the calls of all connections: which methods there are, who may call them, and what is served."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from salver.access.principal import Principal
from salver.errors import SalverError, error
from salver.frames import Answers
from salver.gateway.answers import Clock
from salver.gateway.front import Front
from salver.gateway.grpc.heads import NOT_POST, Head, read_head
from salver.gateway.grpc.trailers import Names, of_problem
from salver.gateway.http2 import Connection
from salver.gateway.http2_frames import END_HEADERS, END_STREAM, HEADERS, PROTOCOL_ERROR, BrokenStream, frame
from salver.gateway.http2_headers import Headers
from salver.gateway.http2_sender import Stream
from salver.gateway.paths import check_scopes
from salver.gateway.seen import Seen, path_of
from salver.gateway.serving import Entry
from salver.gateway.watch import LEFT
from salver.limits import over

MOST_NAMES = 256
_BREAKS = {"headers": "headers-too-large", "slow-head": "slow-request"}
"""The codes of limits that end a connection; whatever else its peer does wrong is a `bad-request`."""


class Begin(Protocol):
    """Makes the stream of a new call."""

    def __call__(self, service: Service, line: Connection, number: int, head: Head) -> Stream:
        """The stream `number` of a connection."""
        ...


class Method(NamedTuple):
    """What a path stands for: the scope that its callers need, and what begins a call."""

    scope: str
    begin: Begin


class Service:
    """The gRPC port of one gateway.

    It needs no guard against pages of others: a browser asks before it sends what is of gRPC's content type, and that
    question is refused.
    """

    def __init__(self, front: Front, methods: Mapping[bytes, Method]) -> None:
        check_scopes((path.decode(), method.scope) for path, method in methods.items())
        self.front = front
        self.limits = front.limits
        self.timeout_ns = front.timeout_ns
        self._methods = methods
        self._clock = Clock()
        self._names: dict[str, Names] = {}

    def read(self, headers: Headers) -> Head:
        """What the headers of a call say."""
        return read_head(headers, self._methods, self.limits)

    def ends(self, head: Head) -> bool:
        """Whether these headers may stand behind the last message."""
        return head.ends

    def opened(self, line: Connection, number: int, head: Head) -> Stream | None:
        """Begin a call, or refuse it before its message has come."""
        if head.malformed:
            self.refused(line, head, "bad-request")
            raise BrokenStream(number, PROTOCOL_ERROR)
        if head.page:
            self.front.count("salver_malformed_requests")
            self.refused(line, head, "method-not-allowed" if head.page is NOT_POST else "unsupported-media-type")
            line.send(frame(HEADERS, END_HEADERS | END_STREAM, number, head.page))
            return None
        problem = head.problem
        if problem is None and self.front.access is not None:
            who = self.check(line, head, head.method.scope, "")
            problem = who if isinstance(who, SalverError) else self.front.hold(line, who)
        if problem is None and line.owed > self.limits.large_answers:
            words = "answers of this connection wait to be read"
            problem = over("large-answers", "overloaded", words, "open its windows")
        if problem is not None:
            self.front.count("salver_malformed_requests")
            self.bound(problem)
            self.refused(line, head, problem.code)
            line.refuse(number, of_problem(problem) + head.echo)
            callers = self.front.callers
            if problem.code == "too-many-connections" and callers is not None and line not in callers:
                line.dismiss()  # not where others call on it, behind a proxy
            return None
        made: Stream = head.method.begin(self, line, number, head)
        return made

    def check(self, line: Connection, head: Head, scope: str, model: str) -> Principal | SalverError | None:
        """Who calls, None where nobody is asked; or why not."""
        access = self.front.access
        if access is None:
            return None
        return access.check(head.credential, scope, model, time.time(), line.names)

    def find(self, model: str, version: str) -> Entry | SalverError:
        """The release that a name and a version mean, or the error that says why there is none."""
        serving = self.front.serving
        if not version:
            return serving.live.get(model) or serving.find(model, None)
        if not (version.isascii() and version.isdigit() and len(version) <= 12):
            return error("no-such-release", f"{model} has no version {version[:40]!r}", hint="versions are numbers")
        return serving.find(model, int(version))

    def names(self, release: str) -> Names:
        """What answers of a release say of themselves."""
        known = self._names.get(release)
        if known is None:
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            known = self._names[release] = Names(release, self._clock)
        return known

    def bound(self, problem: SalverError) -> None:
        """Count the limit that a call ran into, where it is refused for one."""
        if problem.limit:
            self.front.bound(problem.limit)

    # ── the access log and the traces ────────────────────────────────────────────────────────────────────────────

    def see(self, line: Connection, head: Head, size: int, now: int) -> Seen | None:
        """Begin to watch a call, or a message of one, of `size` bytes that came at `now`; None where nobody is told."""
        if self.front.watch is None:
            return None
        asked = head.request_id.decode("latin-1")
        return Seen("POST", path_of(head.path), line.client, now, asked, bytes_in=size)

    def tell(self, seen: Seen | None, code: str, batch: Answers | None = None) -> None:
        """What was watched has ended with this code, '' for none; a status that it has stays."""
        watch = self.front.watch
        if seen is None or watch is None:
            return
        seen.code = code
        if not seen.status and code != LEFT:
            seen.status = error(code, "").meaning.http if code else 200
        watch.end(seen, batch)

    def refused(self, line: Connection, head: Head, code: str, size: int = 0) -> None:
        """Tell of a call that was refused before its message was whole; `size` bytes had come."""
        self.tell(self.see(line, head, size, time.monotonic_ns()), code)

    def broken(self, line: Connection, limit: str) -> None:
        """Count and tell that a connection can't go on."""
        self.front.count("salver_malformed_requests")
        if limit:
            self.front.bound(limit)
        if self.front.watch is not None:
            self.tell(Seen("", "", line.client, time.monotonic_ns()), _BREAKS.get(limit, "bad-request"))
