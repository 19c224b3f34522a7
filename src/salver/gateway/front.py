"""What all connections of one listener share: what is served, the limits, the known request lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from salver import metrics
from salver.access.decide import Access
from salver.access.principal import Principal
from salver.errors import SalverError, error
from salver.frames import Form
from salver.gateway.callers import Callers
from salver.gateway.guard import Guard
from salver.gateway.paths import PREDICT, Paths, Target, check_scopes, resolve
from salver.gateway.request import Request
from salver.gateway.serving import Serving
from salver.gateway.sweep import Sweep, Timed
from salver.gateway.watch import Watch
from salver.limits import Limits
from salver.protocols.media import negotiate

MAX_PATHS = 4096
MAX_HEADS = 1024
MAX_HEAD = 2048
MAX_KEY = 512
"""Bytes of what a request says that are worth remembering; more are read anew each time."""
HEAD_END = b"\r\n\r\n"


class Front:
    """What all connections of one listener share."""

    def __init__(
        self,
        serving: Serving,
        limits: Limits,
        block: metrics.Block,
        paths: Paths,
        pages: Callable[[Target, Front, Request], bytes],
        sweep: Sweep,
    ) -> None:
        check_scopes((path.pattern.pattern, path.scope) for path in paths)
        self.serving = serving
        self.limits = limits
        self.paths = paths
        self.pages = pages
        self.cells = block.cells
        self.connections: set[Timed] = set()
        self.sweep = sweep
        self.targets: dict[tuple[bytes, bytes], Target] = {}
        self.forms: dict[tuple[Any, ...], Form] = {}
        self.heads: dict[bytes, Request] = {}
        self.timeout_ns = int(limits.timeout * 1e9)
        self.shortest_ns = int(limits.shortest * 1e9)
        self.closing = False  # every answer ends its connection
        self.ending = False  # idle connections are closed
        self.requests = 0
        self.guard: Guard | None = None  # what is asked of each request, None for nothing
        self.access: Access | None = None  # who may ask what, None where everybody may
        self.watch: Watch | None = None  # who writes the access log and the traces, None where nobody does
        self.callers: Callers | None = None  # whose connections are open, None where nobody is asked who they are
        self.certificates = False  # callers may be known by the certificate of their connection

    def target(self, method: bytes, url: bytes) -> Target | SalverError:
        """What a request line asks for; found lines are remembered."""
        found = self.targets.get((method, url))
        if found is not None:
            return found
        try:
            resolved = resolve(method.decode("ascii"), url.decode("ascii"), self.paths)
        except UnicodeDecodeError:
            return error("bad-request", "the request line holds bytes that are not ASCII", hint="percent-encode them")
        if isinstance(resolved, Target) and len(url) <= MAX_KEY:
            if len(self.targets) >= MAX_PATHS:
                self.targets.clear()
            self.targets[method, url] = resolved
        return resolved

    def asked(self, request: Request) -> Target | SalverError:
        """What a request asks for, its model named by a header where the path names none."""
        found = self.targets.get((request.method, request.url)) or self.target(request.method, request.url)
        if isinstance(found, Target) and not found.model and found.kind == PREDICT:
            return self.serving.named(found, request.model, telling=self.access is None)
        return found

    def form(self, target: Target, request: Request) -> Form | SalverError:
        """How the request's body is read and its answer written; the same headers give the same object."""
        path = target.form
        options = tuple(path.options.items()) if path.options else ()
        headers = (request.content_type, request.accept, request.header_length)
        key = (path.protocol, options, *headers)
        found = self.forms.get(key)
        if found is None:
            made = negotiate(path, *(value.decode("latin-1") for value in headers))
            if isinstance(made, SalverError):
                return made
            found = path if made == path else made
            if sum(map(len, headers)) > MAX_KEY:
                return found
            if len(self.forms) >= MAX_PATHS:
                self.forms.clear()
            self.forms[key] = found
        return found

    def charge(self, principal: Principal, rows: int, now: int) -> None:
        """Charge the rows of an answer to whoever asked; `now` is in monotonic nanoseconds."""
        if self.access is not None:
            self.access.answered(principal, rows, now * 1e-9)

    def enter(self, connection: Timed) -> bool:
        """Count a new connection; False where there are too many."""
        if len(self.connections) >= self.limits.connections:
            self.bound("connections")
            return False
        self.connections.add(connection)
        self.sweep.watch(connection, time.monotonic_ns() + self.shortest_ns)
        self.count("salver_connections")
        self.count("salver_accepted_connections")
        return True

    def leave(self, connection: Timed) -> None:
        """A connection is gone."""
        if connection in self.connections:
            self.connections.remove(connection)
            self.sweep.forget(connection)
            self.count("salver_connections", -1.0)
        if self.callers is not None:
            self.callers.free(connection)

    def hold(self, connection: object, who: Principal | None) -> SalverError | None:
        """Count a connection for who asks on it; the refusal of one that would be too many, which is to be closed."""
        return self.callers.hold(connection, who) if self.callers is not None and who is not None else None

    def learn(self, data: bytes, request: Request) -> None:
        """Remember what a head means, so that the same bytes need no parsing again.

        Only for a request that came whole in one piece, is framed by its content-length, keeps its connection and
        has nothing of its own in its head.
        """
        end = data.find(HEAD_END)
        whole = request.size == request.length == len(data) - end - 4 and not request.chunks
        if self.certificates or not whole or end > MAX_HEAD:
            return
        if request.request_id or request.traceparent or request.expect or request.decompressor is not None:
            return
        if len(self.heads) >= MAX_HEADS:
            self.heads.clear()
        request.body = b""
        self.heads[data[:end]] = request

    def count(self, name: str, amount: float = 1.0) -> None:
        """Add to one of the gateway's own metrics."""
        self.cells[metrics.GATEWAY_AT[name]] += amount

    def bound(self, limit: str) -> None:
        """Count a request or connection that ran into a limit, one of `metrics.LIMITS`."""
        self.cells[metrics.GATEWAY_AT["salver_limit_hits"] + metrics.LIMITS.index(limit)] += 1.0
