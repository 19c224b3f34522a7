"""A fifth of the callers leave at any moment and a tenth come too late: hardly any work is done for them."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from pathlib import Path

from tests.campaigns import stage
from tests.campaigns.arrivals import Ask, Crowd, Ended, Tally, open_requests, p99
from tests.campaigns.checks import Verdict
from tests.campaigns.slow import DONE, WatchedSlowOracle
from tests.integration.server import Server

WORKERS = 2
LINES = 400
TIMES = 1.3
LEAVE = 0.2
EXPIRED = 0.1
LATEST = 1.5
GRACE = 0.05
"""Seconds after which whoever has left or expired is out of the queue."""
PROMISED = 0.001


class Callers:
    """Who asks, and until when they wait for the answer, by key."""

    def __init__(self, chance: random.Random) -> None:
        self.tally = Tally()
        self.until: dict[str, dict[int, float]] = {"closed": {}, "reset": {}, "expired": {}}
        self._chance = chance

    def make(self, key: int) -> Ask:
        draw = self._chance.random()
        if draw < LEAVE:
            return Ask(key, leaves=self._chance.uniform(-0.1 * LATEST, LATEST), rude=self._chance.random() < 0.5)
        return Ask(key, timeout_ms=1) if draw < LEAVE + EXPIRED else Ask(key)

    def take(self, ended: Ended) -> None:
        self.tally.take(ended)
        ask = ended.ask
        if ask.timeout_ms:
            self.until["expired"][ask.key] = ended.sent + ask.timeout_ms / 1000
        elif ask.leaves is not None and not ended.status:
            self.until["reset" if ask.rude else "closed"][ask.key] = ended.done


async def scenario(server: Server, callers: Callers, options: argparse.Namespace) -> tuple[float, float]:
    """What can be done, then more than that from callers who leave, then what can be done again."""
    crowd = Crowd(server.port, random.Random(options.seed))
    await crowd.prepare(LINES)
    before = await crowd.capacity(options.seconds / 8)
    print(f"{before:.0f} rows a second can be done", flush=True)
    await crowd.offer(TIMES * before / (1 - LEAVE - EXPIRED), options.seconds, callers.take, callers.make)
    await crowd.quiet()
    return before, await crowd.capacity(options.seconds / 8)


def executed(calls: Path) -> dict[int, float]:
    """When the execution of each key began, in monotonic seconds."""
    return {key: began / 1e9 for began, key in DONE.iter_unpack(calls.read_bytes())}


def left_open(server: Server) -> int:
    """Requests that the server still has open when all have ended."""
    ends = time.monotonic() + 5
    while (count := open_requests(server)) and time.monotonic() < ends:
        time.sleep(0.05)
    return count


def judge(callers: Callers, began: dict[int, float], verdict: Verdict) -> None:
    """How much was executed for whom nobody was there any more."""
    callers.tally.says("all", verdict)
    verdict.says("the load was late by, p99", stage.milliseconds(p99(callers.tally.late)))
    callers.tally.must("of those who stayed", verdict)
    verdict.says("executions", f"{len(began):,}")
    dead = 0
    for how, until in callers.until.items():
        after = [began[key] - end for key, end in until.items() if key in began and began[key] > end]
        late = sum(seconds > GRACE for seconds in after)
        dead += late
        verdict.says(
            f"{how} before the answer", f"{len(until):,}; {late} begun later, at most {max(after, default=0):.3f} s"
        )
    share = dead / max(1, len(began))
    what = f"executions begun {GRACE * 1e3:.0f} ms after the end"
    verdict.must(what, f"{dead} = {share:.3%}", f"< {PROMISED:.1%}", share < PROMISED)


def main(argv: list[str]) -> int:
    """Run it; 1 if work was done for nobody, or a place was lost."""
    parser = argparse.ArgumentParser(prog="make campaign ID=R11", description=__doc__)
    parser.add_argument("--seconds", type=float, default=80.0, help="of callers who leave (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides who leaves, and when (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"R11 deadlines and cancelling, seed {options.seed}")
    with stage.scratch(verdict) as folder:
        (folder / "files").mkdir()
        (folder / "files" / "calls").write_text(str(folder / "calls"))
        registry = stage.publish(folder, WatchedSlowOracle, files=folder / "files")
        with stage.serve(folder, registry, "--workers", str(WORKERS)) as server:
            callers = Callers(random.Random(options.seed + 1))
            before, after = asyncio.run(scenario(server, callers, options))
            leaked = left_open(server)
        judge(callers, executed(folder / "calls"), verdict)
        verdict.must("places lost", str(leaked), "0", not leaked)
        found = f"{after:.0f} of {before:.0f} rows/s"
        verdict.must("can be done again", found, ">= 90 %", after >= 0.9 * before)
    return verdict.show()
