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


def looked(most: int = 64) -> tuple[Queue, list[int]]:
    """A queue in which one frame's worth of a caller waits, and what grows by every closer look."""
    looks: list[int] = []

    def load() -> tuple[int, bool]:
        looks.append(len(looks))
        return 1, True

    queue = Queue(Limits(batch_requests=most), load)
    for number in range(most):
        assert not queue.offer(call(number, 100, key="a"))
    return queue, looks


def test_one_closer_look_does_for_a_quarter_of_a_frame_of_one_caller() -> None:
    queue, looks = looked()
    for number in range(100, 148):
        assert not queue.offer(call(number, 100, key="a"))
    assert len(looks) == 3
    assert [each.id for each in queue] == [*range(64), *range(100, 148)]
    queue.check()


def test_a_look_holds_for_no_other_caller_and_for_no_frame_to_come() -> None:
    queue, looks = looked()
    queue.offer(call(100, 100, key="a"))
    queue.offer(call(101, 100, key="b"))
    assert len(looks) == 2
    assert queue.lanes is not None
    queue, looks = looked()
    queue.offer(call(100, 100, key="a"))
    queue.take(2 * SECOND)
    for number in range(200, 264):
        queue.offer(call(number, 100, key="a"))
    assert len(looks) == 2


def test_a_request_with_less_time_is_looked_at_itself_and_refused() -> None:
    queue, _ = looked()
    queue.learn(6400, 0.5)
    assert not queue.offer(call(100, 100, key="a"))
    hurried = call(101, 100, key="a")
    hurried.deadline = hurried.started + SECOND // 10
    assert [failure.code for failure in queue.offer(hurried)] == ["would-miss-deadline"]


def test_a_request_like_the_last_one_is_refused_where_its_bytes_have_no_room() -> None:
    queue = Queue(Limits(queue_bytes=7000), lambda: (1, True))
    for number in range(66):
        assert not queue.offer(call(number, 100, key="a"))
    assert [failure.code for failure in queue.offer(call(100, 1000, key="a"))] == ["overloaded"]
    queue.check()
