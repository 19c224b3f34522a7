from __future__ import annotations

from typing import Any

import pytest

from salver.errors import SalverError
from salver.signature import (
    Change,
    Column,
    Field,
    Signature,
    Tensor,
    breaking,
    describe,
    describe_field,
    explain_break,
)

PREDICTION = Column("prediction", "float")
AGE = Column("age", "int")


def changes(before: Field | None, after: Field | None, *, side: str = "inputs") -> list[Change]:
    """What explain_break says of one field beside one that stays."""
    stays = Column("stays", "bool")
    sides = []
    for field in (before, after):
        fields = (stays,) if field is None else (stays, field)
        sides.append(Signature(fields, (PREDICTION,)) if side == "inputs" else Signature((AGE,), fields))
    return explain_break(*sides)


def breaks(before: Field | None, after: Field | None, *, side: str = "inputs") -> bool:
    return bool(breaking(changes(before, after, side=side)))


def test_the_same_signature_changes_nothing() -> None:
    assert changes(AGE, AGE) == []


def test_a_new_required_input_breaks_and_says_whom() -> None:
    assert changes(None, AGE) == [
        Change("breaking", "input age", "is new and required", "clients that don't send it are refused")
    ]


def test_a_new_nullable_input_breaks_since_it_must_be_sent() -> None:
    assert breaks(None, Column("age", "int", nullable=True))


def test_a_new_optional_input_breaks_nothing() -> None:
    (change,) = changes(None, Column("age", "int", nullable=True, optional=True))
    assert change.kind == "compatible"


def test_a_removed_input_breaks_nothing() -> None:
    (change,) = changes(AGE, None)
    assert (change.kind, change.where, change.what) == ("compatible", "input age", "was removed")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Column("x", "float"), Column("x", "int")),
        (Column("x", "int"), Column("x", "bool")),
        (Column("x", "bool"), Column("x", "int")),
        (Column("x", "str"), Column("x", "datetime")),
        (Column("x", "int"), Column("x", "str")),
        (Column("x", "bytes"), Column("x", "str")),
        (Column("x", "str"), Column("x", "bytes")),
        (Column("x", "bytes", nullable=True), Column("x", "bytes")),
        (Column("x", "int", nullable=True), Column("x", "int")),
        (Column("x", "int", nullable=True, optional=True), Column("x", "int", nullable=True)),
        (Column("x", "int", optional=True), Column("x", "int")),
        (Column("x", "int"), Column("x", "int", minimum=0, enforce=True)),
        (Column("x", "int", minimum=0, maximum=9), Column("x", "int", minimum=0, maximum=9, enforce=True)),
        (Column("x", "int", maximum=9, enforce=True), Column("x", "int", maximum=8, enforce=True)),
        (Column("x", "str"), Column("x", "category", categories=("a",), enforce=True)),
        (
            Column("x", "category", categories=("a", "b"), enforce=True),
            Column("x", "category", categories=("a", "c"), enforce=True),
        ),
        (Column("x", "float"), Tensor("x", "float64", (-1, 3))),
        (Tensor("x", "float64", (-1, 3)), Column("x", "float")),
        (Tensor("x", "float64", (-1, 3)), Tensor("x", "float32", (-1, 3))),
        (Tensor("x", "float64", (-1, 3)), Tensor("x", "float64", (-1, 4))),
        (Tensor("x", "float64", (-1, -1)), Tensor("x", "float64", (-1, 4))),
        (Tensor("x", "float64", (-1, 3)), Tensor("x", "float64", (-1, 3, 1))),
    ],
)
def test_an_input_that_refuses_what_it_accepted_breaks(before: Field, after: Field) -> None:
    assert breaks(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Column("x", "int"), Column("x", "float")),
        (Column("x", "int"), Column("x", "int", nullable=True)),
        (Column("x", "int"), Column("x", "int", minimum=3, maximum=4)),
        (Column("x", "int", minimum=3, enforce=True), Column("x", "float", minimum=2, enforce=True)),
        (Column("x", "int", minimum=3, enforce=True), Column("x", "int", minimum=4)),
        (Column("x", "str"), Column("x", "category", categories=("a",))),
        (Column("x", "category", categories=("a",), enforce=True), Column("x", "str")),
        (
            Column("x", "category", categories=("a",), enforce=True),
            Column("x", "category", categories=("b", "a"), enforce=True),
        ),
        (Column("x", "str"), Column("x", "str", private=True)),
        (Tensor("x", "float64", (-1, 3)), Tensor("x", "float64", (-1, -1))),
    ],
)
def test_an_input_that_accepts_all_it_did_is_a_compatible_change(before: Field, after: Field) -> None:
    assert [change.kind for change in changes(before, after)] == ["compatible"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Column("x", "float"), None),
        (Column("x", "float"), Column("y", "float")),
        (Column("x", "int"), Column("x", "float")),
        (Column("x", "float"), Column("x", "int")),
        (Column("x", "float"), Column("x", "float", nullable=True)),
        (Column("x", "float"), Column("x", "float", non_finite=True)),
        (Column("x", "float"), Tensor("x", "float64", (-1, 2))),
        (Tensor("x", "float64", (-1, 2)), Tensor("x", "float64", (-1, -1))),
        (Tensor("x", "float64", (-1, 2)), Tensor("x", "float64", (-1, 2), non_finite=True)),
        (Column("x", "category", categories=("a",), enforce=True), Column("x", "str")),
        (
            Column("x", "category", categories=("a",), enforce=True),
            Column("x", "category", categories=("a", "b"), enforce=True),
        ),
    ],
)
def test_an_output_that_may_hold_what_no_answer_held_breaks(before: Field, after: Field | None) -> None:
    assert breaks(before, after, side="outputs")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, Column("x", "float")),
        (Column("x", "float", nullable=True), Column("x", "float")),
        (Column("x", "float", non_finite=True), Column("x", "float")),
        (Column("x", "str"), Column("x", "category", categories=("a",))),
        (Column("x", "category", categories=("a",)), Column("x", "category", categories=("a", "b"))),
        (Tensor("x", "float64", (-1, -1)), Tensor("x", "float64", (-1, 2))),
    ],
)
def test_an_output_that_stays_within_what_it_could_be_is_compatible(before: Field | None, after: Field) -> None:
    assert [change.kind for change in changes(before, after, side="outputs")] == ["compatible"]


def test_a_new_output_before_an_old_one_breaks_clients_that_read_by_place() -> None:
    old = Signature((AGE,), (PREDICTION,))
    new = Signature((AGE,), (Column("score", "float"), PREDICTION))
    assert [change.where for change in breaking(explain_break(old, new))] == ["outputs"]


def test_another_order_of_inputs_breaks_clients_that_send_plain_lists() -> None:
    old = Signature((AGE, Column("days", "int")), (PREDICTION,))
    new = Signature((Column("days", "int"), AGE), (PREDICTION,))
    (change,) = explain_break(old, new)
    assert (change.kind, change.where, change.what) == ("breaking", "inputs", "are in another order: days, age")


def test_every_broken_thing_of_a_field_is_named() -> None:
    before = Column("x", "int", nullable=True, optional=True)
    after = Column("x", "int", minimum=1, maximum=2, enforce=True)
    assert [change.what for change in changes(before, after)] == [
        "is no longer nullable",
        "is no longer optional",
        "enforces the minimum 1",
        "enforces the maximum 2",
    ]


def test_no_category_or_bound_of_a_private_field_is_named() -> None:
    before = Column("x", "category", categories=("hepatitis",), enforce=True, private=True)
    after = Column("x", "category", categories=("measles",), enforce=True, private=True)
    bounds = changes(Column("y", "int", private=True), Column("y", "int", minimum=37, enforce=True, private=True))
    text = repr(changes(before, after)) + repr(bounds)
    assert "breaking" in text
    assert not [value for value in ("hepatitis", "measles", "37") if value in text]


def test_a_signature_is_described_in_aligned_lines() -> None:
    signature = Signature(
        (
            Column("age", "int", minimum=18, maximum=90.0),
            Column("income", "float", nullable=True, minimum=0.5, maximum=123456.789),
            Column("plan", "category", categories=("basic", "pro"), enforce=True),
            Column("region", "category", categories=tuple("abcdefgh")),
            Column("note", "str", nullable=True, optional=True, private=True),
            Tensor("image", "float32", (-1, 28, -1)),
        ),
        (Column("prediction", "float", non_finite=True),),
    )
    assert describe(signature) == [
        "inputs",
        "  age     int, 18 to 90",
        "  income  float, nullable, 0.5 to 123457",
        "  plan    category, basic|pro, enforced",
        "  region  category, a|b|c|d|e|f|… (8 categories)",
        "  note    str, optional, nullable, private",
        "  image   float32[any, 28, any]",
        "outputs",
        "  prediction  float, may be NaN or infinite",
    ]


def test_a_description_says_nothing_of_private_values() -> None:
    assert describe_field(Column("x", "int", minimum=1, maximum=2, private=True)) == "int, private"


def test_half_open_ranges_are_described() -> None:
    assert describe_field(Column("x", "int", minimum=1)) == "int, at least 1"
    assert describe_field(Column("x", "int", maximum=1e20)) == "int, at most 1e+20"


def test_all_problems_of_a_signature_are_named_at_once() -> None:
    with pytest.raises(SalverError) as caught:
        Signature((Column("x", "int", minimum=2, maximum=1), Column("x", "int"), Tensor("t", "f4", (2,))), ())
    assert caught.value.code == "bad-signature"
    assert len(caught.value.details) == 5


@pytest.mark.parametrize("facts", [{"minimum": 1.0}, {"maximum": 1.0}, {"categories": ("a",)}])
def test_bytes_have_neither_a_range_nor_categories(facts: Any) -> None:
    with pytest.raises(SalverError) as caught:
        Signature((Column("x", "bytes", **facts),), (PREDICTION,))
    assert caught.value.details == ("input 'x': bytes have neither a range nor categories",)


def test_a_second_output_is_said_to_change_v1_answers() -> None:
    old = Signature((AGE,), (PREDICTION,))
    new = Signature((AGE,), (PREDICTION, Column("score", "float")))
    newer = Signature((AGE,), (*new.outputs, Column("note", "str")))
    assert ["V1" in change.why for change in explain_break(old, new)] == [True]
    assert ["V1" in change.why for change in explain_break(new, newer)] == [False]
