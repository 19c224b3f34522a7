"""The Open Inference Protocol (V2) as JSON: one tensor per field of the signature; one bad row fails the request.

A column is sent as shape [n] or [n, 1], a tensor as [n, …]; data may be nested or flat. Where every column is a float,
one tensor of shape [n, columns] is read as the matrix of all columns in order, as numpy clients send it: it can mean
nothing else, whatever its name. Inputs that the signature doesn't have are ignored, like further fields of a row.
Numbers are taken as written: FP32 data is not rounded to 32 bits on the way to a float64 column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from salver import tables
from salver.errors import SalverError, error
from salver.protocols import Codec, Decoded, Encoded, Options, Part, Subject
from salver.protocols.answers import ENCODER, refused
from salver.protocols.rows import UNREADABLE, bad_json, capped, describe, listed, optional, refusal, told
from salver.protocols.tensors import InputTensor, TensorReader, TensorWriter, Written
from salver.signature import Column
from salver.tables import Columns

MAX_TENSORS = 256

_LONG = 1 << 20


class _OutputAsked(Struct, gc=False):
    name: str
    parameters: dict[str, str | int | float | bool] | None = None


class _Request(Struct, gc=False):
    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, str | int | float | bool] | None = None
    outputs: list[_OutputAsked] | None = None


class _Asked(NamedTuple):
    """What an answer needs of its request: the beginning of its body, and the places of the outputs asked for."""

    head: bytes
    outputs: Sequence[int]


class V2Codec:
    """Reads and writes V2 JSON for one release."""

    def __init__(self, subject: Subject) -> None:
        self._fields = subject.signature.inputs
        self._names = frozenset(field.name for field in self._fields)
        self._all_float = all(isinstance(field, Column) and field.type == "float" for field in self._fields)
        self._columns = tables.builder(self._fields, tuple)
        self._request = msgspec.json.Decoder(_Request)
        self._reader = TensorReader(self._fields)
        self._outputs = [field.name for field in subject.signature.outputs]
        self._writers = [TensorWriter(field) for field in subject.signature.outputs]
        named = {"model_name": subject.model, "model_version": str(subject.number)}
        self._head = ENCODER.encode(named)[:-1]
        self._everything = _Asked(self._head + b',"outputs":[', range(len(self._outputs)))

    def decode(self, bodies: Sequence[bytes], options: Options | None = None) -> Decoded:
        """Read a batch of request bodies; never raises for a bad body, its part says what is wrong."""
        del options
        rows: list[Sequence[Any]] = []
        accepted: list[list[InputTensor]] = []
        parts: list[Part] = []
        for body in bodies:
            start = len(rows)
            try:
                request = self._request.decode(body)
                asked = self._asked(request)
                rows += self._rows(request.inputs, long=len(body) > _LONG)
            except msgspec.ValidationError as problem:
                parts.append(Part(failure=error("bad-protocol-body", describe(problem, "$"))))
            except UNREADABLE as problem:
                parts.append(Part(failure=bad_json(problem, body)))
            except SalverError as problem:
                parts.append(Part(failure=problem))
            else:
                count = len(rows) - start
                parts.append(Part(start, count, count, asked))
                accepted.append(request.inputs)
        return Decoded(self._columns(rows), len(rows), parts, extra=partial(self._count_extra, accepted))

    def encode(self, decoded: Decoded, outputs: Columns, failures: Mapping[int, SalverError]) -> list[Encoded]:
        """Write one answer per part. `outputs` has `decoded.count` rows; those in `failures` hold no answer."""
        nothing = len(failures) >= decoded.count
        written = [
            Written() if nothing else writer.rows(outputs[name])
            for name, writer in zip(self._outputs, self._writers, strict=True)
        ]
        encoded: list[Encoded] = []
        for part in decoded.parts:
            problem, failed = part.failure, 0
            if failures and problem is None:
                span = range(part.start, part.start + part.count)
                errors = {row - part.start: failures[row] for row in span if row in failures}
                problem, failed = (refusal(errors, part.rows), len(errors)) if errors else (None, 0)
            if problem is None:
                try:
                    encoded.append(Encoded(200, self._answer(part, written)))
                    continue
                except SalverError as unspeakable:
                    problem, failed = unspeakable, part.rows
            encoded.append(refused(problem, failed))
        return encoded

    def _asked(self, request: _Request) -> _Asked:
        if request.id is None and not request.outputs:
            return self._everything
        head = self._head
        if request.id is not None:
            head += b',"id":' + ENCODER.encode(request.id)
        places: Sequence[int] = self._everything.outputs
        if request.outputs:
            names = dict.fromkeys(output.name for output in request.outputs)
            unknown = [name for name in names if name not in self._outputs]
            if unknown:
                raise error(
                    "bad-protocol-body",
                    f"$.outputs: no output is named {', '.join(map(repr, unknown))}",
                    hint=f"outputs: {', '.join(self._outputs)}",
                )
            places = [self._outputs.index(name) for name in names]
        return _Asked(head + b',"outputs":[', places)

    def _rows(self, inputs: list[InputTensor], *, long: bool) -> Iterable[Sequence[Any]]:
        """The values of each row, in order of the fields; raises every problem of the inputs at once."""
        if self._is_matrix(inputs):
            return self._reader.matrix(inputs[0], "$.inputs[0]", long=long)
        given = self._by_name(inputs)
        columns: list[list[Any] | None] = []
        problems: list[SalverError] = []
        for field in self._fields:
            if field.name not in given:
                if not optional(field):
                    problems.append(error("invalid-row", f"$.inputs: required input {field.name!r} is missing"))
                columns.append(None)
                continue
            place = given[field.name]
            try:
                columns.append(self._reader.field(field, inputs[place], f"$.inputs[{place}]", long=long))
            except SalverError as problem:
                problems.append(problem)
        if problems:
            raise self._together(problems)
        return self._transposed(columns)

    def _count_extra(self, requests: Sequence[list[InputTensor]]) -> int:
        named = [inputs for inputs in requests if not self._is_matrix(inputs)]
        return sum(tensor.name not in self._names for inputs in named for tensor in inputs)

    def _by_name(self, inputs: list[InputTensor]) -> dict[str, int]:
        if len(inputs) > MAX_TENSORS:
            raise error("too-large", f"$.inputs: {len(inputs)} tensors, the limit is {MAX_TENSORS}")
        given = {tensor.name: place for place, tensor in enumerate(inputs)}
        if len(given) < len(inputs):
            raise error("bad-protocol-body", "$.inputs: two tensors have the same name")
        return given

    def _transposed(self, columns: list[list[Any] | None]) -> Iterable[Sequence[Any]]:
        counts = {len(values) for values in columns if values is not None}
        if len(counts) > 1:
            pairs = zip(self._fields, columns, strict=True)
            each = ", ".join(f"{field.name!r} has {len(values)}" for field, values in pairs if values is not None)
            raise error("bad-protocol-body", f"$.inputs: tensors differ in rows: {each}")
        nulls = [None] * max(counts, default=0)
        return zip(*[nulls if values is None else values for values in columns], strict=True)

    def _together(self, problems: Sequence[SalverError]) -> SalverError:
        """One error of several inputs' problems."""
        first = problems[0]
        if len(problems) == 1:
            return first
        return error(
            first.code,
            f"{len(problems)} inputs are invalid",
            hint=f"the inputs are {listed([field.name for field in self._fields])}",
            details=capped([told(problem) for problem in problems]),
        )

    def _is_matrix(self, inputs: list[InputTensor]) -> bool:
        """Whether the one input can only be the matrix of all columns."""
        width = len(self._fields)
        if not self._all_float or len(inputs) != 1:
            return False
        only = inputs[0]
        return len(only.shape) == 2 and only.shape[1] == width and (width > 1 or only.name not in self._names)

    def _answer(self, part: Part, written: Sequence[Written]) -> bytes:
        asked: _Asked = part.context
        stop = part.start + part.count
        tensors = [self._writers[place].tensor(written[place], part.start, stop) for place in asked.outputs]
        return asked.head + b",".join(tensors) + b"]}"


class V2:
    """The Open Inference Protocol, also called V2."""

    name = "v2"

    def codec(self, subject: Subject) -> Codec:
        """The codec of this format for one release."""
        return V2Codec(subject)


PROTOCOL = V2()
