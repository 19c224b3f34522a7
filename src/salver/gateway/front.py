"""What all connections of one listener share: what is served, the limits, the known request lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from salver import metrics
from salver.errors import SalverError, error
from salver.gateway.limits import Limits
from salver.gateway.paths import Paths, Target, resolve
from salver.gateway.request import Request
from salver.gateway.serving import Serving

MAX_PATHS = 4096
MAX_HEADS = 1024
MAX_HEAD = 2048
HEAD_END = b"\r\n\r\n"


class Timed(Protocol):
    """A connection, as far as the sweep of deadlines needs to know it."""

    def check_time(self, now: int) -> None:
        """Cut the connection off where it is past one of its deadlines; `now` is in monotonic nanoseconds."""
        ...


class Front:
    """What all connections of one listener share."""

    def __init__(
        self,
        serving: Serving,
        limits: Limits,
        block: metrics.Block,
        paths: Paths,
        pages: Callable[[Target, Front], bytes],
    ) -> None:
        self.serving = serving
        self.limits = limits
        self.paths = paths
        self.pages = pages
        self.cells = block.cells
        self.connections: set[Timed] = set()
        self.targets: dict[tuple[bytes, bytes], Target] = {}
        self.heads: dict[bytes, Request] = {}
        self.timeout_ns = int(limits.timeout * 1e9)
        self.closing = False  # every answer ends its connection
        self.ending = False  # idle connections are closed
        self.requests = 0

    def target(self, method: bytes, url: bytes) -> Target | SalverError:
        """What a request line asks for; found lines are remembered."""
        found = self.targets.get((method, url))
        if found is not None:
            return found
        try:
            resolved = resolve(method.decode("ascii"), url.decode("ascii"), self.paths)
        except UnicodeDecodeError:
            return error("bad-request", "the request line holds bytes that are not ASCII", hint="percent-encode them")
        if isinstance(resolved, Target):
            if len(self.targets) >= MAX_PATHS:
                self.targets.clear()
            self.targets[method, url] = resolved
        return resolved

    def learn(self, data: bytes, request: Request) -> None:
        """Remember what a head means, so that the same bytes need no parsing again.

        Only for a request that came whole in one piece, is framed by its content-length, keeps its connection and
        has nothing of its own in its head.
        """
        end = data.find(HEAD_END)
        whole = request.size == request.length == len(data) - end - 4 and not request.chunks
        if not whole or end > MAX_HEAD or request.request_id or request.expect:
            return
        if len(self.heads) >= MAX_HEADS:
            self.heads.clear()
        request.body = b""
        self.heads[data[:end]] = request

    def count(self, name: str, amount: float = 1.0) -> None:
        """Add to one of the gateway's own metrics."""
        self.cells[metrics.GATEWAY_AT[name]] += amount

    def sweep(self, now: int) -> None:
        """Cut off every connection that is past one of its deadlines; `now` is in monotonic nanoseconds."""
        for connection in list(self.connections):
            connection.check_time(now)
