"""One key asks fifty times its share beside nine that ask less than theirs: those are neither refused nor delayed."""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
from pathlib import Path
from typing import NamedTuple

from salver.dispatch.admission import WORTH
from tests.campaigns import stage
from tests.campaigns.arrivals import Ask, Crowd, Ended, Tally, p99
from tests.campaigns.checks import Verdict
from tests.campaigns.slow import ROW_TIME, SlowOracle
from tests.integration.server import SALVER, Server

WORKERS = 2
LINES = 800
KEYS = 10
USUAL = 0.8
TIMES = 50.0


def keys(file: Path) -> list[str]:
    """Tokens, made as a person makes them; the last one is the noisy key's."""
    tokens = []
    for number in range(KEYS):
        command = [*SALVER, "key", "add", f"k{number}", "--keys", str(file)]
        tokens.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    return tokens


class Callers:
    """Who asks, at random, and what came back to the nine and to the one."""

    def __init__(self, tokens: list[str], chance: random.Random, noisy: float) -> None:
        self.normal, self.noisy = Tally(), Tally()
        self.rate = USUAL * (KEYS - 1) + noisy  # in shares
        self._tokens = tokens
        self._chance = chance

    def make(self, key: int) -> Ask:
        at = int(self._chance.random() * self.rate / USUAL)
        return Ask(key, self._tokens[min(at, KEYS - 1)])

    def take(self, ended: Ended) -> None:
        (self.noisy if ended.ask.token == self._tokens[-1] else self.normal).take(ended)


class Found(NamedTuple):
    """Rows a second that can be done, seconds of one row alone, and what came back without and with the noisy key."""

    peak: float
    one: float
    before: Callers
    beside: Callers

    @property
    def frame(self) -> float:
        """Seconds of a frame of the size that pays: so long may pass before a worker is free."""
        return (1 + WORTH) * (self.one - ROW_TIME)


async def scenario(server: Server, tokens: list[str], options: argparse.Namespace) -> Found:
    """Ten callers who ask the same, then one of them fifty times its share."""
    chance = random.Random(options.seed)
    crowd = Crowd(server.port, chance)
    await crowd.prepare(LINES)
    peak = await crowd.capacity(options.seconds / 4, tuple(tokens))
    one = 1 / await crowd.capacity(2.0, tuple(tokens), clients=1)
    print(f"{peak:.0f} rows a second can be done", flush=True)
    before, beside = Callers(tokens, chance, USUAL), Callers(tokens, chance, TIMES)
    for callers in (before, beside):
        rate = callers.rate * peak / KEYS
        await crowd.offer(rate, options.seconds / 10, Tally().take, callers.make)
        await crowd.offer(rate, options.seconds, callers.take, callers.make)
        await crowd.quiet()
    crowd.close()
    return Found(peak, one, before, beside)


def judge(measured: Found, verdict: Verdict) -> None:
    """Set what was found beside what is promised."""
    before, beside = measured.before, measured.beside
    alone = stage.milliseconds(measured.one)
    verdict.says("can be done", f"{measured.peak:.0f} rows/s, {WORKERS} workers; one row alone takes {alone}")
    before.normal.says("nine keys", verdict)
    beside.normal.says("nine keys beside the noisy one", verdict)
    beside.noisy.says("the noisy key", verdict)
    verdict.says("the load was late by, p99", stage.milliseconds(p99(beside.normal.late)))
    for tally, what in ((before.normal, "before"), (beside.normal, "beside"), (beside.noisy, "noisy")):
        tally.must(what, verdict)
    shed = beside.normal.refused.count + beside.normal.expired
    verdict.must("refused of the nine", str(shed), "0", not shed)
    usual, noisy = p99(before.normal.answered), p99(beside.normal.answered)
    found = f"{stage.milliseconds(noisy)} = {noisy / usual:.2f} x {stage.milliseconds(usual)}"
    most = f"<= 1.1 x + {stage.milliseconds(measured.frame)}, a frame that pays"
    verdict.must("p99 of the nine", found, most, noisy <= 1.1 * usual + measured.frame)
    verdict.aims("p99 of the nine, promised", found, "<= 1.1 x", noisy <= 1.1 * usual)


def main(argv: list[str]) -> int:
    """Run it; 1 if a normal key was refused, or delayed by more than one frame."""
    parser = argparse.ArgumentParser(prog="make campaign ID=R10", description=__doc__)
    parser.add_argument("--seconds", type=float, default=50.0, help="of each part (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides when is asked (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"R10 fairness, seed {options.seed}")
    with stage.scratch(verdict) as folder:
        registry = stage.publish(folder, SlowOracle)
        tokens = keys(folder / "keys.jsonl")
        said = ("--workers", str(WORKERS), "--keys", str(folder / "keys.jsonl"))
        with stage.serve(folder, registry, *said) as server:
            found = asyncio.run(scenario(server, tokens, options))
        judge(found, verdict)
    return verdict.show()
