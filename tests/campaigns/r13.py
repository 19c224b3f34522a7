"""The batcher keeps its invariants in a million simulated histories and in a real run whose callers give up."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.campaigns import stage
from tests.campaigns.checks import Checker, Quantiles, Verdict
from tests.integration.history import Event, Habits, Load
from tests.integration.server import Server
from tests.property.test_batching import World

SALTS = {"oracle@1": 1}
BLOCK = 500
CLIENTS = 16
HABITS = Habits(v2=0.2, hasty=0.05, rude=0.02)
MAX_BATCH = 64
SHARE = 0.99
WINDOWS = 6


def simulate(first: int, count: int) -> list[str]:
    """Run so many seeds; those that broke an invariant, with which one."""
    broken = []
    for seed in range(first, first + count):
        try:
            World(seed).run()
        except Exception as problem:
            broken.append(f"seed {seed}: {type(problem).__name__}: {problem}")
    return broken


def blocks(first: int, count: int) -> Iterator[tuple[int, int]]:
    return ((at, min(BLOCK, first + count - at)) for at in range(first, first + count, BLOCK))


def simulation(options: argparse.Namespace, verdict: Verdict) -> None:
    """All seeds, in several processes."""
    began = said = time.monotonic()
    done, broken = 0, 0
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=spawn) as pool:
        for (_, size), found in zip(
            blocks(options.seed, options.seeds),
            pool.map(simulate, *zip(*blocks(options.seed, options.seeds), strict=True)),
            strict=True,
        ):
            done += size
            for problem in found[: max(0, 5 - broken)]:
                print(f"BROKEN: {problem}; again: --seed {problem.split()[1][:-1]} --seeds 1 --minutes 0", flush=True)
            broken += len(found)
            if time.monotonic() - said > stage.EVERY:
                said = time.monotonic()
                print(f"{said - began:6.0f} s  {done:,} seeds, {broken} broken", flush=True)
    verdict.must("broken invariants", f"{broken} in {done:,} seeds", "0", not broken)


class Window:
    """What a part of the real run did."""

    def __init__(self) -> None:
        self.answered = 0
        self.expired = 0
        self.cpu = 0.0
        self.seconds = 0.0

    @property
    def rate(self) -> float:
        return self.answered / self.seconds

    @property
    def cost(self) -> float:
        """Seconds of the server's CPU per answer."""
        return self.cpu / self.answered


class Run:
    """Sorts what comes into windows of time."""

    def __init__(self) -> None:
        self.checker = Checker(SALTS, excused)
        self.windows: list[Window] = []
        self.times = Quantiles()
        self.biggest = 0

    def take(self, event: Event) -> None:
        self.checker.take(event)
        if not self.windows:
            return
        self.times.add(event.done - event.sent)
        self.windows[-1].answered += event.status == 200
        self.windows[-1].expired += event.status in (503, 504)

    def say(self) -> str:
        faults = ", ".join(f"{count} {fault}" for fault, count in self.checker.faults.items()) or "no fault"
        checker = self.checker
        return f"{checker.requests:,} requests, {checker.requests - checker.answered:,} expired, {faults}"


def excused(event: Event) -> bool:
    """The caller gave 1 ms."""
    return event.done - event.sent < 1 and (event.status == 504 or event.answers == ("would-miss-deadline",))


async def scenario(server: Server, options: argparse.Namespace, calls: stage.Calls, run: Run) -> None:
    """A warm-up, then windows of equal length."""
    load = Load(server.port, clients=CLIENTS, rows=rows, seed=options.seed, habits=HABITS, take=run.take)
    async with stage.under(load, server, run.say):
        await asyncio.sleep(5)
        for _ in range(WINDOWS):
            window = Window()
            run.windows.append(window)
            began, cpu = time.monotonic(), server_cpu(server)
            while time.monotonic() < began + options.minutes * 60 / WINDOWS:
                await asyncio.sleep(1)
                run.biggest = max([run.biggest, *(size for size, _ in calls.new())])
            window.seconds, window.cpu = time.monotonic() - began, server_cpu(server) - cpu


def rows(chance: random.Random) -> int:
    return chance.choice((1, 1, 1, 8, 64))


def server_cpu(server: Server) -> float:
    """Seconds of CPU that the gateways and workers have used."""
    ticks = 0
    for pid in (*server.gateways(), *server.workers()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def real(options: argparse.Namespace, verdict: Verdict) -> None:
    """A server whose clients expire, leave and ask on."""
    run = Run()
    with stage.scratch(verdict) as folder:
        registry, calls = stage.watched(folder)
        with stage.serve(folder, registry) as server:
            asyncio.run(scenario(server, options, calls, run))
            left = sum(release["open_requests"] for release in status(server))
            dropped = sum(release["dropped_answers"] for release in status(server))
        first, last = run.windows[0], run.windows[-1]
        verdict.says("requests, expired", f"{run.checker.requests:,}, {sum(one.expired for one in run.windows):,}")
        verdict.says("answers nobody waited for", f"{dropped:,}")
        verdict.faults(run.checker, "wrong", "lost", "hung", "failed")
        verdict.must("most rows in a call", str(run.biggest), f"<= {MAX_BATCH}", run.biggest <= MAX_BATCH)
        verdict.must("requests open at the end", str(left), "0", not left)
        figure = f"{stage.milliseconds(run.times.at(0.999))}, {stage.milliseconds(run.times.most)}"
        verdict.says("p99.9 and slowest", figure)
        kept = last.rate / first.rate
        figure = f"{last.rate:,.0f} to {first.rate:,.0f} a second: {kept:.1%}"
        verdict.aims("throughput at the end to start", figure, f">= {SHARE:.0%}", kept >= SHARE)
        cost = first.cost / last.cost
        figure = f"{last.cost * 1e6:.0f} to {first.cost * 1e6:.0f} us: {cost:.1%}"
        verdict.aims("CPU per answer at the end to start", figure, f">= {SHARE:.0%}", cost >= SHARE)


def status(server: Server) -> list[dict[str, int]]:
    releases: list[dict[str, int]] = server.get("/status", port=server.admin_port).json["releases"]
    return releases


def main(argv: list[str]) -> int:
    """Run it; 1 if an invariant broke or a request was wrong, lost, hung or failed."""
    parser = argparse.ArgumentParser(prog="make campaign ID=R13", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000_000, help="simulated histories (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the real run (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that simulate (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"R13 batcher, seeds from {options.seed}")
    if options.seeds:
        simulation(options, verdict)
    if options.minutes:
        real(options, verdict)
    return verdict.show()
