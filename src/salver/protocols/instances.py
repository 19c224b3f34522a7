"""Instances: the rows of V1, `/invocations` and TorchServe, as objects, lists of values in order, or bare values.

Reads them one by one where they can't be read in one call: unread JSON, or Python values where the body holds what JSON
lacks. Writes their answers: bare values of one output, objects of several.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct

from salver.errors import SalverError, error
from salver.protocols import Part
from salver.protocols.answers import ENCODER, lines, values_of
from salver.protocols.bounds import check_rows, elements, more_than
from salver.protocols.refusals import settled
from salver.protocols.rows import (
    MAX_ROWS,
    UNREADABLE,
    RowType,
    bad_json,
    converter,
    decoder,
    describe,
    invalid_row,
    is_text,
    may_be_packed,
    optional,
    refusal,
    too_many_rows,
)
from salver.protocols.values import is_packed, json_type
from salver.signature import Column, Field, Tensor, is_blob
from salver.tables import Columns, may_be_null

Form = Literal["predictions", "outputs"]
Row = tuple[Any, ...]

ENOUGH = 2 * MAX_ROWS
"""Bodies up to this many bytes can't hold more instances than allowed: one is at least `1,`."""
_BARE = (*(b"%d" % digit for digit in range(10)), b"-", b'"', b"t", b"f", b"n")
_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_FIRST = re.compile(rb"\s*\[\s*(.)", re.DOTALL)


def fast_decoders(
    rows: RowType, named: type[Struct], compile_for: Callable[[Any], Callable[[Any], Any]]
) -> dict[bytes, Callable[[Any], Any]]:
    """What reads a body in one call if all its instances are of one form, by the first byte of the first of them.

    `named` is the type of row objects; `compile_for` makes what reads the body from the type of one instance.
    """
    # One decoder of a union would read mixed forms too, but a union of a tuple and a constrained number corrupts the
    # memory of msgspec 0.22 once it is collected.
    only = rows.fields[0] if len(rows.fields) == 1 else None
    by_name = compile_for(named)
    bare = by_name if only is None else compile_for(rows.kinds[0])
    in_order = bare if isinstance(only, Tensor) else compile_for(tuple.__class_getitem__(tuple(rows.kinds)))
    found = {b"{": by_name, b"]": by_name, b"[": in_order, **dict.fromkeys(_BARE, bare)}
    if named is rows.struct and only is not None and optional(only):
        del found[b"{"]  # the base64 object of the only value would be a row without it
    return found


def instance_values(instances: list[Any]) -> list[Row]:
    """The values of decoded instances, which are all of one form."""
    form = type(instances[0]) if instances else tuple
    if form is tuple:
        return instances
    return list(map(msgspec.structs.astuple, instances)) if issubclass(form, Struct) else [(x,) for x in instances]


def read_each(items: Sequence[Any], part: Part, read: Callable[[Any, int], Struct]) -> list[Row]:
    """Read each item by itself; raises one error of all bad rows, which are in `part.errors` then."""
    part.rows = len(items)
    rows: list[Row] = []
    for index, item in enumerate(items):
        try:
            rows.append(msgspec.structs.astuple(read(item, index)))
        except SalverError as problem:
            if problem.code != "invalid-row":
                raise
            part.errors[index] = settled(problem)
    if part.errors:
        raise refusal(part.errors, part.rows)
    return rows


def needs_python(body: bytes | Raw, fields: Sequence[Field]) -> bool:
    """Whether a body may hold base64 objects, which stand for text."""
    text = body if isinstance(body, bytes) else memoryview(body).tobytes()
    return b'"b64"' in text and any(map(is_text, fields)) and all(field.name != "b64" for field in fields)


def python_values(body: bytes | Raw, problem: Exception | None = None, where: str = "$") -> Any:
    """Read JSON as Python values, with the tokens NaN and Infinity.

    `problem` is why msgspec refused the body: it is told unless such tokens are the reason.
    """
    data = bytes(memoryview(body))
    if problem is not None and b"NaN" not in data and b"Infinity" not in data:
        raise bad_json(problem, data, where)
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as other:
        raise bad_json(problem or other, data, where, tokens=True) from None


class ListReader:
    """Reads an array of instances, in one call where all are of one form."""

    def __init__(self, rows: RowType) -> None:
        def compiled(kind: Any) -> Callable[[Any], Any]:
            decode: Callable[[Any], Any] = decoder(list[kind]).decode
            return decode

        self._strict = fast_decoders(rows, rows.strict, compiled)
        self._lenient = fast_decoders(rows, rows.struct, compiled)
        self._one_by_one = InstanceReader(rows)
        self._fields = rows.fields

    def read(self, instances: Any, part: Part, where: str) -> tuple[list[Row], bool]:
        """The values of each instance, and whether none has further fields for sure.

        `instances` is JSON, or Python values. Raises what is wrong, with the bad rows in `part.errors`.
        """
        if not isinstance(instances, bytes | Raw):
            return self._one_by_one.rows(instances, part, where), False
        if len(memoryview(instances)) > ENOUGH and self._one_by_one.could_exceed(bytes(memoryview(instances))):
            check_rows(instances)
        if first := _FIRST.match(memoryview(instances)):
            for fast in (self._strict, self._lenient):
                try:
                    return instance_values(fast[bytes(first[1])](instances)), fast is self._strict
                except (KeyError, *UNREADABLE):
                    continue
        if not needs_python(instances, self._fields):
            try:
                return self._one_by_one.rows(Raw(bytes(memoryview(instances))), part, where), False
            except SalverError as problem:
                if problem.code != "bad-json" or not _has_tokens(instances):
                    raise
                part.errors.clear()
        return self._one_by_one.rows(python_values(instances, where=where), part, where), False


def _has_tokens(data: bytes | Raw) -> bool:
    text = memoryview(data).tobytes()
    return b"NaN" in text or b"Infinity" in text


class InstanceReader:
    """Reads instances and columns one by one: unread JSON, or Python values where the body holds what JSON lacks."""

    def __init__(self, rows: RowType) -> None:
        self._rows = rows
        self._only = rows.fields[0] if len(rows.fields) == 1 else None
        self._decoders = [decoder(list[kind]) for kind in rows.kinds]  # type: ignore[valid-type]
        self._packable = may_be_packed(rows.fields)
        lists: list[Any] = [list[kind] for kind in rows.token_kinds]  # type: ignore[valid-type]
        self._converters = list(map(converter, rows.fields, lists))

    def could_exceed(self, body: bytes) -> bool:
        """Whether a body may hold more instances than allowed."""
        if isinstance(self._only, Column):
            return more_than(MAX_ROWS - 1, body, b",")
        return more_than(MAX_ROWS // 2, body, b"{") or more_than(MAX_ROWS // 2, body, b"[")

    def rows(self, instances: Any, part: Part, where: str = "$.instances") -> list[Row]:
        """Read instances; raises one error of all bad ones."""
        items = elements(instances, where) if isinstance(instances, Raw) else _listed(instances, where)
        return read_each(items, part, lambda item, index: self._row(item, f"{where}[{index}]"))

    def _row(self, item: Any, where: str) -> Struct:
        kind = json_kind(item)
        if kind == "object" and not self._is_packed(item):
            return self._rows.read(item, where)
        if kind == "array" and not isinstance(self._only, Tensor):
            return self._rows.read_positions(elements(item, where) if isinstance(item, Raw) else item, where)
        if self._only is not None:
            return self._rows.read_positions([item], where, [where])
        raise error("invalid-row", f"{where}: expected object or array of {len(self._rows.fields)} values, got {kind}")

    def _is_packed(self, item: Any) -> bool:
        """Whether an object is the base64 of the only field."""
        if not self._packable:
            return False
        if not isinstance(item, Raw):
            return is_packed(item)
        try:
            return is_packed(_MEMBERS.decode(item))
        except UNREADABLE:  # which is told where it is read as a row
            return False

    def columns(self, inputs: Any) -> list[Row]:
        """Read columns: an object with one array per field, or the array of the only field."""
        if json_kind(inputs) == "object":
            names = [f"$.inputs.{name}" for name in self._rows.names]
            loose = self._rows.loosely(inputs, "$.inputs") if isinstance(inputs, Raw) else None
            values = loose or [inputs.get(name, UNSET) for name in self._rows.names]
        elif self._only is not None:
            names, values = ["$.inputs"], [inputs]
        else:
            raise error(
                "bad-protocol-body", f"$.inputs: expected object with one array per field, got {json_kind(inputs)}"
            )
        columns: list[list[Any] | None] = []
        problems: list[str] = []
        for place, (value, name) in enumerate(zip(values, names, strict=True)):
            try:
                columns.append(self._column(value, place, name))
            except msgspec.ValidationError as problem:
                problems.append(describe(problem, name, self._rows.fields[place]))
            except SalverError as problem:
                if problem.code != "invalid-row":
                    raise
                problems.append(problem.message)
        if problems:
            raise invalid_row("$.inputs", problems, "")
        return _transposed(columns, names)

    def _column(self, value: Any, place: int, name: str) -> list[Any] | None:
        """The values of one column; None where it is absent and may be."""
        if value is UNSET:
            if optional(self._rows.fields[place]):
                return None
            raise error("invalid-row", f"{name}: required input is missing")
        if not isinstance(value, Raw):
            column: list[Any] = self._converters[place](value)
        else:
            if len(memoryview(value)) > ENOUGH:
                elements(value, name)
            try:
                column = self._decoders[place].decode(value)
            except msgspec.ValidationError:
                raise
            except UNREADABLE as problem:
                raise bad_json(problem, value, name) from None
        return within_limit(column)


def json_kind(item: Any) -> str:
    """What JSON calls the type of a value that may be unread."""
    if not isinstance(item, Raw):
        return json_type(item)
    first = bytes(memoryview(item)[:1])
    return {b"{": "object", b"[": "array", b'"': "str", b"t": "bool", b"f": "bool", b"n": "null"}.get(first, "number")


def _listed(items: Any, where: str) -> list[Any]:
    if not isinstance(items, list):
        raise error("bad-protocol-body", f"{where}: expected array, got {json_type(items)}")
    return within_limit(items)


def within_limit(items: list[Any]) -> list[Any]:
    """The items; raises `too-many-rows`."""
    if len(items) > MAX_ROWS:
        raise too_many_rows()
    return items


def _transposed(columns: Sequence[list[Any] | None], names: Sequence[str]) -> list[Row]:
    counts = {name: len(values) for name, values in zip(names, columns, strict=True) if values is not None}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise error("bad-protocol-body", f"$.inputs: arrays differ in length: {told}")
    count = next(iter(counts.values()), 0)
    return list(zip(*[[None] * count if values is None else values for values in columns], strict=True))


class InstanceAnswers:
    """Writes answers of one signature; `packed` says that bytes are objects of base64, else they are its text."""

    def __init__(self, outputs: tuple[Field, ...], *, packed: bool = False) -> None:
        self._outputs = outputs
        self._packed = packed
        self._makers = [values_of(field) for field in outputs]
        self._names = [ENCODER.encode(field.name) for field in outputs]
        self.nothing: list[list[bytes]] = [[] for _ in outputs]
        self._row = b"{" + b",".join(name.replace(b"%", b"%%") + b":%b" for name in self._names) + b"}"

    def texts(self, outputs: Columns) -> list[list[bytes]]:
        """Each output's rows as JSON."""
        return [
            self._text(field, make(outputs[field.name]))
            for field, make in zip(self._outputs, self._makers, strict=True)
        ]

    def _text(self, field: Field, values: list[Any]) -> list[bytes]:
        if (self._packed and is_blob(field)) or (
            isinstance(field, Column) and field.type == "str" and field.name.endswith("_bytes")
        ):
            raw = [value.encode() if isinstance(value, str) else value for value in values]
            values = [None if value is None else {"b64": value} for value in raw]  # which the encoder writes as base64
        texts = lines(values)
        if field.non_finite and not is_blob(field):
            for row, text in enumerate(texts):
                if b"null" in text and not (isinstance(field, Column) and may_be_null(field) and _is_nan(values[row])):
                    texts[row] = json.dumps(values[row], separators=(",", ":")).encode()
        return texts

    def rows(self, texts: Sequence[Sequence[bytes]], start: int, stop: int) -> list[bytes]:
        """The answer to each row: a bare value, or an object of several outputs."""
        columns = [each[start:stop] for each in texts]
        if len(columns) == 1:
            return list(columns[0])
        return [self._row % row for row in zip(*columns, strict=True)]

    def body(self, form: Form, texts: Sequence[Sequence[bytes]], start: int, stop: int) -> bytes:
        """The answer to one request: its rows as objects or bare values, or its columns."""
        if form == "predictions" or len(texts) == 1:
            return b'{"%b":[%b]}' % (form.encode(), b",".join(self.rows(texts, start, stop)))
        columns = [each[start:stop] for each in texts]
        named = [b"%b:[%b]" % (name, b",".join(each)) for name, each in zip(self._names, columns, strict=True)]
        return b'{"outputs":{%b}}' % b",".join(named)


def _is_nan(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
