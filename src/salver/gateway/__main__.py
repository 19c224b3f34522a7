"""`python -m salver.gateway --index 0 --listen-fd N --admin-fd N --control PATH --metrics-fds N,N`: serve HTTP.

With `--grpc-fd` it serves gRPC too. `--access` holds the terms of access as JSON, `--watch` what is told of requests;
`--usage` is the shared memory of quotas as DESCRIPTOR,WRITERS. What goes wrong is said on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable

import msgspec
import uvloop

from salver import metrics
from salver.access.decide import Access
from salver.access.terms import Grants, read_terms
from salver.access.usage import Usage
from salver.errors import SalverError
from salver.gateway.callers import Callers
from salver.gateway.connection import Connection
from salver.gateway.control import Control
from salver.gateway.front import Front
from salver.gateway.grpc.port import service_of
from salver.gateway.guard import guard_of
from salver.gateway.http2 import Connection as Http2
from salver.gateway.listener import Listener
from salver.gateway.pages import Pages
from salver.gateway.paths import ADMIN, public_paths
from salver.gateway.serving import Serving
from salver.gateway.shortage import Shortage
from salver.gateway.sweep import HASTE, Sweep
from salver.gateway.table import Hello
from salver.gateway.watch import Wanted, watch_of
from salver.limits import Limits
from salver.memory import HEAP
from salver.worker.lifeline import die_with_parent, go_on_unheard, say

CERTIFICATES = 1.0
"""Seconds between two looks at the files of the certificates."""
GATHER = 10.0
"""Seconds that models which answer wait for those that do not yet, before gRPC begins without them."""
CLOSE_TIME = 10.0 if sys.platform.startswith("linux") else 0.5
"""Seconds that the supervisor gets to close the ports; on Linux it does where all gateways end."""
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
        terms = read_terms(options.access)
        pages = Pages(self._serving, blocks, options.dialect, terms.keyed, limits)
        usage = Usage(options.usage[0], options.usage[1], options.index) if options.usage else None
        guarded = terms.authenticates or terms.of_admin().authenticates
        self._access = Access(terms, usage) if guarded else None
        served = (public_paths(options.dialect), ADMIN)
        self._sweep = Sweep(time.monotonic_ns)
        public, admin = (Front(self._serving, limits, block, paths, pages.answer, self._sweep) for paths in served)
        admin.access = self._access
        public.access = self._access if terms.authenticates else None
        for front, own in ((public, terms), (admin, terms.of_admin())):
            front.guard = guard_of(own, front.access)
            front.certificates = bool(own.tls.client_ca)
        callers = Callers(limits.key_connections)
        public.callers, admin.callers = (callers if front.access is not None else None for front in (public, admin))
        self._watch = watch_of(msgspec.json.decode(options.watch, type=Wanted), loop, block, self._say)
        public.watch = admin.watch = self._watch
        self._fronts = (public, admin)
        self._listeners = [
            Listener(descriptor, self._factory(front), tls, limits.header_time, self._say)
            for descriptor, front, tls in (
                (options.listen_fd, public, terms.tls),
                (options.admin_fd, admin, terms.admin_tls),
            )
        ]
        self._late: Listener | None = None
        services = []
        self._live_since = 0.0
        self._told = False  # that the late port can't be opened
        if options.grpc_fd >= 0:
            service = service_of(public)
            services.append(service)
            self._late = Listener(
                options.grpc_fd, lambda: Http2(public, service), terms.tls, limits.header_time, self._say, speaks="h2"
            )
            self._serving.opened = False
        shortage = Shortage(public, terms, services)
        hello = Hello(options.index, os.getpid())
        self._control = Control(options.control, hello, self._serving.apply, self._take, shortage.take)
        self._hurry = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to stop, then drain."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signum, self._signalled, signum)
        control = self._control.begin()
        for listener in self._listeners:
            await listener.open()
        self._step()
        self._look_at_certificates()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_AFTER)
        await self._stop.wait()
        await self._drain()
        control.cancel()
        if self._watch is not None:
            self._watch.close()

    def _factory(self, front: Front) -> Callable[[], Connection]:
        return lambda: Connection(front)

    def _take(self, grants: Grants) -> None:
        """Follow who may do what: nothing that was remembered of a caller holds any longer."""
        if self._access is None:
            return
        try:
            self._access.take(grants)
        except SalverError as problem:
            self._say(f"the keys are not taken, the last ones stay: {problem}")
        for front in self._fronts:
            front.heads.clear()

    def _effective(self, version: int, swap_ms: float) -> None:
        for front in self._fronts:
            front.heads.clear()  # a head may name no model, and so mean another one now
        self._control.acknowledge(version, swap_ms)
        self._open_late()

    def _open_late(self) -> None:
        """Begin with gRPC once the models answer: a proxy asks another server where it is refused, and only then."""
        serving, now = self._serving, self._loop.time()
        if self._late is None or not serving.live or serving.draining:
            return
        self._live_since = self._live_since or now
        if serving.models_ready or now - self._live_since > GATHER:
            listener, self._late = self._late, None
            self._listeners.append(listener)
            self._opening = self._loop.create_task(self._open(listener))

    async def _open(self, listener: Listener) -> None:
        try:
            await listener.open()
        except (OSError, SalverError) as problem:
            if not self._told:
                self._say(f"the gRPC port can't be opened, and is tried again until it can: {problem}")
            self._told = True
            self._listeners.remove(listener)
            self._late = listener
        else:
            self._serving.opened = True

    def _say(self, text: str) -> None:
        say("gateway", text, as_json=self._options.json_logs)

    def _signalled(self, signum: int) -> None:
        """SIGTERM grants load balancers the drain delay, however often it comes; SIGINT ends it."""
        if signum == signal.SIGINT:
            self._hurry.set()
        self._serving.draining = True
        self._stop.set()

    def _step(self) -> None:
        self._timer = self._loop.call_later(self._sweep.step(), self._step)
        HEAP.give_back()

    def _look_at_certificates(self) -> None:
        for listener in self._listeners:
            if listener.changed():
                self._reloading = self._loop.create_task(listener.reload())
        self._open_late()
        self._loop.call_later(CERTIFICATES, self._look_at_certificates)

    async def _drain(self) -> None:
        """Not ready, but still answering, for the delay; then no new connection; then wait for the last answer."""
        for front in self._fronts:
            front.closing = True
        try:
            async with asyncio.timeout(self._options.drain_delay):
                await self._hurry.wait()
        except TimeoutError:
            pass
        ends = self._loop.time() + self._options.drain_timeout
        await asyncio.gather(*(listener.close(CLOSE_TIME) for listener in self._listeners))
        for front in self._fronts:
            front.ending = True
        self._sweep.round = HASTE
        self._timer.cancel()
        self._step()
        while any(front.connections for front in self._fronts) and self._loop.time() < ends:
            await asyncio.sleep(0.02)


def _take_descriptors() -> None:
    """Take as many descriptors as the system allows: every connection needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS names more than it gives
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> int:
    """Run one gateway; returns its exit code."""
    parser = argparse.ArgumentParser(prog="salver.gateway", description=__doc__)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--admin-fd", type=int, required=True)
    parser.add_argument("--grpc-fd", type=int, default=-1)
    parser.add_argument("--control", required=True)
    parser.add_argument("--metrics-fds", type=lambda text: [int(fd) for fd in text.split(",")], required=True)
    parser.add_argument("--drain-delay", type=float, default=5.0)
    parser.add_argument("--drain-timeout", type=float, default=30.0)
    parser.add_argument("--limits", default="{}")
    parser.add_argument("--dialect", default="")
    parser.add_argument("--access", default="{}")
    parser.add_argument("--watch", default="{}")
    parser.add_argument("--json-logs", type=bool, default=False, help="1, or nothing for plain lines")
    parser.add_argument("--usage", type=lambda text: [int(part) for part in text.split(",") if part], default=[])
    options = parser.parse_args()
    die_with_parent()
    go_on_unheard()
    _take_descriptors()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until it serves, there is nothing to drain
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Gateway(options, runner.get_loop()).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
