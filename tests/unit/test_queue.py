"""Who makes room for whom in a release's queue."""

from __future__ import annotations

import pytest

from salver.dispatch.call import Call, Limits
from salver.dispatch.queue import Queue
from salver.frames import Form

NATIVE = Form("native")
SECOND = 1_000_000_000


def call(number: int, size: int, *, key: str = "", priority: int = 0, now: int = SECOND) -> Call:
    return Call(number, NATIVE, now + 60 * SECOND, bytes(size), None, now, key=key, priority=priority)


def late(limits: Limits) -> Queue:
    """A queue that has not been empty for long, of a worker that needs a second for a frame of two callers."""
    queue = Queue(limits, lambda: (1, True))
    queue.learn(1000, 1.0)
    for number in range(200):
        assert not queue.offer(call(number, 300, key="ab"[number % 2], now=SECOND + number))
    return queue


def test_a_large_request_of_a_higher_priority_ends_others_only_to_take_their_place() -> None:
    queue = late(Limits())
    before = queue.count
    asked = call(1000, 200_000, key="c", priority=1, now=3 * SECOND)
    failures = queue.offer(asked)
    assert asked not in [failure.call for failure in failures]
    assert asked in list(queue)
    assert queue.count == before - len(failures) + 1
    queue.check()


@pytest.mark.parametrize("size", [300, 30_000, 50_000, 99_000, 200_000])
def test_nobody_ends_for_a_request_that_does_not_get_in(size: int) -> None:
    queue = late(Limits(queue_bytes=100_000))
    before = list(queue)
    asked = call(1000, size, key="c", now=3 * SECOND)
    ended = [failure.call for failure in queue.offer(asked)]
    assert ended
    assert (ended == [asked] and list(queue) == before) or (asked in list(queue) and asked not in ended)
    queue.check()
