"""Texts for what globals hold: equal for equal values in two processes, and different for different ones."""

from __future__ import annotations

import enum
import re
import threading
from collections import Counter, OrderedDict, deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from salver.packaging import state

HERE = __name__


class Words:
    """An object of the user's own."""

    def __init__(self, **words: Any) -> None:
        self.words = words


class Kind(enum.Enum):
    """An enumeration of the user's own."""

    A = 1
    B = 2


def described(value: Any) -> str:
    return state.describe(value, {}, [HERE])


EQUAL = [
    (lambda: {"b": 1, "a": [2.5, None, True]}, lambda: {"a": [2.5, None, True], "b": 1}),
    (lambda: {"x", "y", "z"}, lambda: {"z", "x", "y"}),
    (lambda: np.array([1.0, np.nan]), lambda: np.array([1.0, np.nan])),
    (lambda: np.array(["a", None], object), lambda: np.array(["a", None], object)),
    (lambda: Counter("aab"), lambda: Counter(a=2, b=1)),
    (lambda: Words(a=1), lambda: Words(a=1)),
    (lambda: {"f": threading.Lock()}, lambda: {"f": threading.Lock()}),
    (lambda: "\udcff", lambda: "\udcff"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_values_have_one_text(one: Any, other: Any) -> None:
    assert described(one()) == described(other()) != ""


DIFFERENT = [
    ({"a": 1}, {"a": 2}),
    ({"a": 1}, {"a": 1.5}),
    ([1, 2], [1, 2, 3]),
    (True, 1),
    ("1", 1),
    (b"1", "1"),
    (None, 0),
    (0.0, -0.0),
    ({1}, [1]),
    (np.zeros(3), np.zeros(3, np.float32)),
    (np.zeros(3), np.zeros((3, 1))),
    (np.zeros(3), np.array([0, 0, 1.0])),
    (np.float64(1), np.float64(2)),
    (np.array(["a"], object), np.array(["b"], object)),
    (deque([1]), deque([2])),
    (OrderedDict(a=1), OrderedDict(a=2)),
    (SimpleNamespace(a=1), SimpleNamespace(a=2)),
    (Words(a=1), Words(a=2)),
    ([Words(a=1)], [Words(a=2)]),
    (Kind.A, Kind.B),
    ({"a": {"b": [{"c": 1}]}}, {"a": {"b": [{"c": 2}]}}),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_values_have_different_texts(one: Any, other: Any) -> None:
    assert described(one) != described(other)


@pytest.mark.parametrize("value", [threading.Lock(), re.compile("a"), object(), len, SimpleNamespace])
def test_what_has_no_plain_value_is_compared_with_nothing(value: Any) -> None:
    assert described(value) == ""


def test_what_contains_itself_has_a_text() -> None:
    words = Words()
    words.words = {"me": words, "all": [words, words]}
    assert described(words) != ""


def test_of_what_is_very_large_the_size_counts() -> None:
    assert described(list(range(10**6))) == described(list(range(1, 10**6 + 1))) != described(list(range(10**6 + 1)))


def test_the_place_where_a_module_runs_does_not_count() -> None:
    one = state.describe({"path": "/home/me/shop/data"}, {"/home/me/shop": "code"})
    assert one == state.describe({"path": "/tmp/x/data"}, {"/tmp/x": "code"})
    assert one != state.describe({"path": "/tmp/y/data"}, {"/tmp/x": "code"})


def test_a_snapshot_names_globals_and_the_attributes_of_own_classes() -> None:
    watched = {HERE: ["Words", "HERE", "missing"], "no.such.module": ["x"]}
    Words.table = {"a": 1}  # type: ignore[attr-defined]
    found = state.snapshot(watched, {})
    assert found.keys() >= {f"{HERE}:HERE", f"{HERE}:Words.table"}
    assert not any("missing" in name or "no.such" in name for name in found)
