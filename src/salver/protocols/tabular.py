"""Reading rows and writing answers as two choices that don't depend on each other.

A `Reader` turns one body into columns, a `Writer` turns columns into one body, and both are made by the wire format of
their form (`csv`, `jsonlines`, `npy`, `arrow`). Any reader may be asked for any answer.

JSON lists and JSON lines answer a bad row in its place; forms that have no room for an error, and `/invocations` in
JSON, refuse a request with a bad row as a whole, as everything does that was asked for `strict=true`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from salver import plugins, tables
from salver.errors import SalverError, error
from salver.protocols import Codec, Decoded, Encoded, Options, Part, Subject
from salver.protocols.answers import in_place, refused_at, row_encoder
from salver.protocols.instances import InstanceAnswers
from salver.protocols.refusals import settled
from salver.protocols.rows import RowType, refusal
from salver.signature import Field
from salver.tables import Columns

JSON_ANSWER = "json"
LINES = "application/jsonlines"


class Table(Struct, frozen=True):
    """What a reader found in one body: the columns of its `count` valid rows, and the errors of the others.

    `rows` counts all, and `errors` is by their index among all. `extra` counts the fields that were ignored; it may be
    slow and is called after the answer.
    """

    columns: Columns
    count: int
    rows: int
    errors: dict[int, SalverError]
    extra: Callable[[], int] | None = None


class Reader(Protocol):
    """Reads bodies of one form for one signature."""

    def read(self, body: bytes, options: Options) -> Table:
        """The rows of one body; raises the error of one that holds no rows at all."""
        ...


class Writer(Protocol):
    """Writes answers of one form for one signature."""

    content_type: str

    def write(self, outputs: Columns, count: int, endpoint: str) -> bytes:
        """`count` rows of the outputs as one body."""
        ...


class Asked(NamedTuple):
    """What an answer needs to know of its request."""

    endpoint: str = "native"
    answer: str = JSON_ANSWER
    strict: bool = False
    dialect: str = ""


class Answering:
    """Writes the answers of one release in whatever form was asked for."""

    def __init__(self, outputs: tuple[Field, ...]) -> None:
        self._outputs = outputs
        self._rows = row_encoder(outputs)
        self._instances = InstanceAnswers(outputs)
        self._nothing = {field.name: tables.column(field, ()) for field in outputs}
        self._writers: dict[str, Writer] = {}

    def asked(self, options: Options, endpoint: str = "native") -> Asked:
        """What the options of a request ask for; raises the error of what can't be answered."""
        strict = options.get("strict", "false")
        if strict not in ("true", "false"):
            raise error("bad-request", f"strict is {strict!r}; it can be true or false")
        answer = options.get("answer", JSON_ANSWER)
        if answer not in (JSON_ANSWER, "jsonlines") and answer not in self._writers:
            self._writers[answer] = plugins.protocol(answer).writer(self._outputs)
        return Asked(options.get("endpoint", endpoint), answer, strict == "true", options.get("dialect", ""))

    def encode(
        self, decoded: Decoded, outputs: Columns, failures: Mapping[int, SalverError], asked: Asked
    ) -> list[Encoded]:
        """Write one answer per part, for requests that asked for the same."""
        some = len(failures) < decoded.count
        listed = asked.answer == "jsonlines" or (asked.answer == JSON_ANSWER and asked.endpoint == "native")
        texts = (self._rows(outputs) if some else [b""] * decoded.count) if listed else []
        wrapped = asked.answer == JSON_ANSWER and not listed
        columns = self._instances.texts(outputs) if wrapped and some else self._instances.nothing
        answers: list[Encoded] = []
        for part in decoded.parts:
            start, stop = part.start, part.start + part.count
            problem = part.failure
            errors: dict[int, SalverError] = {}
            bodies: Sequence[bytes] = ()
            if problem is None:
                bodies, errors = in_place(part, texts, failures)
                if errors and (asked.strict or not listed):
                    problem = refusal(errors, part.rows)
            if problem is not None:
                count = len(errors) or len(part.errors)
                answers.append(refused_at(asked.endpoint, problem, count, asked.dialect))
            elif wrapped:
                answers.append(Encoded(200, self._instances.body("predictions", columns, start, stop)))
            elif listed:
                answers.append(_list(bodies, asked, len(errors)))
            else:
                writer = self._writers[asked.answer]
                rows = tables.rows_between(outputs, start, stop) if part.count else self._nothing
                body = writer.write(rows, part.count, asked.endpoint)
                answers.append(Encoded(200, body, writer.content_type))
        return answers


def _list(bodies: Sequence[bytes], asked: Asked, row_errors: int) -> Encoded:
    if asked.answer == JSON_ANSWER:
        return Encoded(200, b"[%b]" % b",".join(bodies), row_errors=row_errors)
    return Encoded(200, b"".join([body + b"\n" for body in bodies]), LINES, row_errors)


class TabularCodec:
    """Reads one form of rows for one release, and answers in any."""

    def __init__(self, subject: Subject, reader: Callable[[RowType], Reader]) -> None:
        self._rows = RowType(subject.signature.inputs)
        self._reader = reader(self._rows)
        self._nothing = tables.builder(subject.signature.inputs)
        self._answering = Answering(subject.signature.outputs)

    def decode(self, bodies: Sequence[bytes], options: Options | None = None) -> Decoded:
        """Read a batch of request bodies; never raises for a bad body, its part says what is wrong."""
        options = options or {}
        try:
            asked = self._answering.asked(options)
        except SalverError as problem:
            asked = Asked(options.get("endpoint", "native"))
            parts = [Part(context=asked, failure=settled(problem)) for _ in bodies]
            return Decoded(self._nothing(()), 0, parts)
        found: list[Columns] = []
        counters: list[Callable[[], int]] = []
        parts = []
        count = 0
        for body in bodies:
            part = Part(count, context=asked)
            parts.append(part)
            try:
                table = self._reader.read(body, options)
            except SalverError as problem:
                part.failure = settled(problem)
                continue
            part.count, part.rows, part.errors = table.count, table.rows, table.errors
            count += table.count
            if table.count:
                found.append(table.columns)
            if table.extra is not None:
                counters.append(table.extra)
        columns = tables.concat(found) if found else self._nothing(())
        extra = (lambda: sum(counted() for counted in counters)) if counters else None
        return Decoded(columns, count, parts, extra=extra)

    def encode(self, decoded: Decoded, outputs: Columns, failures: Mapping[int, SalverError]) -> list[Encoded]:
        """Write one answer per part. `outputs` has `decoded.count` rows; those in `failures` hold no answer."""
        return self._answering.encode(decoded, outputs, failures, decoded.parts[0].context)


class Tabular:
    """A form of rows as a wire format: how it is read, and how it is written."""

    def __init__(
        self, name: str, reader: Callable[[RowType], Reader], writer: Callable[[tuple[Field, ...]], Writer] | None
    ) -> None:
        self.name = name
        self._reader = reader
        self._writer = writer

    def codec(self, subject: Subject) -> Codec:
        """The codec of this format for one release."""
        return TabularCodec(subject, self._reader)

    def writer(self, outputs: tuple[Field, ...]) -> Writer:
        """What writes answers in this form; raises `not-acceptable` for outputs that it can't hold."""
        if self._writer is None:
            raise error("not-acceptable", f"answers can't be written as {self.name}")
        return self._writer(outputs)
