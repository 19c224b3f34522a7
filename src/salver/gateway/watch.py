"""What is told of each request besides metrics: a line of the access log and a trace, where they are wanted.

A gateway that tells neither has no `Watch`, and its requests no `Seen`: that is all it costs then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated

from msgspec import Meta, Struct

from salver import metrics
from salver.frames import Answers
from salver.gateway.access_log import AccessLog, Losses
from salver.gateway.seen import Seen
from salver.gateway.tracing import Tracer

LEFT = "client-closed"
"""The code of a request whose caller left before its answer was whole."""


class Wanted(Struct, frozen=True):
    """What a server tells: the file of its access log or `-`, the OTLP endpoint of its traces, and their share."""

    access_log: str = ""
    traces: str = ""
    trace_sample: Annotated[float, Meta(ge=0, le=1)] = 0.01

    def __bool__(self) -> bool:
        return bool(self.access_log or self.traces)


class Watch:
    """Hears of each request that it has ended; the `tracer` itself, that one which it may follow goes to a worker.

    A plain prediction that no trace follows has no `Seen`: its line goes to the `log` itself.
    """

    def __init__(self, log: AccessLog | None, tracer: Tracer | None) -> None:
        self.log = log
        self.tracer = tracer

    def end(self, seen: Seen, batch: Answers | None) -> None:
        """Its answer has gone out, made by this model call where one is given, or there will be none."""
        now = time.monotonic_ns()
        if self.tracer is not None:
            self.tracer.end(seen, batch, now)
        if self.log is not None:
            self.log.tell(seen, now)

    def close(self) -> None:
        """Tell what is left."""
        if self.log is not None:
            self.log.close()
        if self.tracer is not None:
            self.tracer.close()


def watch_of(
    wanted: Wanted, loop: asyncio.AbstractEventLoop, block: metrics.Block, say: Callable[[str], None]
) -> Watch | None:
    """Who tells what is wanted, None where nothing is; lines that are lost are counted in `block`, and said."""
    if not wanted:
        return None
    losses = Losses(wanted.access_log, say, loop.call_later)

    def dropped(lines: int, why: str) -> None:
        block.cells[metrics.GATEWAY_AT["salver_access_log_dropped"]] += lines
        losses.count(lines, why)

    log = AccessLog(loop, wanted.access_log, dropped) if wanted.access_log else None
    return Watch(log, Tracer(wanted.traces, wanted.trace_sample) if wanted.traces else None)
