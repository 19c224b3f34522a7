"""The Open Inference Protocol (V2) over gRPC: a ModelInferRequest in, a ModelInferResponse out, both as bytes.

Inputs, rows and refusals mean the same as in V2 JSON. An answer is raw where its request was, typed otherwise. The body
of a refusal is its words, for the status of the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from salver import tables
from salver.errors import SalverError, error
from salver.protocols import Codec, Decoded, Encoded, Options, Part, Subject, protobuf
from salver.protocols.answers import problem_of
from salver.protocols.protobuf import Malformed
from salver.protocols.refusals import settled
from salver.protocols.rows import listed, optional, told
from salver.protocols.v2.datatypes import MAX_TENSORS, check_datatype, check_outputs, count
from salver.protocols.v2.grpc_outputs import TensorWriter, Written
from salver.protocols.v2.grpc_tensors import FieldReader, InputTensor, read_tensor, read_values
from salver.protocols.v2.matrix import Inputs
from salver.protocols.v2.parameters import check_matrix, check_offered, check_sequence
from salver.tables import Columns

MAX_ID = 1024
CONTENT_TYPE = "application/grpc"
_MOST_KNOWN = 256


class _Request(NamedTuple):
    inputs: list[InputTensor]
    raw: list[memoryview]
    id: str
    outputs: list[str]


class _Asked(NamedTuple):
    """What an answer needs of its request: the head of its message, the outputs asked for, and whether it is raw."""

    head: bytes
    outputs: Sequence[int]
    raw: bool


class V2GrpcCodec:
    """Reads and writes the messages of ModelInfer for one release."""

    def __init__(self, subject: Subject) -> None:
        self._fields = subject.signature.inputs
        self._inputs = Inputs(self._fields)
        self._columns = tables.builder(self._fields, tuple)
        self._readers = [FieldReader(field) for field in self._fields]
        self._outputs = [field.name for field in subject.signature.outputs]
        self._writers = [TensorWriter(field) for field in subject.signature.outputs]
        self._head = protobuf.string(1, subject.model) + protobuf.string(2, str(subject.number))
        self._version = str(subject.number)
        self._known: dict[bytes, InputTensor] = {}
        everything = range(len(self._outputs))
        typed = any(writer.raw_only for writer in self._writers)
        self._everything = (_Asked(self._head, everything, typed), _Asked(self._head, everything, True))

    def decode(self, bodies: Sequence[bytes], options: Options | None = None) -> Decoded:
        """Read a batch of messages; never raises for a bad one, its part says what is wrong."""
        del options
        rows: list[Sequence[Any]] = []
        accepted: list[list[InputTensor]] = []
        parts: list[Part] = []
        single = True
        for body in bodies:
            start = len(rows)
            try:
                request = self._read(body)
                asked = self._asked(request)
                rows += self._rows(request)
            except Malformed as problem:
                parts.append(Part(failure=error("bad-protocol-body", f"the message can't be read: {problem}")))
                single = False
            except SalverError as problem:
                parts.append(Part(failure=settled(problem)))
                single = False
            else:
                count = len(rows) - start
                parts.append(Part(start, count, count, asked))
                accepted.append(request.inputs)
                single = single and count == 1
        write = partial(self._single_rows, [part.context for part in parts]) if single else None
        return Decoded(self._columns(rows), len(rows), parts, write, partial(self._inputs.count_extra, accepted))

    def encode(self, decoded: Decoded, outputs: Columns, failures: Mapping[int, SalverError]) -> list[Encoded]:
        """Write one answer per part. `outputs` has `decoded.count` rows; those in `failures` hold no answer."""
        nothing = len(failures) >= decoded.count
        written = [Written()] * len(self._outputs) if nothing else self._written(outputs)
        encoded: list[Encoded] = []
        for part in decoded.parts:
            problem, count = problem_of(part, failures)
            if problem is None:
                try:
                    body = self._answer(part.context, written, part.start, part.start + part.count)
                    encoded.append(Encoded(200, body, CONTENT_TYPE))
                    continue
                except SalverError as unspeakable:
                    problem, count = unspeakable, part.rows
            encoded.append(_refused(problem, count))
        return encoded

    def _read(self, body: bytes) -> _Request:
        """Read the message; the tensors' values are left where they are."""
        inputs: list[InputTensor] = []
        raw: list[memoryview] = []
        outputs: list[str] = []
        number = ""
        for key, value in protobuf.fields(body):
            if key == 42:
                inputs.append(self._tensor(value))
            elif key == 58:
                raw.append(value)
            elif key == 26:
                number = protobuf.text(value)
            elif key == 18:
                self._check_version(protobuf.text(value))
            elif key == 34:
                check_sequence([_parameter(value)])
            elif key == 50:
                outputs.append(_output_name(value))
            elif key >> 3 <= 7 and key & 7 != protobuf.BYTES:
                raise Malformed(f"field {key >> 3} has the wrong wire type")
            if len(inputs) > MAX_TENSORS or len(raw) > MAX_TENSORS or len(outputs) > MAX_TENSORS:
                raise error("too-many-tensors", f"the request has over {MAX_TENSORS} tensors")
        if len(number) > MAX_ID:
            raise error("too-large", f"id is over {MAX_ID} characters")
        if raw:
            if any(tensor.contents for tensor in inputs):
                raise error(
                    "bad-protocol-body",
                    "inputs have contents although raw_input_contents is used",
                    hint="send all tensors raw or none",
                )
            if len(raw) != len(inputs):
                raise error("bad-protocol-body", f"{len(inputs)} inputs with {len(raw)} raw_input_contents")
        return _Request(inputs, raw, number, outputs)

    def _check_version(self, version: str) -> None:
        """The gateway reads the version only where it stands first: one that stands further on must mean the same."""
        if version and version.lstrip("0") != self._version:
            raise error(
                "bad-protocol-body", "model_version must stand before the inputs", hint="as generated code does"
            )

    def _tensor(self, message: memoryview) -> InputTensor:
        """Read a tensor; one without values is remembered, since clients send the same ones again and again."""
        if len(message) > 256:
            return read_tensor(message)
        data = bytes(message)
        known = self._known.get(data)
        if known is None:
            known = read_tensor(memoryview(data))
            if not known.contents:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[data] = known
        return known

    def _asked(self, request: _Request) -> _Asked:
        everything = self._everything[bool(request.raw)]
        if not request.id and not request.outputs:
            return everything
        places = everything.outputs
        if request.outputs:
            names = dict.fromkeys(request.outputs)
            check_outputs(names, self._outputs, "outputs")
            places = [self._outputs.index(name) for name in names]
        return _Asked(self._head + protobuf.string(3, request.id), places, everything.raw)

    def _rows(self, request: _Request) -> Iterable[Sequence[Any]]:
        """The values of each row, in order of the fields; raises every problem of the inputs at once."""
        inputs = request.inputs
        raw: Sequence[memoryview | None] = request.raw or [None] * len(inputs)
        if self._inputs.is_matrix(inputs):
            return self._matrix(inputs[0], raw[0])
        given = {tensor.name: place for place, tensor in enumerate(inputs)}
        if len(given) < len(inputs):
            raise error("bad-protocol-body", "inputs: two tensors have the same name")
        columns: list[list[Any] | None] = []
        problems: list[SalverError] = []
        for field, reader in zip(self._fields, self._readers, strict=True):
            place = given.get(field.name)
            if place is None:
                if not optional(field):
                    problems.append(error("invalid-row", f"inputs: required input {field.name!r} is missing"))
                columns.append(None)
                continue
            try:
                columns.append(reader.rows(inputs[place], raw[place], f"inputs[{place}]"))
            except SalverError as problem:
                problems.append(problem)
        if problems:
            raise self._inputs.together(problems)
        return self._transposed(columns)

    def _transposed(self, columns: list[list[Any] | None]) -> Iterable[Sequence[Any]]:
        counts = {len(values) for values in columns if values is not None}
        if len(counts) > 1:
            pairs = zip(self._fields, columns, strict=True)
            each = [f"{field.name!r} has {len(values)}" for field, values in pairs if values is not None]
            raise error("bad-protocol-body", f"inputs: tensors differ in rows: {listed(each)}")
        nulls = [None] * max(counts, default=0)
        return zip(*[nulls if values is None else values for values in columns], strict=True)

    def _matrix(self, tensor: InputTensor, raw: memoryview | None) -> Iterable[Sequence[Any]]:
        """The rows of all columns from one tensor: each column is a stride of its values."""
        width = len(self._fields)
        check_datatype(self._fields[0], tensor.datatype, "inputs[0]", raw=True)
        check_matrix(tensor.nulls, "inputs[0]", base64=tensor.base64)
        values = read_values(tensor, raw, count(tensor.shape, "inputs[0]"), "inputs[0]").tolist()
        columns = [
            reader.cells(values[place::width], f"inputs[0], column {reader.field.name!r}")
            for place, reader in enumerate(self._readers)
        ]
        return zip(*columns, strict=True)

    def _written(self, outputs: Columns) -> list[Written]:
        return [writer.rows(outputs[name]) for name, writer in zip(self._outputs, self._writers, strict=True)]

    def _single_rows(self, asked: Sequence[_Asked], outputs: Columns) -> list[bytes]:
        written = self._written(outputs)
        return [self._answer(each, written, row, row + 1) for row, each in enumerate(asked)]

    def _answer(self, asked: _Asked, written: Sequence[Written], start: int, stop: int) -> bytes:
        tensors, raws = [asked.head], []
        for place in asked.outputs:
            tensor, raw = self._writers[place].tensor(written[place], start, stop, raw=asked.raw)
            tensors.append(tensor)
            raws.append(raw)
        return b"".join(tensors + raws)


def _output_name(message: memoryview) -> str:
    name = ""
    said: list[tuple[str, Any]] = []
    for key, value in protobuf.fields(message):
        if key == 10:
            name = protobuf.text(value)
        elif key == 18:
            said.append(_parameter(value))
        elif key >> 3 <= 2:
            raise Malformed(f"field {key >> 3} of an output has the wrong wire type")
    check_offered(said, f"output {name!r}")
    return name


def _parameter(entry: memoryview) -> tuple[str, Any]:
    """A parameter's name, and its value as Python's true or false see it."""
    found = dict(protobuf.fields(entry))
    value = dict(protobuf.fields(found.get(18, memoryview(b""))))
    return protobuf.text(found.get(10, memoryview(b""))), any(value.values())


def _refused(problem: SalverError, failed: int) -> Encoded:
    words = f"{told(problem)} · hint: {problem.hint}" if problem.hint else told(problem)
    return Encoded(problem.meaning.http, words.encode(), "text/plain", failed, problem.code)


class V2Grpc:
    """The Open Inference Protocol over gRPC."""

    name = "v2-grpc"

    def codec(self, subject: Subject) -> Codec:
        """The codec of this format for one release."""
        return V2GrpcCodec(subject)


PROTOCOL = V2Grpc()
