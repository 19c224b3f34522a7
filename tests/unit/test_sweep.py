"""The sweep of deadlines: every connection has its turn in each round, and no step takes long."""

from __future__ import annotations

import asyncio
import os

import pytest

from salver import metrics
from salver.gateway.front import Front
from salver.gateway.paths import PUBLIC
from salver.gateway.serving import Serving
from salver.gateway.sweep import HASTE, PAUSE, ROUND, STEP, STEPS, Sweep
from salver.limits import Limits


class Clock:
    """Goes on only when somebody works."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now


class Open:
    """A connection that takes so many nanoseconds to look at."""

    def __init__(self, clock: Clock, cost: int) -> None:
        self._clock = clock
        self._cost = cost
        self.seen = 0

    def check_time(self, now: int) -> None:
        assert now <= self._clock.now
        self._clock.now += self._cost
        self.seen += 1


def fronts() -> list[Front]:
    memory = os.memfd_create("front")
    os.ftruncate(memory, metrics.BLOCK_BYTES)
    block = metrics.Block(memory)
    os.close(memory)
    with asyncio.Runner() as runner:
        serving = Serving(runner.get_loop(), Limits(), block, lambda *_: None)
    return [Front(serving, Limits(), block, PUBLIC, lambda *_: b"") for _ in range(2)]


def opened(front: Front, clock: Clock, cost: int, count: int) -> list[Open]:
    made = [Open(clock, cost) for _ in range(count)]
    for connection in made:
        assert front.enter(connection)
    return made


def test_every_connection_is_looked_at_once_a_round_however_many_steps_that_takes() -> None:
    clock, found = Clock(), fronts()
    sweep = Sweep(found, clock)
    dear = opened(found[0], clock, STEP // 4, 1000) + opened(found[1], clock, STEP // 4, 10)
    steps = 0
    while True:
        before = clock.now
        pause = sweep.step()
        steps += 1
        assert clock.now - before <= STEP + STEP // 4
        assert pause >= PAUSE
        if all(each.seen for each in dear):
            break
    assert {each.seen for each in dear} == {1}
    assert steps >= 250


@pytest.mark.parametrize(("count", "steps"), [(0, 1), (10, 1), (99, 1), (1000, 20), (9999, STEPS)])
def test_a_round_begins_twice_a_second_and_its_steps_are_spread_evenly_over_it(count: int, steps: int) -> None:
    clock, found = Clock(), fronts()
    sweep = Sweep(found, clock)
    cheap = opened(found[0], clock, 10, count)
    began = clock.now
    for turn in range(1, 4):
        for step in range(1, steps + 1):
            before = sum(each.seen for each in cheap)
            pause = sweep.step()
            assert sum(each.seen for each in cheap) - before in (count // steps, -(-count // steps))
            assert clock.now + pause * 1e9 == pytest.approx(began + (turn - 1 + step / steps) * ROUND * 1e9, rel=1e-6)
            clock.now += int(pause * 1e9)
        assert {each.seen for each in cheap} <= {turn}


def test_a_server_that_ends_looks_at_its_connections_in_shorter_rounds() -> None:
    clock, found = Clock(), fronts()
    sweep = Sweep(found, clock)
    cheap = opened(found[0], clock, 10, 1000)
    sweep.round = HASTE
    began = clock.now
    for _ in range(20):
        clock.now += int(sweep.step() * 1e9)
    assert {each.seen for each in cheap} == {1}
    assert clock.now - began == pytest.approx(max(HASTE, 20 * PAUSE) * 1e9, rel=0.01)


def test_what_closed_since_the_round_began_is_left_alone() -> None:
    clock, found = Clock(), fronts()
    sweep = Sweep(found, clock)
    both = opened(found[0], clock, 2 * STEP, 2)
    assert sweep.step() == PAUSE
    [unseen] = [each for each in both if not each.seen]
    found[0].leave(unseen)
    sweep.step()
    assert not unseen.seen
