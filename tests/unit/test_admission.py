"""How long a request would wait, learnt from frames, and whether that is too long."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from salver.dispatch.admission import LONGEST_RETRY, Backlog, Pace, misses, retry_after, too_long, wait

MS = 1_000_000


def learnt(cost: Callable[[float], float], sizes: Sequence[int]) -> Pace:
    pace = Pace()
    for size in sizes:
        pace.learn(size, cost(size))
    return pace


def linear(size: float) -> float:
    """10 ms a call and 1 ms a KiB."""
    return 0.01 + 0.001 * size / 1024


VARIED = [1024 * (1 + 17 * number % 40) for number in range(200)]


def test_while_nothing_was_measured_everything_is_assumed_to_be_fast() -> None:
    pace = Pace()
    backlog = Backlog(8.0, 8 << 20, 2, True)
    assert wait(backlog, pace) == 0.0
    assert not misses(backlog, pace, MS, 1.0)
    assert not too_long(backlog, pace, 200 * MS)
    assert pace.worth() == float("inf")


def test_the_time_of_a_frame_is_learnt_from_frames_of_other_sizes() -> None:
    pace = learnt(linear, VARIED)
    for size in (1, 10_000, 40_000):
        assert pace.seconds(size) == pytest.approx(linear(size), rel=0.1)
        assert pace.at_most(size) >= pace.seconds(size)


def test_the_frame_that_pays_costs_a_tenth_more_for_each_row_than_an_endless_one() -> None:
    pace = learnt(linear, VARIED)
    worth = pace.worth()
    assert worth == pytest.approx(90 * 1024, rel=0.1)
    assert linear(worth) / worth == pytest.approx(1.11 * 0.001 / 1024, rel=0.02)


def test_frames_too_much_alike_do_not_show_what_a_call_costs_by_itself() -> None:
    assert learnt(linear, [40_000] * 50).is_vague()
    assert not learnt(linear, [40_000, 40_000, 10_000] * 17).is_vague()


def test_a_frame_that_pays_is_found_through_noise() -> None:
    chance = random.Random(3)
    sizes = [chance.choice((4000, 12_000, 12_000, 12_000)) for _ in range(400)]
    pace = learnt(lambda size: linear(size) * chance.uniform(0.9, 1.1), sizes)
    assert pace.worth() == pytest.approx(90 * 1024, rel=0.4)


def test_a_model_that_has_become_faster_is_soon_believed() -> None:
    pace = learnt(lambda size: 10 * linear(size), VARIED)
    for size in VARIED[:60]:
        pace.learn(size, linear(size))
    assert pace.at_most(10_000) < 2 * linear(10_000)


def test_a_deadline_is_missed_if_all_workers_may_have_begun_just_now() -> None:
    pace = learnt(lambda _: 0.1, [1000] * 50)
    for frames, busy, rounds in ((0.5, False, 1), (0.5, True, 2), (1.9, True, 2), (2.0, True, 3), (4.0, True, 4)):
        backlog = Backlog(frames, int(1000 * frames), 2, busy)
        assert misses(backlog, pace, int(rounds * 100 * MS) - MS, 1.0), (frames, busy)
        assert not misses(backlog, pace, int(rounds * 100 * MS) + 5 * MS, 1.0), (frames, busy)


def test_only_the_share_of_the_backlog_that_goes_first_counts() -> None:
    pace = learnt(lambda _: 0.1, [1000] * 50)
    backlog = Backlog(8.0, 8000, 2, True)
    assert misses(backlog, pace, 300 * MS, 1.0)
    assert not misses(backlog, pace, 300 * MS, 0.1)


def test_a_queue_may_grow_beyond_a_frame_for_each_worker_only_while_it_is_young() -> None:
    pace = learnt(lambda _: 0.1, [1000] * 50)
    short, long = Backlog(1.9, 1900, 2, True), Backlog(2.0, 2000, 2, True)
    assert not too_long(long, pace, 90 * MS)
    assert too_long(long, pace, 110 * MS)
    assert not too_long(short, pace, 110 * MS)


@pytest.mark.parametrize("seconds", [0.0, 0.4, 3.0, 1000.0])
def test_when_to_come_back_is_spread_from_one_second_to_twice_the_wait(seconds: float) -> None:
    times = {retry_after(seconds, number / 1000) for number in range(1001)}
    most = min(LONGEST_RETRY, max(2, int(2 * seconds) + 1))
    assert times == set(range(1, most + 1))
