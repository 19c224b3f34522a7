"""When memory is given back, without a clock and without a heap."""

from __future__ import annotations

from salver.memory import LARGE, PAUSE, Heap


def test_memory_goes_back_once_after_something_large_and_at_most_once_in_a_while() -> None:
    trims: list[float] = []
    now = 100.0

    def trim(keep: int) -> int:
        trims.append(now)
        return keep

    heap = Heap(trim, lambda: now)
    heap.took(LARGE)
    heap.give_back()
    assert trims == []
    heap.took(LARGE + 1)
    heap.give_back()
    heap.give_back()
    assert trims == [100.0]
    heap.took(LARGE + 1)
    now = 100.0 + PAUSE / 2
    heap.give_back()
    assert trims == [100.0]
    now = 100.0 + PAUSE
    heap.give_back()
    assert trims == [100.0, 101.0]


def test_where_the_c_library_has_no_such_call_nothing_is_given_back() -> None:
    heap = Heap(None, lambda: 0.0)
    heap.took(LARGE + 1)
    heap.give_back()
