"""The signature of a model: its named, typed inputs and outputs, and what a change of them breaks.

A signature is plain frozen data. `protocols` compiles it to a decoder, `publish` infers it from example rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from salver.errors import error

ColumnType = Literal["float", "int", "bool", "str", "category", "datetime", "bytes"]
DTYPES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
    "str",
)  # fmt: skip


class Column(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="column"):
    """One named value per row.

    `nullable` allows null; `optional` also allows the field to be absent (which then counts as null). `minimum`,
    `maximum` and `categories` describe what training saw; rows outside are counted, and rejected only with `enforce`.
    `private` keeps values out of error messages. On an output, `non_finite` allows NaN and infinities (sent as null).
    """

    name: str
    type: ColumnType
    nullable: bool = False
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    enforce: bool = False
    private: bool = False
    non_finite: bool = False


class Tensor(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="tensor"):
    """One named array per row.

    `shape` is the shape over all rows: the first dimension is the row and always free (-1), further ones may be free.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    private: bool = False
    non_finite: bool = False

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row; -1 where free."""
        return self.shape[1:]


Field = Column | Tensor


class Signature(Struct, frozen=True, forbid_unknown_fields=True):
    """The named, typed inputs and outputs of one release, in order; never empty, never silently absent."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]

    def __post_init__(self) -> None:
        problems = [*_problems("input", self.inputs), *_problems("output", self.outputs)]
        if problems:
            raise error("bad-signature", "the signature can't be used", details=tuple(problems))


def _problems(side: str, fields: tuple[Field, ...]) -> Iterable[str]:
    if not fields:
        yield f"no {side} is declared"
    seen: set[str] = set()
    for field in fields:
        where = f"{side} {field.name!r}"
        if not field.name:
            yield f"an {side} has an empty name"
        if field.name in seen:
            yield f"{where} is declared twice"
        seen.add(field.name)
        if isinstance(field, Tensor):
            if field.dtype not in DTYPES:
                yield f"{where}: unknown dtype {field.dtype!r}; one of {', '.join(DTYPES)}"
            if not field.shape or field.shape[0] != -1 or any(d < -1 or d == 0 for d in field.shape):
                yield f"{where}: shape {list(field.shape)} must begin with -1 (the rows) and hold no zero"
        elif field.type == "bytes" and (field.categories, field.minimum, field.maximum) != (None, None, None):
            yield f"{where}: bytes have neither a range nor categories"
        elif field.minimum is not None and field.maximum is not None and field.minimum > field.maximum:
            yield f"{where}: minimum {field.minimum} is above maximum {field.maximum}"


class Change(Struct, frozen=True):
    """One difference between two signatures: where (`input age`), what changed, and why it breaks clients or not."""

    kind: Literal["compatible", "breaking"]
    where: str
    what: str
    why: str


_WIDER: dict[ColumnType, tuple[ColumnType, ...]] = {
    "int": ("int", "float"),
    "float": ("float",),
    "bool": ("bool",),
    "str": ("str", "category"),
    "category": ("category", "str"),
    "datetime": ("datetime", "str", "category"),
    "bytes": ("bytes",),
}
"""To which types a value of a type may be sent: whole numbers where numbers are wanted, dates where text is."""


_NEW_OUTPUT = "answers name their outputs, so clients find those they know"
_SECOND_OUTPUT = f"{_NEW_OUTPUT}; only V1 answers, bare values of one output so far, become objects"


def explain_break(old: Signature, new: Signature) -> list[Change]:
    """Every difference that matters to clients of `old` once `new` answers them; empty if nothing does.

    A client that satisfied the old inputs must satisfy the new ones, and one that understands every answer of the old
    outputs must understand the new ones. Fields a model doesn't know are ignored, so a removed input breaks nothing;
    because of that, "compatible" carries over two steps only if no input was removed in the first and came back in
    the second. Order counts on both sides, since values may also be sent and read by place, where another order would
    go unnoticed; another number of inputs does not, since rows of the wrong length are refused with their names.
    """
    return [*_input_changes(old.inputs, new.inputs), *_output_changes(old.outputs, new.outputs)]


def breaking(changes: Iterable[Change]) -> list[Change]:
    """Only the changes that break a client."""
    return [change for change in changes if change.kind == "breaking"]


def _input_changes(old: tuple[Field, ...], new: tuple[Field, ...]) -> Iterator[Change]:
    before, after = {field.name: field for field in old}, {field.name: field for field in new}
    for name, field in before.items():
        where = f"input {name}"
        now = after.get(name)
        if now is None:
            yield Change("compatible", where, "was removed", "fields the model doesn't know are ignored")
        else:
            lost = list(_lost(field, now))
            for what, value in lost:
                yield Change("breaking", where, what, f"a client that sends {value} was answered and is now refused")
            if not lost and field != now:
                yield Change("compatible", where, _reworded(field, now), "every value that was accepted still is")
    for name, now in after.items():
        where = f"input {name}"
        if name not in before and isinstance(now, Column) and now.optional:
            yield Change("compatible", where, "is new and optional", "clients that don't send it are answered")
        elif name not in before:
            yield Change("breaking", where, "is new and required", "clients that don't send it are refused")
    kept = [name for name in after if name in before]
    if kept != [name for name in before if name in after]:
        why = "rows that clients send as plain lists are read by place, so values would be taken for others"
        yield Change("breaking", "inputs", f"are in another order: {', '.join(kept)}", why)


def _output_changes(old: tuple[Field, ...], new: tuple[Field, ...]) -> Iterator[Change]:
    before, after = {field.name: field for field in old}, {field.name: field for field in new}
    for name, field in before.items():
        where = f"output {name}"
        now = after.get(name)
        if now is None:
            yield Change("breaking", where, "was removed", "clients that read it find nothing")
        else:
            lost = list(_unforeseen(field, now))
            for what, value in lost:
                yield Change("breaking", where, what, f"a client meets {value}, which no answer held before")
            if not lost and field != now:
                yield Change("compatible", where, _reworded(field, now), "no answer is one that couldn't be before")
    for name in after:
        if name not in before:
            yield Change("compatible", f"output {name}", "is new", _NEW_OUTPUT if len(old) > 1 else _SECOND_OUTPUT)
    kept = [name for name in before if name in after]
    if list(after)[: len(kept)] != kept:
        why = "answers that list their outputs are read by place, so values would be taken for others"
        yield Change("breaking", "outputs", f"are in another order: {', '.join(after)}", why)


def _unforeseen(old: Field, new: Field) -> Iterator[tuple[str, str]]:
    """What the new output may hold and the old one couldn't, as (what changed, such a value)."""
    if isinstance(old, Column) and isinstance(new, Column) and _text(old) != _text(new):
        yield f"changed its type from {old.type} to {new.type}", f"{new.type} values"
        return
    for _, value in _lost(new, old):
        yield _reworded(old, new), value
    if isinstance(new, Column) and new.non_finite and not old.non_finite:
        yield "may now be NaN or infinite", "null"


def _reworded(old: Field, new: Field) -> str:
    before, after = describe_field(old), describe_field(new)
    return f"was {before}, is {after}" if before != after else "describes its values in another way"


def _text(column: Column) -> str:
    return "text" if column.type in ("str", "category") else column.type


def _lost(wide: Field, narrow: Field) -> Iterator[tuple[str, str]]:
    """What `wide` allows and `narrow` doesn't, as (what changed from wide to narrow, such a value)."""
    if isinstance(wide, Tensor) and isinstance(narrow, Tensor):
        yield from _lost_tensor(wide, narrow)
    elif isinstance(wide, Column) and isinstance(narrow, Column):
        yield from _lost_column(wide, narrow)
    else:
        kinds = ["an array" if isinstance(field, Tensor) else "a plain value" for field in (wide, narrow)]
        yield f"was {kinds[0]} per row, is {kinds[1]}", kinds[0]


def _lost_tensor(wide: Tensor, narrow: Tensor) -> Iterator[tuple[str, str]]:
    if wide.dtype != narrow.dtype:
        yield f"changed its dtype from {wide.dtype} to {narrow.dtype}", f"an array of {wide.dtype}"
    if len(wide.shape) != len(narrow.shape) or any(
        now not in (-1, was) for was, now in zip(wide.shape, narrow.shape, strict=False)
    ):
        yield f"changed its shape from {list(wide.shape)} to {list(narrow.shape)}", f"the shape {list(wide.shape)}"
    if wide.non_finite and not narrow.non_finite:
        yield "no longer allows NaN and infinities", "NaN"


def _lost_column(wide: Column, narrow: Column) -> Iterator[tuple[str, str]]:
    if narrow.type not in _WIDER[wide.type]:
        yield f"changed its type from {wide.type} to {narrow.type}", f"{wide.type} values"
        return
    if (wide.nullable or wide.optional) and not (narrow.nullable or narrow.optional):
        yield "is no longer nullable", "null"
    if wide.optional and not narrow.optional:
        yield "is no longer optional", "no such field"
    if narrow.enforce and narrow.type in ("int", "float"):
        yield from _lost_range(wide, narrow)
    elif narrow.enforce and narrow.type in ("str", "category"):
        yield from _lost_categories(wide, narrow)


def _lost_range(wide: Column, narrow: Column) -> Iterator[tuple[str, str]]:
    least, most = (wide.minimum, wide.maximum) if wide.enforce else (None, None)
    if narrow.minimum is not None and (least is None or least < narrow.minimum):
        yield _bound("minimum", least, narrow.minimum, narrow.private), "a smaller value"
    if narrow.maximum is not None and (most is None or most > narrow.maximum):
        yield _bound("maximum", most, narrow.maximum, narrow.private), "a larger value"


def _bound(name: str, was: float | None, now: float, private: bool) -> str:
    if private:
        return f"enforces a narrower {name}"
    return f"enforces the {name} {now!r}" + ("" if was is None else f", where it was {was!r}")


def _lost_categories(wide: Column, narrow: Column) -> Iterator[tuple[str, str]]:
    if not narrow.categories:
        return
    if not wide.enforce or not wide.categories or wide.type == "datetime":
        yield "now refuses categories that it doesn't know", "another category"
        return
    gone = [category for category in wide.categories if category not in set(narrow.categories)]
    if gone:
        named = "some" if narrow.private or wide.private else ", ".join(map(repr, gone[:10]))
        yield f"no longer knows {len(gone)} of its categories: {named}", "one of them"


def is_blob(field: Field) -> bool:
    """Whether a field holds bytes."""
    return isinstance(field, Column) and field.type == "bytes"


def describe(signature: Signature) -> list[str]:
    """The signature as lines for people: a heading per side, then one aligned line per field."""
    lines = []
    for side, fields in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        width = max(len(field.name) for field in fields)
        lines.append(side)
        lines += [f"  {field.name:<{width}}  {describe_field(field)}" for field in fields]
    return lines


def describe_field(field: Field) -> str:
    """One field in words, without its name: `int, nullable, 0 to 120`. Says nothing of a private field's values."""
    if isinstance(field, Tensor):
        words = [f"{field.dtype}[{', '.join('any' if size == -1 else str(size) for size in field.shape)}]"]
    else:
        words = [field.type]
        words += [word for word, set_ in (("optional", field.optional), ("nullable", field.nullable)) if set_]
        words += [] if field.private else _facts(field)
        words += ["enforced"] if field.enforce else []
    words += ["may be NaN or infinite"] if field.non_finite else []
    words += ["private"] if field.private else []
    return ", ".join(words)


def _facts(column: Column) -> list[str]:
    facts = []
    if column.minimum is not None and column.maximum is not None:
        facts.append(f"{_number(column.minimum)} to {_number(column.maximum)}")
    elif column.minimum is not None:
        facts.append(f"at least {_number(column.minimum)}")
    elif column.maximum is not None:
        facts.append(f"at most {_number(column.maximum)}")
    if column.categories is not None:
        shown = "|".join(column.categories[:6])
        facts.append(shown if len(column.categories) <= 6 else f"{shown}|… ({len(column.categories)} categories)")
    return facts


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"
