"""Promote and roll back on a real registry: who comes second is told, and nothing is overwritten unseen."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from salver.errors import SalverError
from salver.registry import Registry
from salver.rollout.move import Intent, promote, rollback
from salver.route import Canary, Change, Route, next_route
from salver.storage.folder import FolderStorage
from tests.integration import sample_releases

AT = "2025-01-01T00:00:00Z"
ANN, BEN = Intent("ann", AT, "better"), Intent("ben", AT)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """churn@1 to churn@4; no route yet."""
    registry = Registry(FolderStorage(tmp_path / "registry"))
    for number in range(1, 5):
        folder = tmp_path / str(number)
        registry.publish(folder, sample_releases.build(folder, str(number)), sample_releases.PROVENANCE)
    return registry


def lives(registry: Registry) -> list[int]:
    return [route.live for route in registry.history("churn")]


def test_a_promotion_is_the_next_entry_with_who_when_and_why(registry: Registry) -> None:
    route = promote(registry, "churn", 3, ANN)
    assert route == Route("churn", 1, 3, "ann", AT, "promote", "better")
    assert registry.current("churn") == route


def test_promoting_what_is_live_changes_nothing(registry: Registry) -> None:
    first = promote(registry, "churn", 3, ANN)
    assert promote(registry, "churn", 3, BEN) == first
    assert lives(registry) == [3]


def test_promoting_what_is_live_ends_a_canary_beside_it(registry: Registry) -> None:
    first = promote(registry, "churn", 3, ANN)
    registry.append_route(next_route("churn", first, Change(3, "promote", "ann", AT, canary=Canary(4, 0.1))))
    assert promote(registry, "churn", 3, BEN).seq == 3
    current = registry.current("churn")
    assert current is not None
    assert current.canary is None


@pytest.mark.parametrize(("model", "number"), [("churn", 9), ("churn", 0), ("fraud", 1)])
def test_what_does_not_exist_can_not_be_promoted(registry: Registry, model: str, number: int) -> None:
    with pytest.raises(SalverError) as caught:
        promote(registry, model, number, ANN)
    assert caught.value.code in ("no-such-release", "no-such-model", "bad-name")
    assert registry.current("churn") is None


def test_rollback_goes_to_the_previous_distinct_release_and_again_further_back(registry: Registry) -> None:
    for number in (1, 2, 3):
        promote(registry, "churn", number, ANN)
    assert rollback(registry, "churn", BEN).live == 2
    assert rollback(registry, "churn", BEN).live == 1
    assert registry.current("churn") == Route("churn", 5, 1, "ben", AT, "rollback")


def test_rollback_to_a_number_needs_one_that_was_live(registry: Registry) -> None:
    for number in (1, 3):
        promote(registry, "churn", number, ANN)
    assert rollback(registry, "churn", BEN, to=1).live == 1
    with pytest.raises(SalverError) as caught:
        rollback(registry, "churn", BEN, to=4)
    assert caught.value.code == "nothing-to-roll-back"
    assert lives(registry) == [1, 3, 1]


def test_rollback_to_what_is_live_changes_nothing(registry: Registry) -> None:
    promote(registry, "churn", 1, ANN)
    second = promote(registry, "churn", 2, ANN)
    assert rollback(registry, "churn", BEN, to=2) == second


def test_without_a_past_there_is_nothing_to_roll_back_to(registry: Registry) -> None:
    with pytest.raises(SalverError) as caught:
        rollback(registry, "churn", BEN)
    assert caught.value.code == "no-live-release"
    promote(registry, "churn", 1, ANN)
    with pytest.raises(SalverError) as caught:
        rollback(registry, "churn", BEN)
    assert caught.value.code == "nothing-to-roll-back"


def test_a_decision_on_an_older_route_is_refused_and_names_who_came_first(registry: Registry) -> None:
    promote(registry, "churn", 1, ANN)
    promote(registry, "churn", 2, BEN)
    late = ANN._replace(seen=1)
    moves: list[Callable[[], Route]] = [
        lambda: promote(registry, "churn", 3, late),
        lambda: rollback(registry, "churn", late),
    ]
    for move in moves:
        with pytest.raises(SalverError) as caught:
            move()
        assert caught.value.code == "lost-race"
        assert "ben made churn@2 live" in caught.value.message
    assert promote(registry, "churn", 3, ANN._replace(seen=2)).seq == 3


def test_a_decision_on_a_route_that_does_not_exist_is_refused(registry: Registry) -> None:
    promote(registry, "churn", 1, ANN)
    with pytest.raises(SalverError) as caught:
        promote(registry, "churn", 2, ANN._replace(seen=7))
    assert caught.value.code == "lost-race"


class Interrupted:
    """A registry in which somebody else is quicker, once."""

    def __init__(self, registry: Registry, live: int) -> None:
        self._registry = registry
        self._live: int | None = live
        self.find = registry.find
        self.history = registry.history

    def append_route(self, route: Route) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            promote(self._registry, "churn", live, BEN)
        self._registry.append_route(route)


def test_who_loses_the_race_is_told_who_won(registry: Registry) -> None:
    promote(registry, "churn", 1, ANN)
    with pytest.raises(SalverError) as caught:
        promote(Interrupted(registry, 3), "churn", 2, ANN)
    assert caught.value.code == "lost-race"
    assert "ben made churn@3 live" in caught.value.message
    assert lives(registry) == [1, 3]


def test_who_loses_the_race_to_the_same_move_has_what_was_wanted(registry: Registry) -> None:
    promote(registry, "churn", 1, ANN)
    route = promote(Interrupted(registry, 2), "churn", 2, ANN)
    assert (route.actor, route.live, route.seq) == ("ben", 2, 2)


def test_of_many_at_once_each_wins_or_loses_and_the_list_has_no_gap(registry: Registry) -> None:
    promote(registry, "churn", 1, ANN)

    def one(turn: int) -> int:
        try:
            promote(registry, "churn", 2 + turn % 3, Intent(f"user{turn}", AT, seen=1))
        except SalverError as problem:
            return 0 if problem.code == "lost-race" else 1000
        return 1

    with ThreadPoolExecutor(8) as pool:
        won = sum(pool.map(one, range(24)))
    history = registry.history("churn")
    assert [route.seq for route in history] == [1, 2]
    winner = history[1].live
    assert won >= 1
    assert won <= sum(1 for turn in range(24) if 2 + turn % 3 == winner), "only who wanted the same was content"
