"""The Open Inference Protocol (V2) over HTTP: one tensor per field of the signature; one bad row fails the request.

A column is sent as shape [n] or [n, 1], a tensor as [n, …]; JSON data may be nested or flat, and any input or output
may be binary instead. Where every column is a float, one tensor of shape [n, columns] is read as the matrix of all
columns in order, as numpy clients send it: it can mean nothing else, whatever its name. Inputs that the signature
doesn't have are ignored, like further fields of a row, and so are parameters that mean nothing here. Numbers are taken
as written: FP32 data is not rounded to 32 bits on the way to a float64 column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np

from salver import tables
from salver.errors import SalverError, error
from salver.protocols import Codec, Decoded, Encoded, Options, Part, Subject
from salver.protocols.answers import ENCODER, problem_of, refused
from salver.protocols.refusals import settled
from salver.protocols.rows import UNREADABLE, bad_json, describe, optional
from salver.protocols.v2.binary import BinaryWriter, read, read_matrix
from salver.protocols.v2.datatypes import MAX_TENSORS, check_outputs
from salver.protocols.v2.matrix import Inputs
from salver.protocols.v2.parameters import NOT_OFFERED, SEQUENCE, check_matrix, check_offered, check_sequence
from salver.protocols.v2.request import HEADER, LONG, InputTensor, OutputAsked, Request, RequestReader, too_many
from salver.protocols.v2.stated import read_stated, says_more
from salver.protocols.v2.tensors import TensorReader, TensorWriter, Written
from salver.signature import Column
from salver.tables import Columns, MatrixColumns

_ABSENT = type(None)


class _Asked(NamedTuple):
    """What an answer needs of its request: the beginning of its body, the places of the outputs, which are binary."""

    head: bytes
    outputs: Sequence[tuple[int, bool]]


class _Batch:
    """The rows of the requests so far: tuples of values while they come as JSON, else tables."""

    def __init__(self, build: Any) -> None:
        self.count = 0
        self._build = build
        self._rows: list[Sequence[Any]] = []
        self._tables: list[Columns] = []

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        before = len(self._rows)
        self._rows += rows
        self.count += len(self._rows) - before

    def add_table(self, columns: Columns, count: int) -> None:
        if not count:
            return  # its free dimensions are those of nothing
        if self._rows:
            self._settle()
        self._tables.append(columns)
        self.count += count

    def whole(self) -> Columns:
        """All of it as columns of its own, which a model may change."""
        if self._rows or not self._tables:
            self._settle()
        if len(self._tables) > 1 or isinstance(self._tables[0], MatrixColumns):
            return tables.concat(self._tables)
        return {name: array if array.flags.writeable else array.copy() for name, array in self._tables[0].items()}

    def _settle(self) -> None:
        self._tables.append(self._build(self._rows))
        self._rows = []


class V2Codec:
    """Reads and writes V2 for one release."""

    def __init__(self, subject: Subject) -> None:
        self._fields = subject.signature.inputs
        self._inputs = Inputs(self._fields)
        self._all_columns = all(isinstance(field, Column) for field in self._fields)
        self._build = tables.builder(self._fields, tuple)
        self._requests = RequestReader(self._fields, len(subject.signature.outputs))
        self._reader = TensorReader(self._fields)
        self._outputs = [field.name for field in subject.signature.outputs]
        self._writers = [TensorWriter(field) for field in subject.signature.outputs]
        self._binary_writers = [BinaryWriter(field) for field in subject.signature.outputs]
        named = {"model_name": subject.model, "model_version": str(subject.number)}
        self._head = ENCODER.encode(named)[:-1]
        places = range(len(self._outputs))
        self._everything = {
            binary: _Asked(self._head + b',"outputs":[', [(place, binary) for place in places])
            for binary in (False, True)
        }

    def decode(self, bodies: Sequence[bytes], options: Options | None = None) -> Decoded:
        """Read a batch of request bodies; never raises for a bad body, its part says what is wrong."""
        batch = _Batch(self._build)
        accepted: list[list[InputTensor]] = []
        parts: list[Part] = []
        for body in bodies:
            start = batch.count
            try:
                request, binary = self._requests.read(body, options)
                asked = self._asked(request)
                self._take(request.inputs, binary, batch, long=len(body) > LONG)
            except msgspec.ValidationError as problem:
                parts.append(Part(failure=error("bad-protocol-body", describe(problem, "$"))))
            except UNREADABLE as problem:
                parts.append(Part(failure=bad_json(problem, body)))
            except SalverError as problem:
                parts.append(Part(failure=settled(problem)))
            else:
                count = batch.count - start
                parts.append(Part(start, count, count, asked))
                accepted.append(request.inputs)
        return Decoded(batch.whole(), batch.count, parts, extra=partial(self._inputs.count_extra, accepted))

    def encode(self, decoded: Decoded, outputs: Columns, failures: Mapping[int, SalverError]) -> list[Encoded]:
        """Write one answer per part. `outputs` has `decoded.count` rows; those in `failures` hold no answer."""
        given = outputs if len(failures) < decoded.count else None
        written: dict[int, Written] = {}
        encoded: list[Encoded] = []
        for part in decoded.parts:
            problem, count = problem_of(part, failures)
            if problem is None:
                try:
                    encoded.append(self._answer(part, given, written))
                    continue
                except SalverError as unspeakable:
                    problem, count = unspeakable, part.rows
            encoded.append(refused(problem, count))
        return encoded

    def _asked(self, request: Request) -> _Asked:
        if request.parameters is not None:
            check_sequence((name, getattr(request.parameters, name)) for name in SEQUENCE)
        binary = request.parameters is not None and request.parameters.binary_data_output is True
        everything = self._everything[binary]
        if request.id is None and not request.outputs:
            return everything
        head = self._head
        if request.id is not None:
            head += b',"id":' + ENCODER.encode(request.id)
        outputs = self._wanted(request.outputs, binary=binary) if request.outputs else everything.outputs
        return _Asked(head + b',"outputs":[', outputs)

    def _wanted(self, asked: Sequence[OutputAsked], *, binary: bool) -> Sequence[tuple[int, bool]]:
        """The places of these outputs, each once, and whether each is to be binary."""
        wanted: dict[str, bool] = {}
        for place, output in enumerate(asked):
            parameters = output.parameters
            if parameters:
                check_offered(((name, getattr(parameters, name)) for name in NOT_OFFERED), f"$.outputs[{place}]")
            said = parameters.binary_data if parameters else None
            wanted.setdefault(output.name, binary if said is None else said)
        check_outputs(wanted, self._outputs, "$.outputs")
        return [(self._outputs.index(name), said) for name, said in wanted.items()]

    def _take(self, inputs: list[InputTensor], binary: Mapping[int, memoryview], batch: _Batch, *, long: bool) -> None:
        """Add the rows of a request to the batch; raises every problem of its inputs at once."""
        if not self._inputs.is_matrix(inputs):
            self._add(self._values(inputs, binary, long=long), batch, as_rows=self._all_columns and not binary)
            return
        if said := inputs[0].parameters:
            check_matrix(said.nulls, "$.inputs[0]", base64=said.base64)
        if binary:
            block = read_matrix(self._fields, inputs[0].datatype, inputs[0].shape, binary[0], "$.inputs[0]")
            batch.add_table(MatrixColumns([field.name for field in self._fields], block), len(block))
        else:
            batch.add_rows(self._reader.matrix(inputs[0], "$.inputs[0]", long=long))

    def _values(self, inputs: list[InputTensor], binary: Mapping[int, memoryview], *, long: bool) -> list[Any]:
        """The values of each field, a list or an array, None where it is left out."""
        given = self._by_name(inputs)
        columns: list[Any] = []
        problems: list[SalverError] = []
        for field in self._fields:
            if field.name not in given:
                if not optional(field):
                    problems.append(error("invalid-row", f"$.inputs: required input {field.name!r} is missing"))
                columns.append(None)
                continue
            place = given[field.name]
            tensor, where = inputs[place], f"$.inputs[{place}]"
            try:
                if says_more(tensor):
                    columns.append(read_stated(field, tensor, binary.get(place), where, self._reader))
                elif place in binary:
                    columns.append(read(field, tensor.datatype, tensor.shape, binary[place], where))
                else:
                    columns.append(self._reader.field(field, tensor, where, long=long))
            except SalverError as problem:
                problems.append(problem)
        if problems:
            raise self._inputs.together(problems)
        return columns

    def _add(self, values: list[Any], batch: _Batch, *, as_rows: bool) -> None:
        """Add the values of each field, which must agree in their number."""
        counts = {len(each) for each in values if each is not None}
        if len(counts) > 1:
            pairs = zip(self._fields, values, strict=True)
            each = ", ".join(f"{field.name!r} has {len(values)}" for field, values in pairs if values is not None)
            raise error("bad-protocol-body", f"$.inputs: tensors differ in rows: {each}")
        count = max(counts, default=0)
        if _ABSENT in map(type, values):
            nulls = [None] * count
            values = [nulls if each is None else each for each in values]
        if as_rows:
            batch.add_rows(zip(*values, strict=True))
            return
        arrays = [
            each if isinstance(each, np.ndarray) else tables.column(field, each)
            for field, each in zip(self._fields, values, strict=True)
        ]
        names = [field.name for field in self._fields]
        if self._inputs.all_float:
            batch.add_table(MatrixColumns(names, np.column_stack(arrays)), count)
        else:
            batch.add_table(dict(zip(names, arrays, strict=True)), count)

    def _by_name(self, inputs: list[InputTensor]) -> dict[str, int]:
        if len(inputs) > MAX_TENSORS:
            raise too_many("inputs")
        given = {tensor.name: place for place, tensor in enumerate(inputs)}
        if len(given) < len(inputs):
            raise error("bad-protocol-body", "$.inputs: two tensors have the same name")
        return given

    def _answer(self, part: Part, outputs: Columns | None, written: dict[int, Written]) -> Encoded:
        """The answer to one request; `written` keeps the outputs that were written as JSON for a batch."""
        asked: _Asked = part.context
        start, stop = part.start, part.start + part.count
        tensors, blobs = [], []
        for place, binary in asked.outputs:
            name = self._outputs[place]
            if binary:
                found = self._binary_writers[place].tensor(outputs[name][start:stop] if outputs else None)
                if found is not None:  # else a null is in it, which only JSON can say
                    tensors.append(found[0])
                    blobs.append(found[1])
                    continue
            if place not in written:
                written[place] = self._writers[place].rows(outputs[name]) if outputs else Written()
            tensors.append(self._writers[place].tensor(written[place], start, stop))
        body = asked.head + b",".join(tensors) + b"]}"
        if not blobs:
            return Encoded(200, body)
        headers = f"{HEADER}: {len(body)}\r\n"
        return Encoded(200, b"".join([body, *blobs]), "application/octet-stream", headers=headers)


class V2:
    """The Open Inference Protocol, also called V2."""

    name = "v2"

    def codec(self, subject: Subject) -> Codec:
        """The codec of this format for one release."""
        return V2Codec(subject)


PROTOCOL = V2()
