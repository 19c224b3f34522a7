"""KServe V1 and TF Serving: `instances` (rows) give `predictions`, `inputs` (columns) give `outputs`.

An instance is a row object, a list of the fields' values in order, or the bare value of the only field. One bad row
fails the request. The tokens NaN, Infinity and -Infinity, which JSON does not have, are read and written as this
protocol does; null stays null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from salver import tables
from salver.errors import SalverError, error
from salver.protocols import Codec, Decoded, Encoded, Options, Part, Subject
from salver.protocols.answers import ENCODER, lines, refused, values_of
from salver.protocols.extra import ExtraFields
from salver.protocols.rows import (
    MAX_ROWS,
    UNREADABLE,
    RowType,
    bad_json,
    decoder,
    describe,
    elements,
    invalid_row,
    json_type,
    optional,
    read_custom,
    refusal,
    too_many_rows,
)
from salver.signature import Column, Field, Tensor
from salver.tables import Columns, may_be_null

Form = Literal["predictions", "outputs"]
Row = tuple[Any, ...]

_ENOUGH = 2 * MAX_ROWS
"""Bodies up to this many bytes can't hold more instances than allowed: one is at least `1,`."""

_NOT_FAST = (KeyError, *UNREADABLE)
_FIRST = re.compile(rb'"instances"\s*:\s*\[\s*(.)', re.DOTALL)


class _Envelope(Struct, gc=False):
    instances: Raw | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET
    signature_name: str | None = None


class V1Codec:
    """Reads and writes V1 JSON for one release."""

    def __init__(self, subject: Subject) -> None:
        signature = subject.signature
        self._rows = RowType(signature.inputs)
        self._strict = _fast_decoders(self._rows, self._rows.strict)
        self._lenient = (_fast_decoders(self._rows, self._rows.struct),)
        self._both = (self._strict, *self._lenient)
        self._extra = ExtraFields(self._rows)
        self._expects_extra = False  # whether the last batch had extra fields
        self._reader = _Reader(self._rows)
        self._envelope = msgspec.json.Decoder(_Envelope)
        self._columns = tables.builder(signature.inputs, tuple)
        self._answers = _Answers(signature.outputs)

    def decode(self, bodies: Sequence[bytes], options: Options | None = None) -> Decoded:
        """Read a batch of request bodies; never raises for a bad body, its part says what is wrong."""
        del options
        rows: list[Row] = []
        suspects: list[bytes] = []
        parts: list[Part] = []
        for body in bodies:
            part = Part(len(rows))
            try:
                part.context, read, exact = self._read(body, part)
            except SalverError as problem:
                part.failure = problem
            else:
                part.count = part.rows = len(read)
                rows += read
                if not exact:
                    suspects.append(body)
            parts.append(part)
        extra = partial(self._count_extra, suspects) if suspects else None
        return Decoded(self._columns(rows), len(rows), parts, extra=extra)

    def encode(self, decoded: Decoded, outputs: Columns, failures: Mapping[int, SalverError]) -> list[Encoded]:
        """Write one answer per part. `outputs` has `decoded.count` rows; those in `failures` hold no answer."""
        texts = self._answers.texts(outputs) if len(failures) < decoded.count else self._answers.nothing
        encoded: list[Encoded] = []
        for part in decoded.parts:
            if part.failure is not None:
                encoded.append(refused(part.failure, len(part.errors)))
                continue
            span = range(part.start, part.start + part.count)
            errors = {row - part.start: failures[row] for row in span if row in failures} if failures else {}
            if errors:
                encoded.append(refused(refusal(errors, part.rows), len(errors)))
            else:
                encoded.append(Encoded(200, self._answers.body(part.context, texts, span.start, span.stop)))
        return encoded

    def _count_extra(self, bodies: Sequence[bytes]) -> int:
        given = [value for body in bodies for value in self._open(body) if value is not UNSET]
        found = self._extra.count(given)
        self._expects_extra = found > 0
        return found

    def _read(self, body: bytes, part: Part) -> tuple[Form, list[Row], bool]:
        """Which of the two forms a body has, its rows, and whether it has no extra fields for sure.

        Raises what is wrong, with the bad rows in `part.errors`.
        """
        if len(body) > _ENOUGH and self._reader.could_exceed(body):
            self._check_count(body)
        if first := _FIRST.search(body):
            for fast in self._lenient if self._expects_extra else self._both:
                try:
                    request = fast[first[1]](body)
                except _NOT_FAST:
                    continue  # extra fields, another form, or a bad body: the last two are read one by one
                if request.inputs is UNSET:
                    return "predictions", self._reader.values(request.instances), fast is self._strict
        instances, inputs = self._open(body)
        if (instances is UNSET) == (inputs is UNSET):
            raise error("bad-protocol-body", "$: expected exactly one of instances and inputs")
        if inputs is not UNSET:
            return "outputs", self._reader.columns(inputs), False
        return "predictions", self._reader.rows(instances, part), False

    def _open(self, body: bytes) -> tuple[Any, Any]:
        """The instances and inputs of a body, unread; as Python values where the body holds tokens that JSON lacks."""
        try:
            envelope = self._envelope.decode(body)
        except msgspec.ValidationError as problem:
            raise error("bad-protocol-body", describe(problem, "$")) from None
        except UNREADABLE as problem:
            return _with_tokens(body, problem)
        return envelope.instances, envelope.inputs

    def _check_count(self, body: bytes) -> None:
        """Refuse too many instances before they are all held in memory; any other problem is found later."""
        try:
            instances, _ = self._open(body)
            if isinstance(instances, Raw):
                elements(instances)
        except SalverError as problem:
            if problem.code == "too-many-rows":
                raise


class V1:
    """KServe's V1 protocol, which is also the row and column format of TF Serving."""

    name = "v1"

    def codec(self, subject: Subject) -> Codec:
        """The codec of this format for one release."""
        return V1Codec(subject)


PROTOCOL = V1()


def _fast_decoders(rows: RowType, named: type[Struct]) -> dict[bytes, Callable[[bytes], Any]]:
    """What reads a body in one call if all its instances are of one form, by the first byte of the first of them.

    `named` is the type of row objects.
    """
    # One decoder of a union would read mixed forms too, but a union of a tuple and a constrained number corrupts the
    # memory of msgspec 0.22 once it is collected.
    only = rows.fields[0] if len(rows.fields) == 1 else None
    by_name = _request(named)
    bare = by_name if only is None else _request(rows.kinds[0])
    in_order = bare if isinstance(only, Tensor) else _request(tuple.__class_getitem__(tuple(rows.kinds)))
    digits = {b"%d" % digit: bare for digit in range(10)}
    return {
        b"{": by_name,
        b"]": by_name,
        b"[": in_order,
        b"-": bare,
        b'"': bare,
        b"t": bare,
        b"f": bare,
        b"n": bare,
        **digits,
    }


def _request(instance: Any) -> Callable[[bytes], Any]:
    members: list[Any] = [("instances", list[instance]), ("inputs", Raw | UnsetType, UNSET)]
    return decoder(msgspec.defstruct("Request", members)).decode


def _with_tokens(body: bytes, problem: Exception) -> tuple[Any, Any]:
    """Read a body that msgspec refuses because of NaN or Infinity."""
    if b"NaN" not in body and b"Infinity" not in body:
        raise bad_json(problem, body)
    try:
        value = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise bad_json(problem, body) from None
    if not isinstance(value, dict):
        raise error("bad-protocol-body", f"$: expected object, got {json_type(value)}")
    return value.get("instances", UNSET), value.get("inputs", UNSET)


class _Reader:
    """Reads instances and columns one by one: unread JSON, or Python values with tokens that JSON lacks."""

    def __init__(self, rows: RowType) -> None:
        self._rows = rows
        self._only = rows.fields[0] if len(rows.fields) == 1 else None
        self._decoders = [decoder(list[kind]) for kind in rows.kinds]  # type: ignore[valid-type]
        self._token_lists: list[Any] = [list[kind] for kind in rows.token_kinds]  # type: ignore[valid-type]

    def could_exceed(self, body: bytes) -> bool:
        """Whether a body may hold more instances than allowed."""
        if isinstance(self._only, Column):
            return body.count(b",") >= MAX_ROWS
        return body.count(b"{") + body.count(b"[") > MAX_ROWS

    def values(self, instances: list[Any]) -> list[Row]:
        """The values of decoded instances, which are all of one form."""
        form = type(instances[0]) if instances else tuple
        if form is tuple:
            return instances
        return list(map(msgspec.structs.astuple, instances)) if issubclass(form, Struct) else [(x,) for x in instances]

    def rows(self, instances: Any, part: Part) -> list[Row]:
        """Read instances; raises one error of all bad ones."""
        items = elements(instances, "$.instances") if isinstance(instances, Raw) else _listed(instances, "$.instances")
        part.rows = len(items)
        read: list[Row] = []
        for index, item in enumerate(items):
            try:
                read.append(msgspec.structs.astuple(self._row(item, f"$.instances[{index}]")))
            except SalverError as problem:
                if problem.code != "invalid-row":
                    raise
                part.errors[index] = problem
        if part.errors:
            raise refusal(part.errors, part.rows)
        return read

    def _row(self, item: Any, where: str) -> Struct:
        kind = _kind(item)
        if kind == "object":
            return self._rows.read(item, where)
        if kind == "array" and not isinstance(self._only, Tensor):
            return self._rows.read_positions(elements(item, where) if isinstance(item, Raw) else item, where)
        if self._only is not None:
            return self._rows.read_positions([item], where, [where])
        raise error("invalid-row", f"{where}: expected object or array of {len(self._rows.fields)} values, got {kind}")

    def columns(self, inputs: Any) -> list[Row]:
        """Read columns: an object with one array per field, or the array of the only field."""
        if _kind(inputs) == "object":
            names = [f"$.inputs.{name}" for name in self._rows.names]
            loose = self._rows.loosely(inputs, "$.inputs") if isinstance(inputs, Raw) else None
            values = loose or [inputs.get(name, UNSET) for name in self._rows.names]
        elif self._only is not None:
            names, values = ["$.inputs"], [inputs]
        else:
            raise error("bad-protocol-body", f"$.inputs: expected object with one array per field, got {_kind(inputs)}")
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
            column: list[Any] = msgspec.convert(value, self._token_lists[place], dec_hook=read_custom)
        else:
            if len(memoryview(value)) > _ENOUGH:
                elements(value, name)
            try:
                column = self._decoders[place].decode(value)
            except msgspec.ValidationError:
                raise
            except UNREADABLE as problem:
                raise bad_json(problem, value, name) from None
        return _within_limit(column)


def _kind(item: Any) -> str:
    """What JSON calls the type of a value that may be unread."""
    if not isinstance(item, Raw):
        return json_type(item)
    first = bytes(memoryview(item)[:1])
    return {b"{": "object", b"[": "array", b'"': "str", b"t": "bool", b"f": "bool", b"n": "null"}.get(first, "number")


def _listed(items: Any, where: str) -> list[Any]:
    if not isinstance(items, list):
        raise error("bad-protocol-body", f"{where}: expected array, got {json_type(items)}")
    return _within_limit(items)


def _within_limit(items: list[Any]) -> list[Any]:
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


class _Answers:
    """Writes answers of one signature."""

    def __init__(self, outputs: tuple[Field, ...]) -> None:
        self._outputs = outputs
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
        texts = lines(values)
        if field.non_finite:
            for row, text in enumerate(texts):
                if b"null" in text and not (isinstance(field, Column) and may_be_null(field) and _is_nan(values[row])):
                    texts[row] = json.dumps(values[row], separators=(",", ":")).encode()
        return texts

    def body(self, form: Form, texts: Sequence[Sequence[bytes]], start: int, stop: int) -> bytes:
        """The answer to one request: its rows as objects or bare values, or its columns."""
        columns = [each[start:stop] for each in texts]
        if len(columns) == 1:
            return b'{"%b":[%b]}' % (form.encode(), b",".join(columns[0]))
        if form == "predictions":
            return b'{"predictions":[%b]}' % b",".join([self._row % row for row in zip(*columns, strict=True)])
        named = [b"%b:[%b]" % (name, b",".join(each)) for name, each in zip(self._names, columns, strict=True)]
        return b'{"outputs":{%b}}' % b",".join(named)


def _is_nan(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
