from __future__ import annotations

import pytest

from salver.errors import SalverError
from salver.route import Canary, Change, Route, arms, next_route, previous_live, rollback_target


def history(*moves: tuple[str, int]) -> list[Route]:
    return [Route("churn", seq, live, "tester", "t", action) for seq, (action, live) in enumerate(moves, 1)]


def test_the_first_route_of_a_model_has_number_one() -> None:
    assert next_route("churn", None, Change(7, "first", "ann", "t")) == Route("churn", 1, 7, "ann", "t", "first")


def test_the_next_route_follows_the_current_one_and_says_only_what_the_change_says() -> None:
    current = Route("churn", 4, 2, "ann", "t", "promote", canary=Canary(3, 0.1), shadow=(1,), evidence={"a": 1})
    change = Change(3, "promote", "bob", "u", why="better", shadow=(2,), evidence={"gate": "passed"})
    following = next_route("churn", current, change)
    assert following == Route("churn", 5, 3, "bob", "u", "promote", "better", None, (2,), {"gate": "passed"})


def test_the_canary_of_a_change_arrives_in_the_route_as_it_is() -> None:
    canary = Canary(3, 0.25)
    assert next_route("churn", None, Change(2, "canary", "ann", "t", canary=canary)).canary == canary


def test_the_arms_of_a_route_are_live_canary_and_shadows() -> None:
    assert arms(Route("churn", 1, 2, "ann", "t", "promote")) == [2]
    assert arms(Route("churn", 1, 2, "ann", "t", "promote", canary=Canary(3, 0.1), shadow=(4, 5))) == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([], None),
        ([("first", 1)], None),
        ([("first", 1), ("promote", 2)], 1),
        ([("first", 1), ("promote", 2), ("promote", 2)], 1),
        ([("first", 1), ("promote", 2), ("promote", 3)], 2),
        ([("first", 1), ("promote", 2), ("rollback", 1)], None),
        ([("first", 1), ("promote", 2), ("promote", 3), ("rollback", 2)], 1),
        ([("first", 1), ("promote", 2), ("fallback", 1), ("promote", 3)], 1),
        ([("first", 1), ("promote", 2), ("rollback", 1), ("promote", 2), ("promote", 3)], 2),
        ([("first", 1), ("promote", 2), ("rollback", 1), ("promote", 2), ("promote", 3), ("rollback", 2)], 1),
        ([("first", 1), ("promote", 2), ("rollback", 2), ("promote", 3)], 2),
    ],
)
def test_rollback_goes_to_the_last_other_release_that_nobody_fled_from(
    moves: list[tuple[str, int]], expected: int | None
) -> None:
    assert previous_live(history(*moves)) == expected


def test_a_named_rollback_goes_to_any_release_that_was_live() -> None:
    lived = history(("first", 1), ("promote", 2), ("promote", 4))
    assert rollback_target(lived, 1) == 1
    with pytest.raises(SalverError) as caught:
        rollback_target(lived, 3)
    assert caught.value.code == "nothing-to-roll-back"
    assert str(caught.value) == "churn@3 was never live · hint: releases that were: 1, 2, 4"


def test_rollback_without_a_target_says_what_to_do() -> None:
    with pytest.raises(SalverError) as never:
        rollback_target([])
    assert never.value.code == "no-live-release"
    with pytest.raises(SalverError) as only:
        rollback_target(history(("first", 1)))
    assert only.value.code == "nothing-to-roll-back"
    assert "churn@1 is the only release of churn that was ever live" in str(only.value)
    with pytest.raises(SalverError, match="nothing but churn@2 was live besides churn@1, and that was rolled back"):
        rollback_target(history(("first", 1), ("promote", 2), ("rollback", 1)))
    assert rollback_target(history(("first", 1), ("promote", 2))) == 1
