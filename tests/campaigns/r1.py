"""Workers are killed every few seconds under mixed load: nothing is wrong, lost, failed or hung."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import time
from statistics import median

from salver.signature import Column, Signature
from tests.campaigns import stage
from tests.campaigns.checks import Checker, Quantiles, Verdict
from tests.integration.history import Event, Habits, Load
from tests.integration.oracle import Oracle
from tests.integration.server import Server

SALTS = {"oracle@1": 1}
SIGNATURE = Signature(inputs=(Column("key", "int"), Column("act", "str")), outputs=(Column("prediction", "int"),))
CLIENTS = 16
WORKERS = 2
RETURN = 2.0


class Kills:
    """What a kill loop did and saw."""

    def __init__(self, *, retry: bool) -> None:
        self.checker = Checker(SALTS) if retry else Checker(SALTS, self.excuses)
        self.count = 0
        self.last = float("-inf")
        self.steady = Quantiles()
        self.shaken = Quantiles()
        self.back: list[float] = []
        self.died: list[int] = []

    def take(self, event: Event) -> None:
        """Check a request, and count its time beside those of its moment."""
        self.checker.take(event)
        shaken = event.done >= self.last and event.sent < self.last + 1
        (self.shaken if shaken else self.steady).add(event.done - event.sent)
        if event.status == 503 and self.died:
            self.died[-1] += 1

    def killed(self) -> None:
        self.count += 1
        self.last = time.monotonic()
        self.died.append(0)

    def excuses(self, event: Event) -> bool:
        """Without retry: a request that was at the killed worker."""
        near = event.sent <= self.last + 0.1 and event.done <= self.last + 2
        said = str(event.answers[0])  # the Open Inference Protocol has a sentence where ours has a code
        return event.status == 503 and near and (said == "worker-died" or "the worker died" in said)

    def say(self) -> str:
        faults = ", ".join(f"{count} {fault}" for fault, count in self.checker.faults.items()) or "no fault"
        checker = self.checker
        return f"{checker.rows:,} rows in {checker.requests:,} requests, {self.count} kills, {faults}"


def rows(chance: random.Random) -> int:
    """1 to 64 rows, 10 on average."""
    return chance.choice((1, 1, 1, 1, 1, 1, 8, 8, 16, 64))


async def loop(server: Server, options: argparse.Namespace, kills: Kills, doses: tuple[int, int]) -> None:
    """Kill a random worker every few seconds until as many rows were asked and as many workers killed."""
    chance = random.Random(options.seed)
    habits = Habits(rate=options.rate, v2=0.3)
    load = Load(server.port, clients=CLIENTS, rows=rows, seed=options.seed, habits=habits, take=kills.take)
    async with stage.under(load, server, kills.say):
        while kills.checker.rows < doses[0] or kills.count < doses[1]:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * options.every)
            if kills.count < doses[1]:
                victim = chance.choice(server.workers("oracle@1"))
                kills.killed()
                os.kill(victim, signal.SIGKILL)
                await asyncio.sleep(0.05)
                kills.back.append(0.05 + await stage.proven(server, WORKERS))


def run(options: argparse.Namespace, verdict: Verdict, *, retry: bool) -> None:
    """One kill loop on a server of its own."""
    kills = Kills(retry=retry)
    share = 1 if retry else options.without_retry
    doses = int(options.rows * share), max(1, int(options.kills * share))
    print(f"{'with' if retry else 'without'} retry: {doses[0]:,} rows and {doses[1]} kills", flush=True)
    with stage.scratch(verdict) as folder:
        unsafe = {} if retry else {"side_effects": "unsafe", "signature": SIGNATURE}
        registry = stage.publish(folder, Oracle, **unsafe)
        began = time.monotonic()
        with stage.serve(folder, registry, "--workers", str(WORKERS)) as server:
            verdict.says("server to ready", f"{time.monotonic() - began:.1f} s")
            asyncio.run(loop(server, options, kills, doses))
        judge(kills, verdict, retry=retry)


def judge(kills: Kills, verdict: Verdict, *, retry: bool) -> None:
    """Set what a loop found beside what is promised."""
    checker = kills.checker
    verdict.says("retry", "on" if retry else "off")
    verdict.says("rows, requests", f"{checker.rows:,}, {checker.requests:,}")
    verdict.says("kills", str(kills.count))
    verdict.faults(checker, "wrong", "lost", "hung", "failed")
    if not retry:
        most = max(kills.died, default=0)
        total = f"{most} at most, {sum(kills.died)} in all"
        verdict.must("503 worker-died per kill", total, f"<= {CLIENTS}", most <= CLIENTS)
        return
    verdict.aims(
        "capacity back, median and worst",
        f"{median(kills.back):.1f} s, {max(kills.back):.1f} s",
        f"<= {RETURN:g} s + load",
        max(kills.back) <= RETURN + 1,
    )
    steady, shaken = kills.steady.at(0.99), kills.shaken.at(0.99)
    figure = f"{stage.milliseconds(shaken)} to {stage.milliseconds(steady)}: {shaken / steady:.1f}"
    verdict.aims("p99 after a kill to steady", figure, "<= 3", shaken <= 3 * steady)


def main(argv: list[str]) -> int:
    """Run it; 1 if a request was wrong, lost, hung or failed."""
    parser = argparse.ArgumentParser(prog="make campaign ID=R1", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows to ask at least (%(default)s)")
    parser.add_argument("--kills", type=int, default=600, help="workers to kill at least (%(default)s)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between kills on average (%(default)s)")
    parser.add_argument("--rate", type=float, default=350.0, help="requests a second, 0 for no limit (%(default)s)")
    parser.add_argument(
        "--without-retry", type=float, default=0.1, help="share of the dose asked again without retry (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides rows, kills and pauses (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"R1 worker kill loop, seed {options.seed}")
    for retry in (True, False):
        if retry or options.without_retry:
            run(options, verdict, retry=retry)
    return verdict.show()
