"""Whose turn it is: equal shares by bytes, higher priorities first, short bursts of those who ask little."""

from __future__ import annotations

from collections import Counter

import pytest

from salver.dispatch.fairness import BURST, COST, LATELY, REMEMBERED, Lanes


class Item:
    """Bytes of a caller."""

    def __init__(self, key: str, size: int = 100, priority: int = 0) -> None:
        self.key = key
        self.body = bytes(size)
        self.priority = priority


def keys(items: list[Item]) -> str:
    return "".join(item.key for item in items)


def test_callers_go_in_turn_however_much_each_has_waiting() -> None:
    lanes = Lanes([Item("a") for _ in range(9)] + [Item("b"), Item("c"), Item("b")])
    assert Counter(keys(lanes.take(6, 1e9))) == {"a": 3, "b": 2, "c": 1}
    assert keys(lanes.take(100, 1e9)) == "a" * 6
    assert lanes.count == lanes.bytes == 0


def test_shares_are_of_bytes_and_a_little_for_each_request() -> None:
    large = 3 * (100 + COST) - COST
    lanes = Lanes([Item("a") for _ in range(300)] + [Item("b", large) for _ in range(300)])
    served = Counter(keys(lanes.take(200, 1e9)))
    assert served["a"] == pytest.approx(3 * served["b"], abs=4)


def test_a_frame_is_full_at_its_requests_or_bytes_but_never_empty() -> None:
    lanes = Lanes([Item("a", 100) for _ in range(9)])
    assert len(lanes.take(4, 1e9)) == 4
    assert len(lanes.take(4, 250)) == 2
    assert len(lanes.take(4, 10)) == 1
    assert lanes.count == 2
    assert lanes.bytes == 200


def test_a_higher_priority_goes_first_and_is_last_to_go() -> None:
    low, high = Item("a", priority=-1), Item("b", priority=0)
    lanes = Lanes([low, high])
    lowest = Item("c", priority=-2)
    assert lanes.last(Item("c"))[0] is low
    assert lanes.last(lowest)[0] is lowest
    assert lanes.take(1, 1e9) == [high]


def test_the_last_is_the_newest_of_who_has_asked_the_most_or_the_one_that_comes() -> None:
    most = [Item("a") for _ in range(5)]
    lanes = Lanes([*most, Item("b"), Item("b")])
    own, large = Item("a"), Item("b", 10_000)
    assert lanes.last(Item("c"))[0] is most[-1]
    assert lanes.last(own)[0] is own
    assert lanes.last(large)[0] is large, "who would have more than they"


def test_who_was_served_more_is_last_though_others_have_more_waiting() -> None:
    noisy = [Item("noisy") for _ in range(300)]
    lanes = Lanes(noisy)
    lanes.take(298, 1e9)
    for _ in range(BURST - 1):
        lanes.push(Item("quiet"))
    assert lanes.last(Item("quiet"))[0] is noisy[-1]


def test_nobody_is_beyond_their_share_who_would_be_served_before_what_others_were_served_lately() -> None:
    lanes = Lanes([Item("noisy") for _ in range(300)])
    lanes.take(299, 1e9, LATELY)
    (left,) = lanes
    assert lanes.last(Item("quiet")) == (left, True)
    lanes.remove(left)
    burst = [Item("quiet") for _ in range(2 * BURST)]
    for item in burst:
        lanes.push(item)
    assert lanes.last(Item("other")) == (burst[-1], True), "a burst has its bounds"
    for item in burst[BURST - 2 :]:
        lanes.remove(item)
    assert lanes.last(Item("other")) == (burst[BURST - 3], False)
    lanes.take(1, 1e9, 3 * LATELY)
    lanes.take(1, 1e9, 5 * LATELY)
    assert lanes.last(Item("other")) == (burst[BURST - 3], True), "what was served long ago counts no more"


def test_who_was_away_goes_before_who_asks_all_the_time_but_only_for_a_burst() -> None:
    lanes = Lanes([Item("noisy") for _ in range(2000)])
    lanes.take(1000, 1e9)
    for _ in range(100):
        lanes.push(Item("quiet"))
    served = keys(lanes.take(BURST + 20, 1e9))
    assert served.count("quiet") == pytest.approx(BURST + 10, abs=2)


def test_who_comes_and_goes_saves_up_no_turns() -> None:
    lanes = Lanes([Item("noisy") for _ in range(5000)])
    lanes.take(1000, 1e9)
    served: Counter[str] = Counter()
    for _ in range(1000):
        lanes.push(Item("sly"))
        served.update(item.key for item in lanes.take(1, 1e9))
    assert served["sly"] == pytest.approx(served["noisy"], abs=BURST + 2)


def test_a_new_caller_of_a_low_priority_does_not_wait_for_the_past_of_a_higher() -> None:
    lanes = Lanes([Item("high", priority=1) for _ in range(1000)] + [Item("old") for _ in range(1000)])
    lanes.take(1010, 1e9)
    for _ in range(100):
        lanes.push(Item("new"))
    assert [item.key for item in lanes.take(100, 1e9)].count("new") >= 40


def test_what_comes_after_a_request_is_counted_up_to_what_is_enough() -> None:
    lanes = Lanes([Item("a"), Item("a"), Item("b", priority=1), Item("c", priority=-1)])
    assert lanes.behind(Item("d", priority=2), 1000) == 400
    assert lanes.behind(Item("d", priority=2), 250) == 300
    assert lanes.behind(Item("d"), 1000) == 200, "the second of a, and c"
    assert lanes.behind(Item("a"), 1000) == 100
    assert lanes.behind(Item("c", priority=-1), 1000) == 0


def test_the_share_ahead_of_a_request_is_what_is_served_before_it() -> None:
    lanes = Lanes([Item("noisy") for _ in range(99)] + [Item("quiet")])
    assert lanes.ahead(Item("noisy")) == 1.0
    assert lanes.ahead(Item("quiet")) == pytest.approx(0.03)
    assert lanes.ahead(Item("other", priority=1)) == 0.0


def test_who_was_served_less_has_less_ahead() -> None:
    lanes = Lanes([Item("noisy") for _ in range(200)])
    lanes.take(100, 1e9)
    for _ in range(10):
        lanes.push(Item("quiet"))
    assert lanes.ahead(Item("quiet")) == pytest.approx(10 / 110)
    assert lanes.ahead(Item("noisy")) == 1.0


def test_what_is_remembered_of_callers_who_left_is_bounded() -> None:
    lanes: Lanes[Item] = Lanes([Item("stays") for _ in range(10)])
    for number in range(3 * REMEMBERED):
        item = Item(f"k{number}")
        lanes.push(item)
        lanes.remove(item)
    assert len(lanes._past) <= REMEMBERED
    assert len(lanes._heap) < 100
    assert lanes.count == 10
