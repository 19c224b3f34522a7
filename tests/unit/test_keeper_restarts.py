"""When a child starts again, and when a release has died too often."""

from __future__ import annotations

import random
import signal

import pytest

from salver.supervisor import restart
from salver.supervisor.restart import Breaker, Death, count, healed, next_delay


def crash(at: float, ready_for: float | None = None) -> Death:
    return Death(at, ready_for, signal.SIGSEGV)


def delays(deaths: int, chance: float) -> list[float]:
    failures, waits = 0, []
    for number in range(deaths):
        failures, wait = next_delay(failures, crash(number), False, chance)
        waits.append(round(wait, 3))
    return waits


def test_each_crash_in_a_row_doubles_the_wait_up_to_30_seconds() -> None:
    assert delays(11, chance=1.0) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_chance_takes_off_up_to_half_of_each_wait() -> None:
    assert delays(3, chance=0.0) == [0.05, 0.1, 0.2]
    seeded = random.Random(7)
    for failures in range(15):
        _, wait = next_delay(failures, crash(0), False, seeded.random())
        step = min(30.0, 0.1 * 2**failures)
        assert step / 2 <= wait <= step


def test_a_thousand_crashes_do_not_overflow_the_wait() -> None:
    assert next_delay(100_000, crash(0), False, 1.0) == (100_001, 30.0)


def test_a_minute_of_health_makes_the_next_wait_short_again() -> None:
    assert next_delay(9, crash(100.0, ready_for=59.9), False, 1.0) == (10, 30.0)
    assert next_delay(9, crash(100.0, ready_for=60.0), False, 1.0) == (1, 0.1)


def test_the_fifth_crash_within_a_minute_opens_the_breaker() -> None:
    breaker = Breaker()
    for at in (0.0, 10.0, 20.0, 30.0):
        breaker = count(breaker, crash(at))
        assert breaker.opened is None
    assert count(breaker, crash(59.9)).opened == 59.9


def test_five_crashes_in_more_than_a_minute_do_not() -> None:
    breaker = Breaker()
    for at in range(0, 1000, 15):
        breaker = count(breaker, crash(float(at)))
        assert breaker.opened is None, f"opened at {at} s"


def test_the_breaker_remembers_when_it_opened_and_never_grows() -> None:
    breaker = Breaker()
    for at in range(100):
        breaker = count(breaker, crash(at / 10))
    assert breaker.opened == 0.4
    assert len(breaker.deaths) == restart.MOST_DEATHS


def test_an_open_breaker_makes_every_wait_long() -> None:
    assert next_delay(0, crash(0), True, 1.0)[1] == 30.0


def test_a_minute_of_health_closes_the_breaker() -> None:
    opened = Breaker((1.0, 2.0, 3.0, 4.0, 5.0), 5.0)
    assert healed(opened, 59.9) == opened
    assert healed(opened, 60.0) == Breaker()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killing_a_healthy_child_from_outside_is_nobodys_fault(number: int) -> None:
    failures, breaker = 0, Breaker()
    for at in range(0, 3000, 5):
        death = Death(float(at), 4.0, number, worked=True)
        breaker = count(breaker, death)
        failures, wait = next_delay(failures, death, False, 1.0)
        assert (failures, wait, breaker) == (0, 0.1, Breaker())


def test_being_killed_while_it_loads_for_the_first_time_counts_for_it_may_need_too_much_memory() -> None:
    breaker = Breaker()
    for at in range(5):
        breaker = count(breaker, Death(float(at), None, signal.SIGKILL))
    assert breaker.opened == 4.0


def test_being_killed_while_it_loads_again_counts_not_but_waits_longer_until_it_was_healthy() -> None:
    failures, breaker, waits = 0, Breaker(), []
    for at, ready_for in enumerate((None, 0.5, None, 2.0, None)):
        death = Death(float(at), ready_for, signal.SIGKILL, worked=True)
        breaker = count(breaker, death)
        failures, wait = next_delay(failures, death, False, 1.0)
        waits.append(wait)
    assert breaker == Breaker()
    assert waits == [0.1, 0.2, 0.4, 0.1, 0.1]


def test_deaths_by_poison_requests_never_open_the_breaker() -> None:
    """Each poison request kills one worker in a batch, and then workers that run it alone."""
    breaker, failures = Breaker(), 0
    for at in range(0, 600, 3):
        breaker = count(breaker, crash(at, 5.0))
        breaker = count(breaker, Death(at + 1.0, 5.0, signal.SIGSEGV, alone=True))
        death = Death(at + 2.0, 5.0, signal.SIGSEGV, alone=True)
        breaker = count(breaker, death)
        _, wait = next_delay(failures, death, breaker.opened is not None, 1.0)
        assert breaker.opened is None
        assert wait == 0.1


def test_a_release_that_refuses_itself_is_not_tried_in_a_loop() -> None:
    assert next_delay(0, Death(0.0, None, 0, refused=True), False, 1.0)[1] == 30.0
