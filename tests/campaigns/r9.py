"""Five times more than can be done: what is admitted stays quick, the rest is refused at once, health answers on."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from pathlib import Path
from typing import NamedTuple

from salver.dispatch.admission import PERMITTED, STANDING
from salver.dispatch.call import Limits
from tests.campaigns import stage, vitals
from tests.campaigns.arrivals import CLIENTS, Crowd, Ended, Tally, p99
from tests.campaigns.checks import Quantiles, Verdict
from tests.campaigns.slow import SlowOracle, frame_time
from tests.integration.server import Server

WORKERS = 2
LINES = 800
USUAL = 0.8
TIMES = 5.0
WINDOW = 0.25
HEALTH_EVERY = 0.05
QUEUE_TARGET = STANDING * 1e-9 + PERMITTED * frame_time(Limits().batch_requests)
MOST_CPU = 200.0
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class Gateway(NamedTuple):
    """The gateway's processor time in seconds, and the KiB it holds."""

    cpu: float
    rss: int


class Found:
    """Everything that was measured."""

    def __init__(self) -> None:
        self.peak = 0.0
        self.before, self.over, self.after = Tally(), Tally(), Tally()
        self.health = Quantiles()
        self.windows: dict[int, Quantiles] = {}  # answers after the drop, by when they were asked
        self.dropped = 0.0
        self.gateway: dict[str, Gateway] = {}

    def returned(self, ended: Ended) -> None:
        """After the load has dropped."""
        self.after.take(ended)
        if ended.status == 200:
            window = int((ended.sent - self.dropped) / WINDOW)
            self.windows.setdefault(window, Quantiles()).add(ended.done - ended.sent)

    def normal_after(self) -> float:
        """Seconds from the drop until nothing is refused, and no window is slower than the usual one may be."""
        slow = [w for w, each in self.windows.items() if each.at(0.9) > 2 * p99(self.before.answered)]
        last = (max(slow) + 1) * WINDOW if slow else 0.0
        return max(last, self.after.last_refusal - self.dropped)


def look(server: Server) -> Gateway:
    [pid] = server.gateways()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Gateway((int(fields[11]) + int(fields[12])) / vitals.TICK, int(fields[21]) * PAGE_KIB)


async def watch_health(server: Server, found: Found) -> None:
    """Ask on a new connection each time, as an orchestrator does."""
    while True:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz/ready HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        said = await reader.read()
        writer.close()
        assert said.startswith(b"HTTP/1.1 200"), said
        found.health.add(time.monotonic() - began)
        await asyncio.sleep(HEALTH_EVERY)


async def scenario(server: Server, options: argparse.Namespace, found: Found) -> None:
    """Measure what can be done; then 80 % of it, five times it, and 80 % again."""
    crowd = Crowd(server.port, random.Random(options.seed))
    await crowd.prepare(LINES)
    found.peak = await crowd.capacity(options.usual / 2)
    usual = USUAL * found.peak
    print(f"{found.peak:.0f} rows a second can be done", flush=True)
    found.gateway["idle"] = look(server)
    await crowd.offer(usual, options.usual, found.before.take)
    await crowd.quiet()
    found.gateway["usual"] = look(server)
    health = asyncio.create_task(watch_health(server, found))
    await crowd.offer(TIMES * found.peak, options.over / 5, Tally().take)
    found.gateway["warm"] = look(server)
    await crowd.offer(TIMES * found.peak, options.over, found.over.take)
    found.gateway["over"] = look(server)
    health.cancel()
    found.dropped = time.monotonic()
    await crowd.offer(usual, options.usual, found.returned)
    await crowd.quiet()
    found.gateway["after"] = look(server)
    crowd.close()


def refusal_cost(found: Found) -> float:
    """Microseconds of the gateway for one refusal: all of its time but what the answers cost it at the usual load."""
    at = found.gateway
    answer = (at["usual"].cpu - at["idle"].cpu) / found.before.asked
    spent = at["over"].cpu - at["warm"].cpu - answer * found.over.answered.count
    return spent / max(1, found.over.refused.count) * 1e6


def judge(found: Found, options: argparse.Namespace, verdict: Verdict) -> None:
    """Set what was found beside what is promised."""
    over, usual = found.over, p99(found.before.answered)
    goodput = over.answered.count / options.over
    most = 2 * usual + QUEUE_TARGET
    verdict.says("can be done", f"{found.peak:.0f} rows/s, {WORKERS} workers, {CLIENTS} clients who wait")
    found.before.says(f"at {USUAL:.0%}", verdict)
    over.says(f"at {TIMES:.0%}", verdict)
    found.after.says(f"at {USUAL:.0%} again", verdict)
    verdict.says("the load was late by, p99", stage.milliseconds(p99(over.late)))
    for tally, what in ((found.before, "before"), (over, "over"), (found.after, "after")):
        tally.must(what, verdict)
    share = goodput / found.peak
    verdict.must("goodput", f"{share:.1%} of peak", ">= 90 %", share >= 0.9)
    slowest = p99(over.answered)
    verdict.must(
        "p99 of the admitted",
        stage.milliseconds(slowest),
        f"<= {stage.milliseconds(most)} (2 x {stage.milliseconds(usual)} + queue)",
        slowest <= most,
    )
    refusals = p99(over.refused)
    verdict.aims("p99 of refusals", stage.milliseconds(refusals), "<= 10 ms", refusals <= 0.01)
    health = p99(found.health)
    verdict.must("p99 of health", f"{stage.milliseconds(health)} of {found.health.count}", "<= 100 ms", health <= 0.1)
    warm, last = found.gateway["warm"].rss, found.gateway["over"].rss
    growth = last / warm - 1
    verdict.must("gateway's memory", f"{growth:+.1%} of {warm / 1024:.0f} MiB", "+-5 %", abs(growth) <= 0.05)
    normal = found.normal_after()
    verdict.must("normal again after", f"{normal:.2f} s", "<= 2 s", normal <= 2.0)
    cost = refusal_cost(found)
    verdict.aims("gateway time for a refusal", f"{cost:.0f} us", f"<= {MOST_CPU:.0f} us", cost <= MOST_CPU)


def main(argv: list[str]) -> int:
    """Run it; 1 if goodput, latency, health, memory or the return to normal is not as promised."""
    parser = argparse.ArgumentParser(prog="make campaign ID=R9", description=__doc__)
    parser.add_argument("--usual", type=float, default=20.0, help="seconds at 80 %%, before and after (%(default)s)")
    parser.add_argument("--over", type=float, default=50.0, help="seconds at five times the capacity (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides when is asked (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"R9 overload, seed {options.seed}")
    with stage.scratch(verdict) as folder:
        run(folder, options, verdict)
    return verdict.show()


def run(folder: Path, options: argparse.Namespace, verdict: Verdict) -> None:
    registry = stage.publish(folder, SlowOracle)
    with stage.serve(folder, registry, "--workers", str(WORKERS)) as server:
        found = Found()
        asyncio.run(scenario(server, options, found))
    judge(found, options, verdict)
