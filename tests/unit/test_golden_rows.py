"""Which examples become golden rows, and that no private value does."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.datasets import load_wine

from salver.publish import golden_rows
from salver.signature import Column, Tensor


def wine() -> list[dict[str, Any]]:
    table = load_wine(as_frame=True).frame
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def test_the_choice_holds_the_ends_and_the_extremes_of_each_number() -> None:
    rows = wine()
    chosen = golden_rows.choose(rows, 32)
    assert len(chosen) == 32
    assert {0, len(rows) - 1} <= set(chosen)
    for name in rows[0]:
        values = [row[name] for row in rows]
        picked = [values[index] for index in chosen]
        assert (min(picked), max(picked)) == (min(values), max(values))


def test_the_same_rows_give_the_same_choice() -> None:
    assert golden_rows.choose(wine(), 32) == golden_rows.choose(wine(), 32)


def test_a_row_with_a_null_and_one_of_each_category_are_chosen() -> None:
    rows = [{"plan": "basic", "age": 30} for _ in range(100)]
    rows[41] = {"plan": "pro", "age": 30}
    rows[57] = {"plan": "basic", "age": None}
    assert {41, 57} <= set(golden_rows.choose(rows, 8))


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 500])
def test_the_choice_is_sorted_distinct_and_never_longer_than_its_limit(count: int) -> None:
    rows = [{"x": float(number % 7)} for number in range(count)]
    chosen = golden_rows.choose(rows, 32)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, 32)


def test_many_columns_can_not_break_the_limit() -> None:
    rows = [{f"x{column}": float((row * column) % 11) for column in range(200)} for row in range(50)]
    assert len(golden_rows.choose(rows, 32)) == 32


def test_rows_of_much_text_are_taken_as_far_as_there_is_room() -> None:
    large = "A" * (golden_rows.MAX_TEXT // 2)
    assert golden_rows.choose([{"x": large + mark} for mark in "abc"], 32) == [0]
    rows = [{"x": large}, *({"x": mark} for mark in "abc"), {"x": large + "z"}]
    assert golden_rows.choose(rows, 32) == [0, 1, 2, 3]


def test_spread_reaches_both_ends() -> None:
    assert golden_rows.spread(100, 4) == [0, 33, 66, 99]
    assert golden_rows.spread(3, 4) == [0, 1, 2]


def test_private_values_are_replaced_by_ones_that_say_nothing() -> None:
    fields = (
        Column("email", "str", private=True),
        Column("income", "float", private=True),
        Column("plan", "category", categories=("basic", "pro"), private=True),
        Column("born", "datetime", private=True),
        Column("vip", "bool", private=True),
        Column("photo", "bytes", private=True),
        Tensor("face", "float64", (-1, 2), private=True),
        Column("age", "int"),
    )
    row = {
        "email": "ada@example.org", "income": 81_000.0, "plan": "pro", "born": "1815-12-10T00:00:00", "vip": True,
        "photo": "AP8=", "face": [0.3, 0.4], "age": 36,
    }  # fmt: skip
    assert golden_rows.stand_in(row, fields) == {
        "email": "", "income": 0.0, "plan": "basic", "born": "2000-01-01T00:00:00", "vip": False,
        "photo": "", "face": [0.0, 0.0], "age": 36,
    }  # fmt: skip


def test_a_private_null_stays_null() -> None:
    assert golden_rows.stand_in({"x": None}, (Column("x", "float", nullable=True, private=True),)) == {"x": None}
