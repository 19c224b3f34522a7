"""A signature written as typed classes.

    class Customer:
        age: Annotated[int, Range(0, 120)]
        income: float | None                          # nullable: may be null, must be there
        plan: Literal["basic", "pro"]
        joined: datetime
        note: Annotated[str, private] | None = None   # optional: may be absent too
        face: Annotated[list, Array("float32", 64)]

    signature = declare(inputs=Customer, outputs=float)

Dataclasses, TypedDicts, msgspec Structs and plain annotated classes mean the same.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import Enum
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec
import numpy as np
from msgspec import Struct

from salver.errors import error
from salver.signature import Column, ColumnType, Field, Signature, Tensor

DEFAULT_OUTPUT = "prediction"


class Range(Struct, frozen=True):
    """What values of a number are usual, both ends included; `Annotated[int, Range(0, 120)]`."""

    minimum: float | None = None
    maximum: float | None = None


class Array:
    """One array per row: its dtype and the shape of one row, -1 where free; `Annotated[list, Array("float32", 64)]`."""

    __slots__ = ("dtype", "shape")

    def __init__(self, dtype: str, *shape: int) -> None:
        self.dtype = dtype
        self.shape = shape


class Mark(Struct, frozen=True):
    """Something said of a field within `Annotated`."""

    name: str


private = Mark("private")
"""Values of this field are never shown or stored in the clear."""
enforced = Mark("enforced")
"""Values beyond the range or the categories are refused, not only counted."""
non_finite = Mark("non_finite")
"""This output may be NaN or infinite; it is sent as null."""


class _Member(NamedTuple):
    """One annotated name of a class; `optional` if it may be absent, `problem` if it can't be used."""

    name: str
    hint: Any
    optional: bool = False
    problem: str = ""


class _UnusableError(Exception):
    """What is wrong with one field; collected with the others."""


def declare(*, inputs: Any, outputs: Any) -> Signature:
    """The signature that two classes declare; a plain type as `outputs` is one output called `prediction`.

    Sequences of `Column` and `Tensor` are taken as they are. Raises `bad-signature` naming every problem of both sides.
    """
    problems: list[str] = []
    found = [list(_fields("input", inputs, problems)), list(_fields("output", outputs, problems))]
    if problems:
        raise error("bad-signature", "the declared signature can't be used", details=tuple(problems))
    return Signature(tuple(found[0]), tuple(found[1]))


def _fields(side: str, declared: Any, problems: list[str]) -> Iterator[Field]:
    if isinstance(declared, list | tuple) and all(isinstance(field, Column | Tensor) for field in declared):
        yield from declared
        return
    try:
        members = _members(declared)
    except (NameError, TypeError) as problem:
        problems.append(f"the {side}s of {_name(declared)}: a type can't be resolved: {problem}")
        return
    if members is None:
        members = [_Member(DEFAULT_OUTPUT if side == "output" else "input", declared)]
    for member in members:
        try:
            yield _field(side, member)
        except _UnusableError as problem:
            problems.append(f"{side} {member.name!r}: {problem}")


def _name(declared: Any) -> str:
    return str(getattr(declared, "__qualname__", declared))


# Classes


def _members(declared: Any) -> list[_Member] | None:
    """The annotated names of a class in order; None for what is no such class but one type."""
    if not isinstance(declared, type) or not _is_annotated(declared):
        return None
    if issubclass(declared, Struct):
        return [_struct_member(field) for field in msgspec.structs.fields(declared)]
    hints = {
        name: hint
        for name, hint in get_type_hints(declared, include_extras=True).items()
        if get_origin(hint) is not ClassVar and hint is not ClassVar
    }
    if is_typeddict(declared):
        required = vars(declared)["__required_keys__"]
        return [_Member(name, hint, name not in required) for name, hint in hints.items()]
    defaults = _defaults(declared)
    return [_with_default(name, hint, defaults.get(name, _NO_DEFAULT)) for name, hint in hints.items()]


def _is_annotated(declared: type) -> bool:
    if issubclass(declared, Enum):
        return False
    return is_typeddict(declared) or any(inspect.get_annotations(kind) for kind in declared.__mro__)


_NO_DEFAULT = object()


def _defaults(declared: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(declared):
        return {name: value for kind in reversed(declared.__mro__) for name, value in vars(kind).items()}
    return {
        field.name: field.default_factory if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(declared)
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    }


def _struct_member(field: msgspec.structs.FieldInfo) -> _Member:
    if field.required:
        return _Member(field.encode_name, field.type)
    return _with_default(field.encode_name, field.type, field.default)


def _with_default(name: str, hint: Any, default: Any) -> _Member:
    if default is _NO_DEFAULT:
        return _Member(name, hint)
    if default is None:
        return _Member(name, hint, optional=True)
    return _Member(name, hint, problem="has a default, but an absent field counts as null: only None can be one")


# Types


def _field(side: str, member: _Member) -> Field:
    if member.problem:
        raise _UnusableError(member.problem)
    hint, marks, nullable, optional = _unwrapped(member.hint)
    optional = optional or member.optional
    known = [mark for mark in marks if isinstance(mark, Range | Array | Mark)]
    names = {mark.name for mark in known if isinstance(mark, Mark)}
    if non_finite.name in names and side == "input":
        raise _UnusableError("non_finite is for outputs; an input that may be missing is declared with | None")
    arrays = [mark for mark in known if isinstance(mark, Array)]
    if arrays:
        if nullable or optional:
            raise _UnusableError("an array can be neither null nor absent")
        shape = (-1, *arrays[-1].shape)
        return Tensor(member.name, arrays[-1].dtype, shape, private.name in names, non_finite.name in names)
    kind, categories = _column_type(hint)
    ranges = [mark for mark in known if isinstance(mark, Range)]
    bounds = ranges[-1] if ranges else Range()
    if ranges and kind not in ("int", "float"):
        raise _UnusableError(f"a Range is for numbers, not for {kind}")
    if enforced.name in names and not ranges and categories is None:
        raise _UnusableError("enforced needs a Range or a Literal to enforce")
    return Column(
        member.name,
        kind,
        nullable=nullable or optional,
        optional=optional,
        minimum=bounds.minimum,
        maximum=bounds.maximum,
        categories=categories,
        enforce=enforced.name in names,
        private=private.name in names,
        non_finite=non_finite.name in names,
    )


def _unwrapped(hint: Any) -> tuple[Any, list[Any], bool, bool]:
    """The bare type, everything said of it in Annotated, and whether it may be null or absent."""
    marks: list[Any] = []
    nullable = optional = False
    while True:
        origin = get_origin(hint)
        if origin is Annotated:
            hint, *said = get_args(hint)
            marks += said
        elif origin in (NotRequired, Required):
            optional = optional or origin is NotRequired
            (hint,) = get_args(hint)
        elif origin in (Union, types.UnionType) and type(None) in get_args(hint):
            nullable = True
            hint = _union(kind for kind in get_args(hint) if kind is not type(None))
        else:
            return hint, marks, nullable, optional


def _union(kinds: Iterable[Any]) -> Any:
    return Union[tuple(kinds)]  # noqa: UP007 - the members are only known now


_PLAIN: tuple[tuple[tuple[type, ...], ColumnType], ...] = (
    ((bool, np.bool_), "bool"),
    ((int, np.integer), "int"),
    ((float, np.floating), "float"),
    ((datetime, np.datetime64), "datetime"),
    ((str,), "str"),
    ((bytes,), "bytes"),
)


def _column_type(hint: Any) -> tuple[ColumnType, tuple[str, ...] | None]:
    if get_origin(hint) is Literal:
        return "category", _categories(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType) and set(get_args(hint)) == {int, float}:
        return "float", None
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "category", _categories([member.value for member in hint])
    for kinds, name in _PLAIN:
        if isinstance(hint, type) and issubclass(hint, kinds):
            return name, None
    raise _UnusableError(
        f"{_name(hint)} is no type of a field; use float, int, bool, str, datetime, bytes, a Literal of texts, "
        "any of them with | None, or Annotated[list, Array(dtype, *shape)]"
    )


def _categories(values: Iterable[Any]) -> tuple[str, ...]:
    categories = tuple(values)
    if not categories or not all(isinstance(value, str) for value in categories):
        raise _UnusableError("categories are texts")
    return categories
