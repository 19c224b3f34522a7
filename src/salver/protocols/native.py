"""The native format: a row object gives an answer object, a list of rows a list of answers of the same length.

A bad row in a list is answered in its place, unless the request says `strict=true`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import msgspec

from salver import tables
from salver.errors import SalverError, error
from salver.protocols import Codec, Decoded, Encoded, Options, Part, Subject
from salver.protocols.answers import in_place, refused_at, row_encoder
from salver.protocols.bounds import MOST_MEMBERS, check_rows, elements, has_many_members, more_than
from salver.protocols.extra import ExtraFields
from salver.protocols.refusals import settled
from salver.protocols.rows import MAX_ROWS, UNREADABLE, RowType, bad_json, decoder, refusal
from salver.protocols.tabular import Answering, Asked
from salver.tables import Columns

Shape = Literal["row", "list", "strict list"]
"""What a body is; the context of its part."""

_TOO_MANY = 3 * MAX_ROWS
"""Bodies up to this many bytes can't hold more rows than allowed: a row is at least `{},`."""
_LONG = 1 << 18
_EXTRA = "Object contains unknown field"
_ARRAY = re.compile(rb"[ \t\r\n]*\[")


class NativeCodec:
    """Reads and writes the native format for one release."""

    def __init__(self, subject: Subject) -> None:
        signature = subject.signature
        self._rows = RowType(signature.inputs)
        self._decode = _decoder(self._rows.struct)
        self._decode_strictly = _decoder(self._rows.strict)
        self._extra = ExtraFields(self._rows)
        self._expects_extra = False  # whether the last batch had extra fields
        self._columns = tables.builder(signature.inputs)
        self._answers = row_encoder(signature.outputs)
        self._answering = Answering(signature.outputs)
        self._singles: list[Part] = []

    def decode(self, bodies: Sequence[bytes], options: Options | None = None) -> Decoded:
        """Read a batch of request bodies; never raises for a bad body, its part says what is wrong."""
        # Joining the bodies to decode them in one call would be faster still, but a body such as `{},{}` would then
        # shift every row after it to another caller.
        rows: list[Any] = []
        if not options and max(map(len, bodies), default=0) <= _TOO_MANY:
            read, suspects = self._at_once(bodies)
            if read:
                extra = partial(self._count_extra, suspects) if suspects else None
                if list not in set(map(type, read)):
                    return Decoded(self._columns(read), len(read), self._single_rows(len(read)), self._answers, extra)
                parts = [_accepted(value, rows, strict=False) for value in read]
                return Decoded(self._columns(rows), len(rows), parts, extra=extra)
        if options and "answer" in options:
            return self._decode_for(bodies, options)
        return self._one_by_one(bodies, options or {})

    def _one_by_one(self, bodies: Sequence[bytes], options: Options) -> Decoded:
        rows: list[Any] = []
        suspected: list[bytes] = []
        parts = []
        for body in bodies:
            part, exact = self._part(body, options, rows)
            parts.append(part)
            if not exact and part.failure is None:
                suspected.append(body)
        extra = partial(self._count_extra, suspected) if suspected else None
        return Decoded(self._columns(rows), len(rows), parts, extra=extra)

    def encode(self, decoded: Decoded, outputs: Columns, failures: Mapping[int, SalverError]) -> list[Encoded]:
        """Write one answer per part. `outputs` has `decoded.count` rows; those in `failures` hold no answer."""
        if decoded.parts and isinstance(asked := decoded.parts[0].context, Asked):
            return self._answering.encode(decoded, outputs, failures, asked)
        answers = self._answers(outputs) if len(failures) < decoded.count else [b""] * decoded.count
        encoded: list[Encoded] = []
        for part in decoded.parts:
            if part.failure is not None:
                encoded.append(_refused(part.failure, len(part.errors)))
            elif part.context != "row":
                encoded.append(_list(part, answers, failures))
            elif failures and part.start in failures:
                encoded.append(_refused(failures[part.start], 1))
            else:
                encoded.append(Encoded(200, answers[part.start]))
        return encoded

    def _decode_for(self, bodies: Sequence[bytes], options: Options) -> Decoded:
        """Read bodies whose answers are not JSON; a row object is a request that fails with its row."""
        try:
            asked = self._answering.asked(options)
        except SalverError as problem:
            return Decoded(self._columns(()), 0, [_failed(problem) for _ in bodies])
        decoded = self._one_by_one(bodies, options)
        for part in decoded.parts:
            part.context = asked._replace(strict=asked.strict or part.context == "row")
        return decoded

    def _single_rows(self, count: int) -> list[Part]:
        """The parts of so many requests of one row each; nobody changes a part, so they are made once."""
        parts = self._singles
        if len(parts) < count:
            parts += [Part(start, 1, 1, "row") for start in range(len(parts), count)]
        return parts[:count]

    def _at_once(self, bodies: Sequence[bytes]) -> tuple[list[Any], Sequence[bytes]]:
        """What all bodies hold, nothing if one of them is bad; and those that may have extra fields."""
        if not self._expects_extra:
            try:
                return list(map(self._decode_strictly, bodies)), ()
            except UNREADABLE:
                pass
        try:
            return list(map(self._decode, bodies)), bodies
        except UNREADABLE:
            return [], ()  # what is bad is found again, one by one

    def _value(self, body: bytes) -> tuple[Any, bool]:
        """What a body holds, and whether it has no extra fields for sure."""
        long = len(body) > _LONG and not _ARRAY.match(body)
        if long or not self._expects_extra:
            try:
                return self._decode_strictly(body), True
            except UNREADABLE as problem:
                if long or not str(problem).startswith(_EXTRA):
                    raise  # it is bad without its extra fields too, or they may be a million: it is read just once more
        return self._decode(body), False

    def _count_extra(self, bodies: Sequence[bytes]) -> int:
        found = self._extra.count(bodies)
        self._expects_extra = found > 0
        return found

    def _part(self, body: bytes, option: Options, rows: list[Any]) -> tuple[Part, bool]:
        """Read one body; returns also whether it has no extra fields for sure."""
        strict = option.get("strict", "false")
        try:
            if strict not in ("true", "false"):
                raise error("bad-request", f"strict is {strict!r}; it can be true or false")
            if len(body) > _TOO_MANY and _ARRAY.match(body) and more_than(MAX_ROWS, body, b"{"):
                check_rows(body)
            if has_many_members(body, len(self._rows.names)):
                raise error("invalid-row", f"$: more than {MOST_MEMBERS} fields that the model does not have")
            value, exact = self._value(body)
        except SalverError as problem:
            return _failed(problem), True
        except UNREADABLE as problem:
            return self._reread(body, problem, strict == "true", rows), False
        return _accepted(value, rows, strict=strict == "true"), exact

    def _reread(self, body: bytes, problem: Exception, strict: bool, rows: list[Any]) -> Part:
        """Find out what is wrong with a body, and which of its rows are right."""
        if not isinstance(problem, msgspec.ValidationError):
            return _failed(bad_json(problem, body))
        part = Part(len(rows), context="row")
        read: list[Any] = []
        try:
            if _ARRAY.match(body):
                part.context = "strict list" if strict else "list"
                items = elements(body)
                part.rows = len(items)
                for index, raw in enumerate(items):
                    self._reread_row(raw, index, part, read, f"$[{index}]")
            else:
                part.rows = 1
                self._reread_row(body, 0, part, read, "$")
        except SalverError as unreadable:
            return _failed(unreadable)
        if part.errors and part.context != "list":
            part.failure = refusal(part.errors, part.rows)
            return part
        part.count = len(read)
        rows += read
        return part

    def _reread_row(self, raw: bytes | msgspec.Raw, index: int, part: Part, read: list[Any], where: str) -> None:
        try:
            read.append(self._rows.read(raw, where))
        except SalverError as problem:
            if problem.code != "invalid-row":
                raise
            part.errors[index] = settled(problem)


class Native:
    """Salver's own format."""

    name = "native"

    def codec(self, subject: Subject) -> Codec:
        """The codec of this format for one release; raises `bad-signature` for names JSON keys can't be."""
        return NativeCodec(subject)


PROTOCOL = Native()


def _decoder(row: type[msgspec.Struct]) -> Callable[[bytes], Any]:
    """What reads a row or a list of rows of this type."""
    return decoder(row | list[row]).decode  # type: ignore[valid-type]


def _accepted(value: Any, rows: list[Any], *, strict: bool) -> Part:
    """The part of a body without a bad row; adds its rows."""
    many = type(value) is list
    read = value if many else [value]
    shape: Shape = "row" if not many else "strict list" if strict else "list"
    part = Part(len(rows), len(read), len(read), shape)
    rows += read
    return part


def _failed(problem: SalverError) -> Part:
    part = Part()
    part.failure = settled(problem)
    return part


def _refused(problem: SalverError, row_errors: int) -> Encoded:
    return refused_at("native", problem, row_errors)


def _list(part: Part, answers: Sequence[bytes], failures: Mapping[int, SalverError]) -> Encoded:
    bodies, errors = in_place(part, answers, failures)
    if errors and part.context == "strict list":
        return _refused(refusal(errors, part.rows), len(errors))
    return Encoded(200, b"[%b]" % b",".join(bodies), row_errors=len(errors))
