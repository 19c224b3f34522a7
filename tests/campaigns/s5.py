"""Thousands of connections that send or read a byte now and then: the others hardly notice, and each is cut in time."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from statistics import median

from swagger_ui_bundle import swagger_ui_path

from tests.campaigns import stage, vitals
from tests.campaigns.arrivals import Crowd, Tally, p99
from tests.campaigns.checks import Verdict
from tests.campaigns.trickle import KINDS, Order, attack
from tests.integration.nginx import Nginx
from tests.integration.oracle import Oracle
from tests.integration.server import Server
from tests.ports import free_port

LINES = 8
RATIO = 1.2
SLACK = 2.0
"""Seconds that a cut may be late: deadlines are looked at four times a second, and clients notice in their turn."""
SETTLE = 1.0
PHASES = ("with", "beside", "without")
"""Windows with slow clients on this server, on an nginx on the same core, and on none.

What they do costs this machine something whoever serves them, and nginx next to nothing: so much is not ours.
"""
BESIDE = """
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    client_header_timeout 10s;
    client_body_timeout 60s;
    client_max_body_size 64m;
    sendfile off;
    location /docs/ {{ alias {pages}/; }}
    location / {{ return 200; }}
  }}
"""
"""It cuts heads as this server does, and has the same page; bodies it only drops."""


class Window:
    """Good requests of some seconds, and what the gateways did meanwhile."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.cpu = 0.0  # share of a core
        self.rss = 0  # KiB at its end


async def scenario(
    server: Server,
    other: Nginx,
    options: argparse.Namespace,
    windows: dict[str, list[Window]],
    tell: Callable[[Order | None], str],
) -> None:
    """Windows of all phases by turns; then slow clients until every one is cut."""
    crowd = Crowd(server.port, random.Random(options.seed))
    await crowd.prepare(LINES)
    await crowd.offer(options.rate, options.seconds / 2, Tally().take)
    for _ in range(options.rounds):
        for phase, port in zip(PHASES, (server.port, other.port, 0), strict=True):
            await asyncio.to_thread(tell, Order(port))
            await asyncio.sleep(SETTLE)
            window = await measure(server, crowd, options)
            windows[phase].append(window)
            figure = stage.milliseconds(p99(window.tally.answered))
            print(f"  {phase:8} p99 {figure}, gateway {window.cpu:.1%}, {window.rss / 1024:.0f} MiB", flush=True)
    await asyncio.to_thread(tell, Order(server.port, renew=False))
    await asyncio.to_thread(tell, None)
    await crowd.quiet()
    crowd.close()


async def measure(server: Server, crowd: Crowd, options: argparse.Namespace) -> Window:
    """Good requests at a steady rate, whatever comes back."""
    window, gateways = Window(), server.gateways()
    before, began = vitals.of(gateways), time.monotonic()
    await crowd.offer(options.rate, options.seconds, window.tally.take)
    after = vitals.of(gateways)
    window.cpu = (after.cpu - before.cpu) / (time.monotonic() - began) / 1e3
    window.rss = after.rss
    await crowd.quiet()
    return window


def judge(windows: dict[str, list[Window]], cut: dict[str, list[float]], verdict: Verdict) -> None:
    """Set what good and slow clients saw beside what is promised."""
    middle = {}
    for phase, found in windows.items():
        for number, window in enumerate(found, 1):
            window.tally.must(f"{phase} slow clients, {number}", verdict)
        times = [p99(window.tally.answered) for window in found]
        middle[phase] = median(times)
        answered = sum(window.tally.answered.count for window in found)
        said = f"{answered:,} answered, p99 {', '.join(map(stage.milliseconds, times))}"
        verdict.says(f"{phase} slow clients", said)
        cpu, rss = median(window.cpu for window in found), max(window.rss for window in found)
        verdict.says(f"the gateway {phase} slow clients", f"{cpu:.1%} of a core, {rss / 1024:.0f} MiB")
    for phase in PHASES[1:]:
        ratio = middle["with"] / middle[phase]
        figure = f"{stage.milliseconds(middle['with'])} to {stage.milliseconds(middle[phase])}: {ratio:.2f}"
        verdict.aims(f"p99 with slow clients to {phase}", figure, f"<= {RATIO}", ratio <= RATIO)
    for kind, (_, promised) in KINDS.items():
        longest = max(cut[kind], default=float("inf"))
        typical = median(cut[kind] or [float("inf")])
        figure = f"{len(cut[kind]):,}, mostly after {typical:.2f} s, the last after {longest:.2f} s"
        kept = longest <= promised + SLACK
        verdict.must(f"slow clients cut, {kind}", figure, f"<= {promised:g} s + {SLACK:g}", kept)


def apart() -> tuple[set[int], set[int]]:
    """The cores of the servers and those of their clients, which would be on other machines."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others or [first])


def main(argv: list[str]) -> int:
    """Run it; 1 if a good request was hurt or a slow client could stay."""
    parser = argparse.ArgumentParser(prog="make campaign ID=S5", description=__doc__)
    parser.add_argument("--connections", type=int, default=5_000, help="slow ones at a time (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="windows with and without them (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a window (%(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="good requests a second (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides the good requests (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"S5 slow clients, {options.connections:,} at a time, seed {options.seed}")
    windows: dict[str, list[Window]] = {phase: [] for phase in PHASES}
    servers, clients = apart()
    with stage.scratch(verdict) as folder:
        registry, port = stage.publish(folder, Oracle), free_port()
        os.sched_setaffinity(0, servers)
        with (
            stage.serve(folder, registry, "--workers", "1") as server,
            Nginx(folder / "nginx", port, BESIDE.format(port=port, pages=swagger_ui_path)) as other,
        ):
            os.sched_setaffinity(0, clients)
            spawn = multiprocessing.get_context("spawn")
            ours, theirs = spawn.Pipe()
            attacker = spawn.Process(target=attack, args=(options.connections, theirs), daemon=True)
            attacker.start()

            def tell(order: Order | None) -> str:
                if order is not None:
                    ours.send(order)
                return str(ours.recv())

            before = vitals.look(server)
            asyncio.run(scenario(server, other, options, windows, tell))
            ours.send(None)
            judge(windows, ours.recv(), verdict)
            attacker.join()
            vitals.same(before, vitals.look(server), verdict)
    return verdict.show()
