"""The sweep of deadlines: connections have their turn once they are due, and no step takes long."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest

from salver.gateway.sweep import HASTE, PAUSE, RATE, ROUND, TURN, Sweep

ROUND_NS = int(ROUND * 1e9)
MOST = int(ROUND * RATE)


class Clock:
    """Goes on only when somebody works."""

    def __init__(self) -> None:
        self.now = 4 * ROUND_NS

    def __call__(self) -> int:
        return self.now


class Open:
    """A connection that takes so many nanoseconds to look at, and notes when that was; it is due so long after."""

    def __init__(self, clock: Clock, cost: int, again: int) -> None:
        self._clock = clock
        self._cost = cost
        self._again = again
        self.seen: list[int] = []

    def check_time(self, now: int) -> int:
        assert now <= self._clock.now
        self.seen.append(now)
        self._clock.now += self._cost
        return now + self._again


def opened(sweep: Sweep, clock: Clock, cost: int, count: int, due: int = 0, again: int = sys.maxsize) -> list[Open]:
    made = [Open(clock, cost, again) for _ in range(count)]
    for connection in made:
        sweep.watch(connection, due)
    return made


def run(sweep: Sweep, clock: Clock, seconds: float) -> None:
    ends = clock.now + seconds * 1e9
    while clock.now < ends:
        clock.now += round(sweep.step() * 1e9)


def test_every_connection_of_a_round_has_its_turn_however_many_steps_that_takes() -> None:
    clock = Clock()
    sweep = Sweep(clock)
    dear = opened(sweep, clock, TURN // 4, 4000)
    steps = 0
    while not all(each.seen for each in dear):
        before = clock.now
        pause = sweep.step()
        steps += 1
        assert clock.now - before <= TURN + TURN // 4
        assert pause == 0 or pause >= PAUSE
    assert {len(each.seen) for each in dear} == {1}
    assert steps >= 1000


@pytest.mark.parametrize(("count", "steps"), [(0, 1), (10, 10), (99, MOST), (1000, MOST), (9999, MOST)])
def test_a_round_begins_four_times_a_second_and_its_steps_are_spread_evenly_over_it(count: int, steps: int) -> None:
    clock = Clock()
    sweep = Sweep(clock)
    cheap = opened(sweep, clock, 10, count, again=0)
    began = clock.now
    for turn in range(1, 4):
        for step in range(1, steps + 1):
            before = sum(len(each.seen) for each in cheap)
            pause = sweep.step()
            assert sum(len(each.seen) for each in cheap) - before in (count // steps, -(-count // steps))
            assert clock.now + pause * 1e9 == pytest.approx(began + (turn - 1 + step / steps) * ROUND_NS, rel=1e-6)
            clock.now += int(pause * 1e9) + 1
        assert {len(each.seen) for each in cheap} <= {turn}


@pytest.mark.parametrize("after", [0.0, 0.01, 0.26, 3.0, 10.0, 10.24])
def test_a_connection_is_looked_at_when_it_is_due_and_at_most_two_rounds_later(after: float) -> None:
    clock = Clock()
    sweep = Sweep(clock)
    due = clock.now + int(after * 1e9)
    many = opened(sweep, clock, 10, 1000, due, again=int(5e9))
    run(sweep, clock, 18.0)
    for each in many:
        assert due <= each.seen[0] <= due + 2 * ROUND_NS
        assert len(each.seen) > 1
        assert all(5e9 <= later - sooner <= 5e9 + 2 * ROUND_NS for sooner, later in pairwise(each.seen))


def test_what_is_due_sooner_than_was_said_before_is_looked_at_then() -> None:
    clock = Clock()
    sweep = Sweep(clock)
    [one] = opened(sweep, clock, 10, 1, clock.now + int(10e9))
    sweep.watch(one, clock.now + int(2e9))
    run(sweep, clock, 3.0)
    assert len(one.seen) == 1
    run(sweep, clock, 10.0)
    assert len(one.seen) == 1


def test_a_server_that_ends_looks_at_all_connections_in_shorter_rounds() -> None:
    clock = Clock()
    sweep = Sweep(clock)
    cheap = opened(sweep, clock, 10, 1000, sys.maxsize)
    sweep.round = HASTE
    began = clock.now
    for _ in range(int(HASTE * RATE)):
        clock.now += int(sweep.step() * 1e9)
    assert {len(each.seen) for each in cheap} == {1}
    assert clock.now - began == pytest.approx(HASTE * 1e9, rel=0.01)


def test_what_closed_since_the_round_began_is_left_alone() -> None:
    clock = Clock()
    sweep = Sweep(clock)
    both = opened(sweep, clock, 2 * TURN, 2)
    sweep.step()
    [unseen] = [each for each in both if not each.seen]
    sweep.forget(unseen)
    sweep.step()
    assert not unseen.seen


def test_what_closes_while_it_is_looked_at_is_not_kept() -> None:
    clock = Clock()
    sweep = Sweep(clock)

    class Closing(Open):
        def check_time(self, now: int) -> int:
            sweep.forget(self)
            return super().check_time(now)

    one = Closing(clock, 10, 0)
    sweep.watch(one, 0)
    run(sweep, clock, 2.0)
    assert len(one.seen) == 1
