"""`python -m salver.gateway --index 0 --listen-fd N --admin-fd N --control PATH --metrics-fds N,N`: serve HTTP."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import msgspec
import uvloop

from salver import metrics
from salver.gateway.connection import Connection
from salver.gateway.control import Control
from salver.gateway.front import Front
from salver.gateway.limits import Limits
from salver.gateway.pages import Pages
from salver.gateway.paths import ADMIN, PUBLIC
from salver.gateway.serving import Serving
from salver.gateway.table import Hello
from salver.worker.lifeline import die_with_parent

SWEEP = 1.0
BACKLOG = 1024
GC_AFTER = 20_000  # the hot path makes no cycles


class Gateway:
    """One gateway process: its listeners, its view of what is live, and its orderly end."""

    def __init__(self, options: argparse.Namespace, loop: asyncio.AbstractEventLoop) -> None:
        self._options = options
        self._loop = loop
        limits = msgspec.json.decode(options.limits, type=Limits)
        blocks = [metrics.Block(fd) for fd in options.metrics_fds]
        block = blocks[options.index]
        block.cells[metrics.GATEWAY_AT["salver_connections"]] = 0.0
        self._serving = Serving(loop, limits, block, self._effective)
        pages = Pages(self._serving, blocks)
        self._control = Control(options.control, Hello(options.index, os.getpid()), self._serving.apply)
        self._fronts = {
            options.listen_fd: Front(self._serving, limits, block, PUBLIC, pages.answer),
            options.admin_fd: Front(self._serving, limits, block, ADMIN, pages.answer),
        }
        self._hurry = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to stop, then drain."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signum, self._signalled, signum)
        control = self._loop.create_task(self._control.run())
        servers = []
        for descriptor, front in self._fronts.items():
            listener = socket.socket(fileno=descriptor)
            servers.append(await self._loop.create_server(self._factory(front), sock=listener, backlog=BACKLOG))
        self._loop.call_later(SWEEP, self._sweep)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_AFTER)
        await self._stop.wait()
        await self._drain(servers)
        control.cancel()

    def _factory(self, front: Front) -> Callable[[], Connection]:
        return lambda: Connection(front)

    def _effective(self, version: int, swap_ms: float) -> None:
        self._control.acknowledge(version, swap_ms)

    def _signalled(self, signum: int) -> None:
        """SIGTERM grants load balancers the drain delay, however often it comes; SIGINT ends it."""
        if signum == signal.SIGINT:
            self._hurry.set()
        self._serving.draining = True
        self._stop.set()

    def _sweep(self) -> None:
        now = time.monotonic_ns()
        for front in self._fronts.values():
            front.sweep(now)
        self._loop.call_later(SWEEP, self._sweep)

    async def _drain(self, servers: list[asyncio.Server]) -> None:
        """Not ready, but still answering, for the delay; then no new connection; then wait for the last answer."""
        for front in self._fronts.values():
            front.closing = True
        try:
            async with asyncio.timeout(self._options.drain_delay):
                await self._hurry.wait()
        except TimeoutError:
            pass
        for server in servers:
            server.close()
        for front in self._fronts.values():
            front.ending = True
        ends = self._loop.time() + self._options.drain_timeout
        while self._loop.time() < ends:
            for front in self._fronts.values():
                front.sweep(time.monotonic_ns())
            if not any(front.connections for front in self._fronts.values()):
                return
            await asyncio.sleep(0.02)


def main() -> int:
    """Run one gateway; returns its exit code."""
    parser = argparse.ArgumentParser(prog="salver.gateway", description=__doc__)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--admin-fd", type=int, required=True)
    parser.add_argument("--control", required=True)
    parser.add_argument("--metrics-fds", type=lambda text: [int(fd) for fd in text.split(",")], required=True)
    parser.add_argument("--drain-delay", type=float, default=5.0)
    parser.add_argument("--drain-timeout", type=float, default=30.0)
    parser.add_argument("--limits", default="{}")
    options = parser.parse_args()
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until it serves, there is nothing to drain
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Gateway(options, runner.get_loop()).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
