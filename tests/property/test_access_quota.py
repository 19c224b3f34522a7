"""Several gateways share one quota: whatever the order, the clock and the restarts, no more than the limit passes."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from salver.access import quota
from salver.access.quota import View

EMPTY = View(0.0, 0.0, 0.0)


def simulate(seed: int, gateways: int, rate: float, burst: float) -> tuple[list[float], list[float], float]:
    """Moments of admitted uses, moments of refusals, and the capacity; callers press far harder than the limit."""
    chance = random.Random(seed)
    bound = quota.limit(rate, burst)
    views = [EMPTY] * gateways
    now, admitted, refused = chance.uniform(0, 1e7), [], []
    for _ in range(2000):
        now += chance.expovariate(rate * 3) if chance.random() > 0.01 else chance.uniform(0, 5 * burst)
        mine = chance.randrange(gateways) if chance.random() < 0.5 else 0
        if quota.wait(quota.owed(views, rate, now), bound, 1.0) > 0.0:
            refused.append(now)
            continue
        views[mine] = quota.charge(views, mine, rate, 1.0, now)
        admitted.append(now)
    return admitted, refused, bound.capacity


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 5), st.floats(0.5, 1e4), st.floats(0.5, 20))
def test_no_stretch_of_time_gets_more_than_the_rate_and_one_burst(
    seed: int, gateways: int, rate: float, burst: float
) -> None:
    admitted, _, capacity = simulate(seed, gateways, rate, burst)
    chance = random.Random(seed)
    for _ in range(200):
        first, last = sorted((chance.randrange(len(admitted)), chance.randrange(len(admitted))))
        passed, allowed = last - first + 1, rate * (admitted[last] - admitted[first]) + capacity
        assert passed <= allowed * 1.01


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.floats(0.5, 1e4))
def test_one_gateway_under_pressure_gives_the_whole_limit(seed: int, rate: float) -> None:
    chance = random.Random(seed)
    bound, views, passed = quota.Limit(rate, 10.0), [EMPTY], 0
    moments = sorted(chance.uniform(100, 100 + 1000 / rate) for _ in range(4000))
    for now in moments:
        if quota.wait(quota.owed(views, rate, now), bound, 1.0) == 0.0:
            views = [quota.charge(views, 0, rate, 1.0, now)]
            passed += 1
    assert passed >= 0.95 * 1000


@settings(max_examples=60)
@given(st.floats(0.5, 1e4), st.floats(0.1, 1e6), st.floats(0, 1e7))
def test_what_is_charged_afterwards_is_paid_off_before_the_next_use(rate: float, cost: float, now: float) -> None:
    bound = quota.limit(rate, 1.0)
    views = [quota.charge([EMPTY], 0, rate, cost, now)]
    after = quota.wait(quota.owed(views, rate, now), bound, 1.0)
    assert after >= (cost + min(1.0, bound.capacity) - bound.capacity) / rate * 0.99 - 1e-6
    later = now + after * 1.001 + 1e-3
    assert quota.wait(quota.owed(views, rate, later), bound, 1.0) == 0.0


def test_a_gateway_that_slept_does_not_owe_what_others_used_long_ago() -> None:
    views = [EMPTY, EMPTY]
    for second in range(3600):
        views[0] = quota.charge(views, 0, 10.0, 5.0, 100.0 + second)
    assert quota.wait(quota.owed(views, 10.0, 3701.0), quota.limit(10.0, 1.0), 1.0) == 0.0


def test_a_use_over_the_whole_capacity_passes_when_nothing_is_owed_and_is_paid_off() -> None:
    bound = quota.limit(10.0, 1.0)
    assert quota.wait(0.0, bound, 1000.0) == 0.0
    assert quota.wait(0.5, bound, 1000.0) > 0.0
    views = [quota.charge([EMPTY], 0, 10.0, 1000.0, 5.0)]
    assert 98.0 < quota.wait(quota.owed(views, 10.0, 5.0), bound, 1.0) < 100.0
