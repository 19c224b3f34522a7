"""Releases are promoted and rolled back under load: no request fails, and nothing leaks."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from salver.registry import Registry
from salver.rollout.move import Intent, promote
from salver.route import previous_live
from salver.storage.folder import FolderStorage
from salver.supervisor import status
from tests.campaigns import stage
from tests.campaigns.checks import Checker, Quantiles, Verdict, describe
from tests.campaigns.models import ThirdOracle
from tests.integration.history import Event, Habits, Load
from tests.integration.oracle import Oracle, SecondOracle
from tests.integration.server import SALVER, Server

SALTS = {"oracle@1": 1, "oracle@2": 2, "oracle@3": 3}
WORKERS = 2
SETTLED = 3 + 2 * WORKERS  # supervisor, follower, gateway; the live release and the warm one
CLIENTS = 8
BASE = 10  # what is held in the end is compared with what was held after so many switches
REMEMBERED = 8
KINDS = ("promote", "rollback", "rollback further")
LASTING = ("salver.supervisor", "salver.gateway")


class Switch(NamedTuple):
    """One switch: when it began, when the gateway was seen to have made it, and to which release."""

    began: float
    done: float
    release: str


class Held(NamedTuple):
    """What the server's processes hold."""

    rss: dict[str, int]
    descriptors: int
    processes: int


class Watch:
    """Checks each answer against the releases that were routed during its request."""

    def __init__(self) -> None:
        self.checker = Checker(SALTS)
        self.steady = Quantiles()
        self.switching = Quantiles()
        self.switches: deque[Switch] = deque([Switch(float("-inf"), float("-inf"), "oracle@1")], REMEMBERED)
        self.swap_ms: list[float] = []
        self.seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.begun = False
        self.memory: dict[str, int] = {}

    def take(self, event: Event) -> None:
        self.checker.take(event)
        if event.status == 200 and event.release not in routed(self.switches, event.sent, event.done):
            self.checker.note("unrouted", describe(event))
        (self.switching if self.begun else self.steady).add(event.done - event.sent)

    @property
    def count(self) -> int:
        return len(self.swap_ms)

    def say(self) -> str:
        faults = ", ".join(f"{count} {fault}" for fault, count in self.checker.faults.items()) or "no fault"
        memory = "".join(f", {name} {kib:,} KiB" for name, kib in self.memory.items())
        return f"{self.count} switches, {self.checker.requests:,} requests, {faults}{memory}"


def routed(switches: deque[Switch], sent: float, done: float) -> set[str]:
    """The releases that could answer a request: those whose time overlaps its time."""
    ends = [switch.done for switch in list(switches)[1:]] + [float("inf")]
    return {switch.release for switch, end in zip(switches, ends, strict=True) if switch.began <= done and sent <= end}


async def switch(server: Server, watch: Watch, store: Registry, target: int | None) -> None:
    """Promote the target, or roll back where there is none, and wait until the gateway has made it."""
    history = store.history("oracle")
    name = f"oracle@{target or previous_live(history)}"
    began = time.monotonic()
    watch.switches.append(Switch(began, float("inf"), name))
    if target is None:
        moving: asyncio.Task[object] = asyncio.create_task(roll_back(server.registry))
    else:
        intent = Intent("campaign", "2026-01-01T00:00:00Z")
        moving = asyncio.create_task(asyncio.to_thread(promote, store, "oracle", target, intent))
    while (await asyncio.to_thread(server.get, "/models")).json["models"][0]["live"] != name:
        if time.monotonic() > began + stage.SETTLE_TIME:
            raise AssertionError(f"switch {watch.count}: {name} is not live after a minute")
        if moving.done():
            moving.result()
        await asyncio.sleep(0.01)
    done = time.monotonic()
    watch.switches[-1] = Switch(began, done, name)
    warm = len(history) > 1 and history[-2].live == previous_live(history)
    watch.seconds["promote" if target else "rollback" if warm else "rollback further"].append(done - began)
    await moving
    watch.swap_ms.append(await asyncio.to_thread(last_swap, server))


async def roll_back(registry: Path) -> None:
    """The command, as a person gives it."""
    command = [*SALVER, "rollback", "oracle", "--json", "--registry", str(registry)]
    running = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, problem = await running.communicate()
    if running.returncode or [server["state"] for server in json.loads(said)["servers"]] != ["effective"]:
        raise AssertionError(f"salver rollback: {said.decode()}{problem.decode()}")


def last_swap(server: Server) -> float:
    """The milliseconds that the gateway's last swap took."""
    return float(status.status(status.servers(str(server.registry))[0])["swap_ms"])


async def held(server: Server) -> Held:
    """What is held once old workers have gone and new ones stand: the least of ten looks in a row."""
    ends = time.monotonic() + stage.SETTLE_TIME
    looks: deque[Held] = deque(maxlen=10)
    while len(looks) < 10 or (_moving(looks) and time.monotonic() < ends):
        await asyncio.sleep(0.2)
        looks.append(await asyncio.to_thread(look, server))
    rss = {name: min(one.rss[name] for one in looks) for name in looks[0].rss}
    return Held(rss, min(one.descriptors for one in looks), min(one.processes for one in looks))


def _moving(looks: deque[Held]) -> bool:
    """Whether workers came or went during these looks, or are still to come or to go."""
    return {one.processes for one in looks} != {SETTLED}


def look(server: Server) -> Held:
    """What the gateways and the supervisor hold now, and how many processes there are."""
    assert server.process is not None
    everything = [server.process.pid, *server.descendants()]
    rss, descriptors = {}, 0
    for pid in everything:
        with contextlib.suppress(OSError, StopIteration):  # it may end while we look
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            name = next(word for word in words if word.startswith(LASTING))
            rss[f"{name.removeprefix('salver.')} {pid}"] = _rss(pid)
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
    return Held(rss, descriptors, len(everything))


def _rss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


async def scenario(server: Server, options: argparse.Namespace, watch: Watch) -> dict[int, Held]:
    """A steady time, then the switches; what was held after the first ones and after all."""
    chance = random.Random(options.seed)
    store = Registry(FolderStorage(server.registry))
    load = Load(
        server.port,
        clients=CLIENTS,
        rows=lambda chance: chance.choice((1, 1, 4)),
        seed=options.seed,
        habits=Habits(rate=options.rate, v2=0.3),
        take=watch.take,
    )
    async with stage.under(load, server, watch.say):
        await asyncio.sleep(options.steady)
        watch.begun = True
        stops = {min(BASE, options.switches), options.switches}
        found = {}
        for number in range(options.switches):
            history = store.history("oracle")
            back = previous_live(history) and chance.random() < 0.5
            others = [release for release in (1, 2, 3) if release != history[-1].live]
            await switch(server, watch, store, None if back else chance.choice(others))
            watch.memory = look(server).rss
            if number + 1 in stops:
                found[number + 1] = await held(server)
    return found


def judge(watch: Watch, verdict: Verdict) -> None:
    """Set what requests and switches saw beside what is promised."""
    verdict.says("switches", ", ".join(f"{len(times)} {kind}" for kind, times in watch.seconds.items()))
    verdict.says("requests", f"{watch.checker.requests:,}")
    verdict.faults(watch.checker, "wrong", "lost", "hung", "failed", "unrouted")
    slowest = max(watch.swap_ms)
    verdict.aims("slowest swap", f"{slowest:.2f} ms", "<= 50 ms", slowest <= 50)
    for kind, times in watch.seconds.items():
        if not times:
            continue
        figure = f"{sorted(times)[len(times) // 2]:.2f} s, {max(times):.2f} s"
        what = f"{kind} to effect, median and slowest"
        if kind == "rollback":
            verdict.aims(what, figure, "<= 1 s", max(times) <= 1)
        else:
            verdict.says(what, figure)
    steady, switching = watch.steady.at(0.99), watch.switching.at(0.99)
    figure = f"{stage.milliseconds(switching)} to {stage.milliseconds(steady)}: {switching / steady:.2f}"
    verdict.aims("p99 while switching to steady", figure, "<= 1.5", switching <= 1.5 * steady)


def judge_leaks(found: dict[int, Held], verdict: Verdict) -> None:
    """Nothing may grow after the first switches."""
    first, last = min(found), max(found)
    base, end = found[first], found[last]
    same = base.rss.keys() == end.rss.keys()
    verdict.must("gateways and supervisor are the same processes", "yes" if same else "no", "yes", same)
    for name in sorted(base.rss.keys() & end.rss.keys()):
        was, now = base.rss[name], end.rss[name]
        figure = f"{was:,} to {now:,} KiB: {now / was - 1:+.1%}"
        verdict.must(f"memory of {name} since switch {first}", figure, "<= +2 %", now <= 1.02 * was)
    for what in ("descriptors", "processes"):
        before, after = getattr(base, what), getattr(end, what)
        verdict.must(f"{what} since switch {first}", f"{before} to {after}", "no more", after <= before)


def main(argv: list[str]) -> int:
    """Run it; 1 if a request failed or got an answer it must not get, or something leaked."""
    parser = argparse.ArgumentParser(prog="make campaign ID=R6", description=__doc__)
    parser.add_argument("--switches", type=int, default=500, help="promotes and rollbacks (%(default)s)")
    parser.add_argument("--steady", type=float, default=20.0, help="seconds of load before them (%(default)s)")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second, 0 for no limit (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides requests and switches (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"R6 deploy and rollback, seed {options.seed}")
    with stage.scratch(verdict) as folder:
        registry = stage.publish(folder, Oracle, SecondOracle, ThirdOracle)
        watch = Watch()
        with stage.serve(folder, registry, "--workers", str(WORKERS)) as server:
            found = asyncio.run(scenario(server, options, watch))
        judge(watch, verdict)
        judge_leaks(found, verdict)
    return verdict.show()
