"""Bodies that killed workers are refused for a while."""

from __future__ import annotations

from salver.dispatch.quarantine import Quarantine


def test_a_body_is_held_until_its_time_is_over_and_no_longer() -> None:
    held = Quarantine(b"key", hold_ns=100)
    held.add(b"poison", 1000)
    assert held.holds(b"poison", 1099)
    assert not held.holds(b"other", 1099)
    assert not held.holds(b"poison", 1100)


def test_it_never_holds_more_than_its_bound_and_drops_the_oldest() -> None:
    held = Quarantine(b"key", most=3)
    for number in range(10):
        held.add(b"%d" % number, number)
    assert len(held.bodies) == 3
    assert not held.holds(b"0", 10)
    assert held.holds(b"9", 10)
