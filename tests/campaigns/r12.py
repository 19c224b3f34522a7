"""One bad row fails one row: rows that raise in a batch of 64, and rows that kill their worker."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import math
import random
import time
from collections import deque
from typing import Any

from tests.campaigns import stage
from tests.campaigns.checks import Checker, Verdict
from tests.integration.history import Habits, Load
from tests.integration.oracle import answer
from tests.integration.server import Server

SALTS = {"oracle@1": 1}
PREDICT = "/models/oracle/predict"
BATCH = 64
POISONED = (1, 2, 8)
WORKERS = 2
PROMISED_DEATHS = 2
MOST_DEATHS = 3  # one in the company of other requests, which blames nobody, and two alone
HALVINGS = int(math.log2(BATCH))


class Poison:
    """Asks poisoned bodies one at a time, and checks what comes back and what it cost."""

    def __init__(self, server: Server, calls: stage.Calls, checker: Checker) -> None:
        self.checker = checker
        self.batches = 0
        self.dearest = dict.fromkeys(POISONED, 0)
        self.killed = 0
        self.deaths = 0
        self.refused: deque[tuple[float, dict[str, Any]]] = deque()
        self.oldest = 0.0
        self._calls = calls
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

    def say(self) -> str:
        faults = ", ".join(f"{count} {fault}" for fault, count in self.checker.faults.items()) or "no fault"
        return f"{self.killed} segfaulting rows, {self.batches:,} poisoned batches, {faults}"

    def raising(self, chance: random.Random, poisoned: int) -> None:
        """A batch in which some rows raise: the others are right, and the model is called seldom enough."""
        bad = set(chance.sample(range(BATCH), poisoned))
        keys = [chance.randrange(1 << 30) for _ in range(BATCH)]
        rows = [{"key": key, "act": "raise" if at in bad else ""} for at, key in enumerate(keys)]
        self._calls.new()
        status, got = self._ask(rows)
        calls = len(self._calls.new())
        where = f"keys {keys}, raising at {sorted(bad)}"
        if status != 200:
            self.checker.note("failed", f"status {status}: {got}; {where}")
            return
        for at, row in enumerate(got):
            if at in bad and row.get("error", {}).get("code") != "model-error":
                self.checker.note("wrong", f"row {at} raised and got {row}; {where}")
            if at not in bad and row != {"prediction": answer(1, keys[at])}:
                self.checker.note("wrong", f"row {at} got {row}; {where}")
        if len(got) != BATCH:
            self.checker.note("wrong", f"{len(got)} answers; {where}")
        if calls > most_calls(poisoned):
            self.checker.note("dear", f"{calls} calls of the model, allowed are {most_calls(poisoned)}; {where}")
        self.dearest[poisoned] = max(self.dearest[poisoned], calls)
        self.batches += 1

    def deadly(self, key: int) -> None:
        """A row that kills whoever predicts it: a few workers die, then it is refused."""
        row = {"key": key, "act": "segfault"}
        deaths = self._refused(row)
        self.killed += 1
        self.deaths = max(self.deaths, deaths)
        if deaths > MOST_DEATHS:
            self.checker.note("deaths", f"{deaths} workers died of {row}")
        self.refused.append((time.monotonic(), row))
        self.again(row, time.monotonic())

    def again(self, row: dict[str, Any], since: float) -> None:
        """The same row again: refused without touching a worker."""
        if self._refused(row):
            age = time.monotonic() - since
            self.checker.note("reached", f"{row} reached a worker again, {age:.0f} s after it was refused")

    def due(self, hold: float) -> None:
        """Ask what was refused so long ago once more."""
        while self.refused and time.monotonic() - self.refused[0][0] >= hold:
            since, row = self.refused.popleft()
            self.again(row, since)
            self.oldest = max(self.oldest, time.monotonic() - since)

    def _refused(self, row: dict[str, Any]) -> int:
        self._calls.new()
        status, got = self._ask(row)
        if got.get("code") != "poison-request":
            self.checker.note("failed", f"{row} got status {status}: {got}")
        return sum(deadly for _, deadly in self._calls.new())

    def _ask(self, value: Any) -> tuple[int, Any]:
        self._connection.request("POST", PREDICT, json.dumps(value).encode(), {"content-type": "application/json"})
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())


def most_calls(poisoned: int) -> int:
    """What a batch with so many raising rows may cost."""
    return 2 * poisoned * HALVINGS + 1


async def scenario(server: Server, options: argparse.Namespace, poison: Poison) -> None:
    """First the rows that kill, while others ask; then the batches, alone, so that their calls can be counted."""
    chance = random.Random(options.seed)
    load = Load(
        server.port,
        clients=4,
        rows=lambda chance: chance.choice((1, 8)),
        seed=options.seed,
        habits=Habits(rate=100, v2=0.3),
        take=poison.checker.take,
    )
    async with stage.under(load, server, poison.say):
        for _ in range(options.segfaults):
            await stage.proven(server, WORKERS)
            await asyncio.to_thread(poison.deadly, chance.randrange(1 << 30))
            poison.due(options.hold)
    await stage.proven(server, WORKERS)
    await asyncio.sleep(1)
    saying = asyncio.create_task(stage.progress(server, poison.say))
    for _ in range(options.batches):
        for poisoned in POISONED:
            await asyncio.to_thread(poison.raising, chance, poisoned)
        poison.due(options.hold)
    while poison.refused:
        await asyncio.sleep(0.1)
        poison.due(options.hold)
    saying.cancel()


def judge(poison: Poison, options: argparse.Namespace, verdict: Verdict) -> None:
    """Set what was found beside what is promised."""
    verdict.says("segfaulting rows, poisoned batches", f"{poison.killed}, {poison.batches:,}")
    verdict.says("requests of others meanwhile", f"{poison.checker.requests:,}")
    verdict.faults(poison.checker, "wrong", "lost", "hung", "failed", "dear", "reached", "deaths")
    for poisoned, dearest in poison.dearest.items():
        most = most_calls(poisoned)
        verdict.must(
            f"most calls of the model, {poisoned} of {BATCH} raise", str(dearest), f"<= {most}", dearest <= most
        )
    if options.segfaults:
        few = poison.deaths <= PROMISED_DEATHS
        verdict.aims("most workers a row killed", str(poison.deaths), f"<= {PROMISED_DEATHS}", few)
        verdict.says("still refused after", f"{poison.oldest:.0f} s")


def main(argv: list[str]) -> int:
    """Run it; 1 if a good row was hurt, a bad row cost too much, or a deadly row came through again."""
    parser = argparse.ArgumentParser(prog="make campaign ID=R12", description=__doc__)
    parser.add_argument(
        "--batches", type=int, default=10_000, help="batches with each of 1, 2 and 8 raising rows (%(default)s)"
    )
    parser.add_argument("--segfaults", type=int, default=200, help="rows that kill their worker (%(default)s)")
    parser.add_argument(
        "--hold", type=float, default=590.0, help="ask each of those again after so many seconds (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides rows and where the bad ones stand (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"R12 poison rows, seed {options.seed}")
    with stage.scratch(verdict) as folder:
        registry, calls = stage.watched(folder)
        with stage.serve(folder, registry, "--workers", str(WORKERS)) as server:
            poison = Poison(server, calls, Checker(SALTS))
            asyncio.run(scenario(server, options, poison))
        judge(poison, options, verdict)
    return verdict.show()
