"""What must hold of explain_break for any two or three signatures."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from salver.protocols import Subject
from salver.protocols.native import PROTOCOL
from salver.signature import Column, Field, Signature, Tensor, breaking, describe, explain_break

TYPES = ("float", "int", "bool", "str", "category", "datetime", "bytes")
NAMES = ("a", "b", "c")
ANSWER = (Column("prediction", "float"),)
TEXTS = ("x", "y", "z")
CANDIDATES: list[dict[str, Any]] = [
    {},
    *({"a": value} for value in (None, -1, 0, 1, 2, 3, 4, 5, -0.5, 0.5, 2.5, 4.5, True, False)),
    *({"a": value} for value in (*TEXTS, "other", "2024-01-02T03:04:05Z", "AP8=", [], {})),
]


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    kind = draw(st.sampled_from(TYPES))
    low, high = sorted(draw(st.tuples(st.integers(0, 4), st.integers(0, 4))))
    ranged = kind in ("float", "int")
    nullable = draw(st.booleans())
    return Column(
        name,
        kind,  # type: ignore[arg-type]
        nullable=nullable,
        optional=draw(st.booleans()),
        minimum=draw(st.sampled_from([None, float(low)])) if ranged else None,
        maximum=draw(st.sampled_from([None, float(high)])) if ranged else None,
        categories=tuple(draw(st.sets(st.sampled_from(TEXTS), min_size=1))) if kind == "category" else None,
        enforce=draw(st.booleans()),
        private=draw(st.booleans()),
        non_finite=draw(st.booleans()),
    )


@st.composite
def tensors(draw: st.DrawFn, name: str) -> Tensor:
    shape = draw(st.lists(st.sampled_from([-1, 1, 2]), max_size=2))
    return Tensor(
        name, draw(st.sampled_from(["int64", "float64", "str"])), (-1, *shape), non_finite=draw(st.booleans())
    )


def fields() -> st.SearchStrategy[tuple[Field, ...]]:
    def of(names: list[str]) -> st.SearchStrategy[tuple[Field, ...]]:
        return st.tuples(*(columns(name) | tensors(name) for name in names))

    return st.lists(st.sampled_from(NAMES), min_size=1, unique=True).flatmap(of)


one = columns("a") | tensors("a")
signatures = st.builds(Signature, fields(), fields())


def names(side: tuple[Field, ...]) -> set[str]:
    return {field.name for field in side}


@st.composite
def values(draw: st.DrawFn, field: Field) -> Any:
    """A JSON value that may or may not be valid for the field."""
    if isinstance(field, Tensor):
        element: Any = {"str": "x", "int64": 1, "float64": 1.5}[field.dtype]
        for size in reversed(field.row_shape):
            element = [element] * (draw(st.integers(1, 2)) if size == -1 else size)
        return element
    plain = {
        "float": st.integers(-1, 5) | st.floats(-1, 5),
        "int": st.integers(-1, 5),
        "bool": st.booleans(),
        "datetime": st.sampled_from(["2024-01-02T03:04:05Z", "2024-01-02T03:04:05"]),
        "bytes": st.sampled_from(["AP8=", "", "x"]),
    }
    return draw(plain.get(field.type, st.sampled_from([*TEXTS, "other"])) | st.none())


@st.composite
def rows(draw: st.DrawFn, inputs: tuple[Field, ...]) -> dict[str, Any]:
    row = {field.name: draw(values(field)) for field in inputs}
    for name in draw(st.sets(st.sampled_from(NAMES), max_size=1)):
        row.pop(name, None)
    return row


def accepts(inputs: tuple[Field, ...], row: dict[str, Any]) -> bool:
    codec = PROTOCOL.codec(Subject("m", 1, "function", Signature(inputs, ANSWER)))
    return codec.decode([msgspec.json.encode(row)]).count == 1


def accepted(column: Column) -> set[int]:
    """Which of the candidate rows a column accepts."""
    codec = PROTOCOL.codec(Subject("m", 1, "function", Signature((column,), ANSWER)))
    (part,) = codec.decode([msgspec.json.encode(CANDIDATES)]).parts
    return set(range(len(CANDIDATES))) - set(part.errors)


@given(signatures)
def test_a_signature_doesn_t_break_itself(signature: Signature) -> None:
    assert explain_break(signature, signature) == []


@given(signatures, signatures)
def test_every_difference_is_reported(old: Signature, new: Signature) -> None:
    assert bool(explain_break(old, new)) == (old != new)


@given(st.lists(one, min_size=3, max_size=3), st.lists(one, min_size=3, max_size=3))
def test_two_compatible_steps_of_a_field_are_one(inputs: list[Field], outputs: list[Field]) -> None:
    chain = [Signature((a,), (b,)) for a, b in zip(inputs, outputs, strict=True)]
    for order in permutations(chain):
        if not any(breaking(explain_break(*step)) for step in pairwise(order)):
            assert breaking(explain_break(order[0], order[2])) == []


@given(fields(), fields(), fields())
def test_compatible_steps_add_up_for_inputs_that_come_and_go(
    first: tuple[Field, ...], second: tuple[Field, ...], third: tuple[Field, ...]
) -> None:
    # a name that is dropped and comes back with another meaning is the one documented exception
    assume(names(first) & names(third) <= names(second))
    chain = [Signature(side, ANSWER) for side in (first, second, third)]
    if not breaking(explain_break(chain[0], chain[1])) and not breaking(explain_break(chain[1], chain[2])):
        assert breaking(explain_break(chain[0], chain[2])) == []


@given(fields(), fields(), st.data())
def test_a_row_that_was_accepted_still_is_unless_a_break_is_reported(
    old: tuple[Field, ...], new: tuple[Field, ...], data: st.DataObject
) -> None:
    row = data.draw(rows(old))
    if not breaking(explain_break(Signature(old, ANSWER), Signature(new, ANSWER))) and accepts(old, row):
        assert accepts(new, row)


@settings(max_examples=200)
@given(columns("a"), columns("a"), st.sampled_from([None, *Column.__struct_fields__[1:]]))
def test_a_column_that_breaks_nothing_accepts_all_that_it_did(old: Column, other: Column, only: str | None) -> None:
    new = other if only is None else msgspec.structs.replace(old, **{only: getattr(other, only)})
    assume(new.minimum is None or new.maximum is None or new.minimum <= new.maximum)
    assume(new.type != "bytes" or (new.minimum, new.maximum, new.categories) == (None, None, None))
    if not breaking(explain_break(Signature((old,), ANSWER), Signature((new,), ANSWER))):
        assert accepted(old) <= accepted(new)


@given(signatures)
def test_every_field_is_described_in_one_line(signature: Signature) -> None:
    lines = describe(signature)
    assert len(lines) == 2 + len(signature.inputs) + len(signature.outputs)
    assert not [line for line in lines if "\n" in line]
