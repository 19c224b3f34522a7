from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Optional, TypedDict

import msgspec
import numpy as np
import pytest

from salver.errors import SalverError
from salver.publish.declare import Array, Range, declare, enforced, non_finite, private
from salver.signature import Column, Field, Tensor


class Plan(Enum):
    BASIC = "basic"
    PRO = "pro"


class Person:
    age: Annotated[int, Range(0, 120), enforced]
    kind: ClassVar[str] = "person"


class Customer(Person):
    income: float | None
    plan: Literal["basic", "pro"]
    tier: Annotated[Plan, enforced]
    joined: datetime
    photo: bytes | None
    note: Annotated[str, private] | None = None
    size: np.float32
    face: Annotated[list[float], Array("float32", 64, -1)]


@dataclass
class Plain:
    a: int
    b: Optional[float] = None  # noqa: UP045 - people write it so


class Typed(TypedDict):
    a: int
    b: NotRequired[float | None]


class Partial(TypedDict, total=False):
    b: float


class Record(msgspec.Struct, rename="camel"):
    first_name: str
    last_name: str | None = None


class Unusable:
    a: memoryview
    b: int | str
    c: Annotated[str, Range(1, 2)]
    d: int = 3
    e: Annotated[int, enforced]
    f: list[int]
    g: Annotated[list[int], Array("int64", 3)] | None
    h: Annotated[float, non_finite]
    i: Literal[1, 2]


@dataclass
class Made:
    a: list[int] = field(default_factory=list)


def inputs(declared: Any) -> tuple[Field, ...]:
    return declare(inputs=declared, outputs=float).inputs


def problems(**sides: Any) -> tuple[str, ...]:
    with pytest.raises(SalverError) as caught:
        declare(**sides)
    assert caught.value.code == "bad-signature"
    return caught.value.details


def test_an_annotated_class_is_a_signature_with_what_it_inherits() -> None:
    assert inputs(Customer) == (
        Column("age", "int", minimum=0, maximum=120, enforce=True),
        Column("income", "float", nullable=True),
        Column("plan", "category", categories=("basic", "pro")),
        Column("tier", "category", categories=("basic", "pro"), enforce=True),
        Column("joined", "datetime"),
        Column("photo", "bytes", nullable=True),
        Column("note", "str", nullable=True, optional=True, private=True),
        Column("size", "float"),
        Tensor("face", "float32", (-1, 64, -1)),
    )


@pytest.mark.parametrize("declared", [Plain, Typed])
def test_dataclasses_and_typed_dicts_mean_the_same(declared: type) -> None:
    assert inputs(declared) == (Column("a", "int"), Column("b", "float", nullable=True, optional=True))


def test_a_typed_dict_that_isn_t_total_has_optional_fields() -> None:
    assert inputs(Partial) == (Column("b", "float", nullable=True, optional=True),)


def test_a_struct_gives_the_names_it_has_in_json() -> None:
    assert inputs(Record) == (Column("firstName", "str"), Column("lastName", "str", nullable=True, optional=True))


def test_a_plain_type_is_one_output() -> None:
    outputs = declare(inputs=Plain, outputs=Annotated[float, non_finite]).outputs
    assert outputs == (Column("prediction", "float", non_finite=True),)
    assert declare(inputs=Plain, outputs=Plan).outputs[0].name == "prediction"


def test_fields_are_taken_as_they_are() -> None:
    fields = (Column("x", "int"), Tensor("t", "int8", (-1, 2)))
    signature = declare(inputs=list(fields), outputs=fields)
    assert (signature.inputs, signature.outputs) == (fields, fields)


def test_every_problem_of_both_sides_is_named_at_once() -> None:
    found = problems(inputs=Unusable, outputs=Made)
    types = "use float, int, bool, str, datetime, bytes, a Literal of texts, any of them with | None, or "
    types += "Annotated[list, Array(dtype, *shape)]"
    default = "has a default, but an absent field counts as null: only None can be one"
    assert found == (
        f"input 'a': memoryview is no type of a field; {types}",
        f"input 'b': int | str is no type of a field; {types}",
        "input 'c': a Range is for numbers, not for str",
        f"input 'd': {default}",
        "input 'e': enforced needs a Range or a Literal to enforce",
        f"input 'f': list is no type of a field; {types}",
        "input 'g': an array can be neither null nor absent",
        "input 'h': non_finite is for outputs; an input that may be missing is declared with | None",
        "input 'i': categories are texts",
        f"output 'a': {default}",
    )


def test_a_type_that_can_t_be_resolved_is_named() -> None:
    class Broken:
        a: Nowhere  # type: ignore[name-defined]  # noqa: F821

    assert "'Nowhere' is not defined" in problems(inputs=Broken, outputs=float)[0]


def test_a_range_the_wrong_way_round_is_refused() -> None:
    class Reversed:
        a: Annotated[int, Range(2, 1)]

    assert problems(inputs=Reversed, outputs=float) == ("input 'a': minimum 2 is above maximum 1",)


@pytest.mark.parametrize("declared", [3, dict, type("Empty", (), {})])
def test_what_declares_no_field_is_refused(declared: Any) -> None:
    assert "is no type of a field" in problems(inputs=declared, outputs=float)[0]
