"""Thousands of connections that send or read a byte now and then: the others hardly notice, and each is cut in time."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple

from tests.campaigns import stage, vitals
from tests.campaigns.checks import Checker, Quantiles, Verdict
from tests.integration.history import Event, Habits, Load
from tests.integration.hostile import LENGTH, POST, ROW
from tests.integration.oracle import Oracle
from tests.integration.server import Server

CLIENTS = 8
RATIO = 1.2
SLACK = 3.0  # the sweep looks once a second, and a trickle looks at its connection every two
TICK = 0.05
PACE = 2.0
READ = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2_000
KINDS = {
    "headers": (b"POST /models/oracle/predict HTTP/1.1\r\nhost: localhost\r\nx: ", 10.0),
    "body": (POST + LENGTH.replace(b"21", b"60000000") + b"\r\n" + ROW[:4], 60.0),
    "reading": (READ, 60.0),
}
"""What each kind of slow client begins with, and the seconds after which it must be cut."""


class Slow(NamedTuple):
    """One slow connection."""

    sock: socket.socket
    kind: str
    began: float


class Trickle:
    """Holds so many slow connections, and replaces those that are cut while it attacks."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._open: list[Slow] = []
        self._at = 0
        self._debt = 0.0
        self.cut: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def begin(self) -> None:
        """Open all connections."""
        kinds = list(KINDS)
        for number in range(self._count):
            self._open.append(self._slow(kinds[number % len(kinds)]))

    def tick(self, seconds: float, *, renew: bool) -> int:
        """Move each connection once in two seconds; how many are open."""
        self._debt += seconds * self._count / PACE
        for _ in range(min(int(self._debt), len(self._open))):
            self._at = (self._at + 1) % len(self._open)
            slow = self._open[self._at]
            if not self._move(slow):
                continue
            self.cut[slow.kind].append(time.monotonic() - slow.began)
            slow.sock.close()
            if renew:
                self._open[self._at] = self._slow(slow.kind)
            else:
                self._open[self._at] = self._open[-1]
                self._open.pop()
                self._at = 0
            if not self._open:
                break
        self._debt %= 1
        return len(self._open)

    def end(self) -> None:
        """Leave, without being cut."""
        for slow in self._open:
            slow.sock.close()
        self._open.clear()

    def _slow(self, kind: str) -> Slow:
        sock = socket.socket()
        if kind == "reading":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", self._port))
        sock.setblocking(False)
        began = time.monotonic()
        try:
            sock.send(KINDS[kind][0])
        except OSError:
            began = float("-inf")
        return Slow(sock, kind, began)

    def _move(self, slow: Slow) -> bool:
        """Send or read one byte; whether the server has cut this connection."""
        try:
            if slow.kind == "reading":
                return slow.sock.recv(1) == b""
            slow.sock.send(b"y")
            slow.sock.recv(1024)  # whatever comes, a refusal or the end, it is cut
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


def attack(port: int, count: int, told: Connection) -> None:
    """In a process of its own: attack, leave, or attack a last time until all are cut, as it is told."""
    trickle = Trickle(port, count)
    attacking = renew = False
    while True:
        if told.poll(0 if attacking else None):
            order = told.recv()
            if order == "end":
                told.send(trickle.cut)
                return
            attacking, renew = order != "leave", order == "attack"
            trickle.begin() if attacking else trickle.end()
            told.send("done")
        time.sleep(TICK)
        if attacking and not trickle.tick(TICK, renew=renew):
            attacking = False
            told.send("all cut")


class Times:
    """The times of good requests, apart for each phase."""

    def __init__(self) -> None:
        self.checker = Checker({"oracle@1": 1})
        self.of = {"with": Quantiles(), "without": Quantiles()}
        self.phase = ""

    def take(self, event: Event) -> None:
        self.checker.take(event)
        if self.phase:
            self.of[self.phase].add(event.done - event.sent)

    def say(self) -> str:
        return f"{self.phase or 'between'}: {self.checker.requests:,} requests, {self.checker.faults.total()} faults"


async def scenario(server: Server, options: argparse.Namespace, times: Times, tell: Callable[[str], str]) -> None:
    """Phases with and without slow clients by turns; then slow clients until every one is cut."""
    habits = Habits(rate=options.rate)
    load = Load(server.port, clients=CLIENTS, rows=one, seed=options.seed, habits=habits, take=times.take)
    async with stage.under(load, server, times.say):
        await asyncio.sleep(options.seconds / 4)
        for _ in range(options.rounds):
            for phase, order in (("with", "attack"), ("without", "leave")):
                await asyncio.to_thread(tell, order)
                await asyncio.sleep(1)
                times.phase = phase
                await asyncio.sleep(options.seconds)
                times.phase = ""
        await asyncio.to_thread(tell, "attack once")
        await asyncio.to_thread(tell, "")


def one(_: random.Random) -> int:
    return 1


def judge(times: Times, cut: dict[str, list[float]], verdict: Verdict) -> None:
    """Set what good and slow clients saw beside what is promised."""
    verdict.says("requests", f"{times.checker.requests:,}")
    verdict.faults(times.checker, "wrong", "lost", "hung", "failed")
    beside, alone = times.of["with"].at(0.99), times.of["without"].at(0.99)
    figure = f"{stage.milliseconds(beside)} to {stage.milliseconds(alone)}: {beside / alone:.2f}"
    verdict.aims("p99 beside slow clients to without", figure, f"<= {RATIO}", beside <= RATIO * alone)
    for kind, (_, promised) in KINDS.items():
        longest = max(cut[kind], default=float("inf"))
        kept = longest <= promised + SLACK
        figure = f"{len(cut[kind]):,}, the last after {longest:.1f} s"
        verdict.must(f"slow clients cut, {kind}", figure, f"<= {promised:g} s + {SLACK:g}", kept)


def main(argv: list[str]) -> int:
    """Run it; 1 if a good request was hurt or a slow client could stay."""
    parser = argparse.ArgumentParser(prog="make campaign ID=S5", description=__doc__)
    parser.add_argument("--connections", type=int, default=5_000, help="slow ones at a time (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="phases with and without them (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a phase (%(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="good requests a second (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides the good requests (%(default)s)")
    options = parser.parse_args(argv)
    verdict, times = Verdict(f"S5 slow clients, seed {options.seed}"), Times()
    with stage.scratch(verdict) as folder:
        registry = stage.publish(folder, Oracle)
        with stage.serve(folder, registry, "--workers", "1") as server:
            spawn = multiprocessing.get_context("spawn")
            ours, theirs = spawn.Pipe()
            attacker = spawn.Process(target=attack, args=(server.port, options.connections, theirs), daemon=True)
            attacker.start()

            def tell(order: str) -> str:
                if order:
                    ours.send(order)
                return str(ours.recv())

            before = vitals.look(server)
            asyncio.run(scenario(server, options, times, tell))
            ours.send("end")
            judge(times, ours.recv(), verdict)
            attacker.join()
            after = vitals.look(server)
            vitals.same(before, after, verdict)
            verdict.says("growth of memory, most", f"{(after.peak - before.rss) / 1024:+.0f} MiB")
    return verdict.show()
