"""How many connections a caller may hold open."""

from __future__ import annotations

from salver.access.principal import ANYONE, Principal
from salver.gateway.callers import Callers

SHOP, OTHER = (Principal(name, frozenset(("predict",))) for name in ("shop", "other"))


def test_a_caller_may_hold_as_many_connections_as_the_limit_and_not_one_more() -> None:
    callers = Callers(3)
    assert [callers.hold(number, SHOP) for number in range(3)] == [None] * 3
    refused = callers.hold("one more", SHOP)
    assert refused is not None
    assert (refused.code, refused.meaning.http, refused.limit) == ("too-many-connections", 429, "key-connections")
    assert "shop" in refused.message
    assert callers["shop"] == 3
    assert callers.hold("one more", OTHER) is None


def test_a_connection_counts_once_however_often_it_asks() -> None:
    callers = Callers(1)
    assert [callers.hold("one", SHOP) for _ in range(5)] == [None] * 5
    renewed = Principal("shop", frozenset())  # the keys were read again
    assert callers.hold("one", renewed) is None
    assert callers["shop"] == 1


def test_a_connection_that_is_gone_makes_room_and_nothing_is_remembered_of_it() -> None:
    callers = Callers(1)
    for number in range(5):
        assert callers.hold(number, SHOP) is None
        assert callers.hold("too many", SHOP) is not None
        callers.free("too many")
        callers.free(number)
        callers.free(number)
    assert callers["shop"] == 0


def test_a_connection_belongs_to_who_asked_on_it_last() -> None:
    callers = Callers(1)
    assert callers.hold("shared", SHOP) is None
    assert callers.hold("shared", OTHER) is None
    assert (callers["shop"], callers["other"]) == (0, 1)
    assert callers.hold("new", OTHER) is not None
    assert callers.hold("new", SHOP) is None
    assert callers.hold("shared", SHOP) is not None  # and stays that of the other one
    assert (callers["shop"], callers["other"]) == (1, 1)


def test_who_needs_no_credential_is_not_counted() -> None:
    callers = Callers(1)
    assert callers.hold("one", SHOP) is None
    assert [callers.hold(name, ANYONE) for name in ("one", "two", "three")] == [None] * 3
    assert (callers["shop"], callers["anyone"]) == (1, 0)
