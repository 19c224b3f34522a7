"""Cells as a script: which definitions of a notebook travel, and which don't."""

from __future__ import annotations

from typing import Any

import pytest

from salver.errors import SalverError
from salver.packaging import cells


def module(*sources: str, wanted: str = "f", present: tuple[str, ...] = ()) -> str:
    return cells.extract(sources, [wanted], present)


def test_the_last_definition_of_a_name_wins_and_takes_what_it_reads() -> None:
    text = module("old = 1", "def f():\n    return old", "new = 2", "def f():\n    return new")
    assert text == "new = 2\n\ndef f():\n    return new\n"


def test_an_earlier_definition_that_something_was_made_with_stays() -> None:
    sources = ("RATE = 2", "TWICE = RATE * 2", "RATE = 5", "def f():\n    return TWICE, RATE")
    names: dict[str, Any] = {}
    exec(module(*sources), names)
    assert names["f"]() == (4, 5)


def test_an_earlier_function_that_ran_in_between_stays() -> None:
    sources = (
        "def g():\n    return 1",
        "A = [g() for _ in range(2)]",
        "def g():\n    return 2",
        "def f():\n    return A, g()",
    )
    names: dict[str, Any] = {}
    exec(module(*sources), names)
    assert names["f"]() == ([1, 1], 2)


def test_an_earlier_base_class_stays_where_its_subclass_was_not_made_again() -> None:
    sources = ("class B:\n    x = 1", "class f(B):\n    pass", "class B:\n    x = 2")
    names: dict[str, Any] = {}
    exec(module(*sources), names)
    assert names["f"].x == 1


@pytest.mark.parametrize("again", [(0,), (0, 1), (2,), (2, 0, 1)])
def test_cells_that_ran_again_unchanged_leave_the_module_as_it_was(again: tuple[int, ...]) -> None:
    sources = ("import json", "LIMIT = 3\ndef g():\n    return LIMIT", "def f():\n    return json.dumps(g())")
    assert module(*sources, *(sources[place] for place in again)) == module(*sources)


def test_a_value_that_was_changed_and_made_again_is_made_again() -> None:
    sources = ("X = {}", "X['a'] = 1", "X = {}", "def f():\n    return X")
    names: dict[str, Any] = {}
    exec(module(*sources), names)
    assert names["f"]() == {}


def test_what_adds_to_itself_runs_as_often_as_its_cell_did() -> None:
    names: dict[str, Any] = {}
    exec(module("X = 1", "X = X + 1", "X = X + 1", "def f():\n    return X"), names)
    assert names["f"]() == 3


def test_magics_and_what_no_module_can_hold_stay_behind() -> None:
    text = module("this is no python", "await something()", "get_ipython().run_line_magic('env', '')", "def f(): pass")
    assert text == "def f(): pass\n"


def test_a_future_import_holds_for_all_cells() -> None:
    text = module("from __future__ import annotations", "def f(x: Nowhere): pass")
    assert text == "from __future__ import annotations\n\ndef f(x: Nowhere): pass\n"


def test_what_no_cell_defines_is_refused() -> None:
    with pytest.raises(SalverError, match="uses files, which no cell defines") as caught:
        module("files = get_ipython().getoutput('ls')", "def f():\n    return files, len", present=("files", "f"))
    assert caught.value.code == "code-not-closed"
