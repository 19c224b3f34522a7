"""Requests that say what they should not, and bytes that are hardly HTTP: no 5xx, no crash, every refusal in words."""

from __future__ import annotations

import argparse
import random
import socket
import time
from collections import Counter

from salver.memory import PAUSE
from tests.campaigns import stage, vitals
from tests.campaigns.checks import Checker, Verdict
from tests.integration import hostile
from tests.integration.oracle import Oracle
from tests.integration.server import Server
from tests.integration.wire import Wire, until_closed

GROWTH_MIB = 20
WORKERS = 2


class Fuzz:
    """Sends requests by their number: the same seed and number are the same bytes."""

    def __init__(self, server: Server, seed: int) -> None:
        self.checker = Checker({})
        self.statuses: Counter[int] = Counter()
        self._server = server
        self._seed = seed
        self._wire = Wire(server.port)

    def body(self, number: int) -> None:
        """One request that keeps to HTTP."""
        data = hostile.request(random.Random(f"body {self._seed} {number}"))
        try:
            answer = self._wire.ask(data)
        except OSError as problem:
            self.checker.note("unanswered", f"{type(problem).__name__}; body {number}: {data[:1000]!r}")
            self._wire = Wire(self._server.port)
            return
        self._check(answer.status, answer.kind, answer.body, f"body {number}: {data[:1000]!r}")
        if answer.last:
            self._wire.close()
            self._wire = Wire(self._server.port)

    def bytes(self, number: int) -> None:
        """One connection with bytes that are hardly HTTP."""
        data = hostile.broken(random.Random(f"bytes {self._seed} {number}"))
        with socket.create_connection(("127.0.0.1", self._server.port), timeout=30) as sock:
            try:
                sock.sendall(data)
                sock.settimeout(0.5)
                received = until_closed(sock)
            except OSError as problem:
                self.checker.note("unanswered", f"{type(problem).__name__}; bytes {number}: {data!r}")
                return
        for status, kind, body in hostile.answers(received):
            self._check(status, kind, body, f"bytes {number}: {data[:1000]!r}")

    def say(self) -> str:
        return f"{self.statuses.total():,} answers, {self.checker.faults.total()} faults"

    def _check(self, status: int, kind: str, body: bytes, asked: str) -> None:
        self.statuses[status] += 1
        fault = hostile.fault(status, kind, body)
        if fault:
            self.checker.note(fault, f"{status} {body[:300]!r} for {asked}")


def run(server: Server, options: argparse.Namespace, verdict: Verdict) -> None:
    """A first tenth warms up, then memory is measured."""
    fuzz = Fuzz(server, options.seed)
    said = time.monotonic()
    before = vitals.look(server)
    for number in range(options.first, options.first + options.bodies):
        if number == options.first + options.bodies // 10:
            warm = vitals.look(server)
        fuzz.body(number)
        if number % 10 == 0:
            fuzz.bytes(number)
        if time.monotonic() - said > stage.EVERY:
            said = time.monotonic()
            print(f"number {number:,}: {fuzz.say()}", flush=True)
    time.sleep(2 * PAUSE)  # a second after a large body its memory goes back
    after = vitals.look(server)
    verdict.says("bodies", f"{options.bodies:,}")
    verdict.says("answers", ", ".join(f"{count:,} × {status}" for status, count in sorted(fuzz.statuses.items())))
    verdict.faults(fuzz.checker, "unanswered", "a status of our own fault")
    vitals.same(before, after, verdict)
    vitals.grown(warm, after, GROWTH_MIB, verdict)
    verdict.must("a good row is answered", *_good(server))


def _good(server: Server) -> tuple[str, str, bool]:
    answer = server.post(hostile.PREDICT, hostile.ROW)
    return str(answer.status), "200", answer.body == hostile.ANSWER


def main(argv: list[str]) -> int:
    """Run it; 1 if the server failed, crashed, grew or refused without words."""
    parser = argparse.ArgumentParser(prog="make campaign ID=S1", description=__doc__)
    parser.add_argument("--bodies", type=int, default=20_000, help="requests that keep to HTTP (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first, to repeat a fault (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides the bytes of each number (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"S1 REST fuzz, seed {options.seed}")
    with stage.scratch(verdict) as folder:
        registry = stage.publish(folder, Oracle)
        with stage.serve(folder, registry, "--workers", str(WORKERS)) as server:
            run(server, options, verdict)
    return verdict.show()
