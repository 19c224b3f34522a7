"""`/invocations` in JSON: what MLflow's server reads and writes, and the bare list that SageMaker's clients send.

An object has exactly one of `dataframe_split` (names and rows of values), `dataframe_records` (row objects),
`instances` (rows) and `inputs` (rows, or an object of columns); `params` is ignored and counted. The tokens NaN and
Infinity are read and written as MLflow's server does. Answers are `{"predictions": [...]}`: bare values of one output,
objects of several. One bad row fails the request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from salver import tables
from salver.errors import SalverError, error
from salver.protocols import Codec, Decoded, Encoded, Options, Part, Subject
from salver.protocols.bounds import elements
from salver.protocols.extra import ExtraFields
from salver.protocols.instances import (
    ENOUGH,
    InstanceReader,
    ListReader,
    Row,
    json_kind,
    python_values,
    read_each,
    within_limit,
)
from salver.protocols.refusals import settled
from salver.protocols.rows import (
    UNREADABLE,
    RowType,
    bad_json,
    decoder,
    describe,
    listed,
    optional,
)
from salver.protocols.tabular import Answering, Asked
from salver.protocols.values import json_type
from salver.tables import Columns

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
MEMBERS = (*FORMS, "params")
MAX_ORDERS = 64

_LIST = re.compile(rb"\s*\[")


class _Envelope(Struct, gc=False):
    dataframe_split: Raw | UnsetType = UNSET
    dataframe_records: Raw | UnsetType = UNSET
    instances: Raw | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET


class _Split(Struct, gc=False):
    data: Raw
    columns: list[str | int] | None = None


class _PythonSplit(Struct, gc=False):
    data: list[Any]
    columns: list[str | int] | None = None


class InvocationsCodec:
    """Reads and writes the JSON of `/invocations` for one release."""

    def __init__(self, subject: Subject) -> None:
        signature = subject.signature
        self._rows = RowType(signature.inputs)
        self._lists = ListReader(self._rows)
        self._instances = InstanceReader(self._rows)
        self._split = _SplitReader(self._rows)
        self._extra = ExtraFields(self._rows)
        self._envelope = msgspec.json.Decoder(_Envelope)
        self._columns = tables.builder(signature.inputs, tuple)
        self._answering = Answering(signature.outputs)

    def decode(self, bodies: Sequence[bytes], options: Options | None = None) -> Decoded:
        """Read a batch of request bodies; never raises for a bad body, its part says what is wrong."""
        rows: list[Row] = []
        parts: list[Part] = []
        counters: list[Callable[[], int]] = []
        try:
            asked = self._answering.asked(options or {}, "invocations")
        except SalverError as problem:
            parts = [Part(context=Asked("invocations"), failure=settled(problem)) for _ in bodies]
            return Decoded(self._columns(()), 0, parts)
        for body in bodies:
            part = Part(len(rows), context=asked)
            try:
                read = self._read(body, part, counters)
            except SalverError as problem:
                part.failure = settled(problem)
            else:
                part.count = part.rows = len(read)
                rows += read
            parts.append(part)
        extra = (lambda: sum(count() for count in counters)) if counters else None
        return Decoded(self._columns(rows), len(rows), parts, extra=extra)

    def encode(self, decoded: Decoded, outputs: Columns, failures: Mapping[int, SalverError]) -> list[Encoded]:
        """Write one answer per part. `outputs` has `decoded.count` rows; those in `failures` hold no answer."""
        return self._answering.encode(decoded, outputs, failures, decoded.parts[0].context)

    def _read(self, body: bytes, part: Part, counters: list[Callable[[], int]]) -> list[Row]:
        """The rows of a body; raises what is wrong with it, with the bad rows in `part.errors`."""
        if _LIST.match(body):
            return self._read_list(body, part, "$", counters)
        given = self._open(body)
        params = given.pop("params", None)
        if params is not None:
            counters.append(lambda: _size(params))
        if len(given) != 1:
            raise error(
                "bad-protocol-body",
                f"$: expected exactly one of {', '.join(FORMS)}, got {', '.join(given) or 'none of them'}",
            )
        ((form, value),) = given.items()
        if form == "dataframe_split":
            return self._split.read(value, part, counters)
        if form == "inputs" and json_kind(value) == "object":
            return self._instances.columns(value)
        return self._read_list(value, part, f"$.{form}", counters)

    def _read_list(self, data: Any, part: Part, where: str, counters: list[Callable[[], int]]) -> list[Row]:
        rows, exact = self._lists.read(data, part, where)
        if not exact:
            counters.append(partial(self._extra.count, [data]))
        return rows

    def _open(self, body: bytes) -> dict[str, Any]:
        """The members of a body that matter, unread."""
        try:
            envelope = self._envelope.decode(body)
        except msgspec.ValidationError as problem:
            raise error("bad-protocol-body", describe(problem, "$")) from None
        except UNREADABLE as problem:
            value = python_values(body, problem)
            if not isinstance(value, dict):
                raise error("bad-protocol-body", f"$: expected object, got {json_type(value)}") from None
            return {key: value[key] for key in MEMBERS if key in value}
        values = zip(MEMBERS, msgspec.structs.astuple(envelope), strict=True)
        return {key: each for key, each in values if each is not UNSET}


class _SplitReader:
    """Reads `dataframe_split`: the names of columns, in any order, and one list of values a row."""

    where = "$.dataframe_split"

    def __init__(self, rows: RowType) -> None:
        self._rows = rows
        self._split = msgspec.json.Decoder(_Split)
        self._orders: dict[tuple[str, ...], tuple[Callable[[Any], Any], Sequence[int]]] = {}

    def read(self, value: Any, part: Part, counters: list[Callable[[], int]]) -> list[Row]:
        """The rows of unread JSON, or of Python values; raises what is wrong, with the bad rows in `part.errors`."""
        try:
            split = self._split.decode(value) if isinstance(value, Raw) else msgspec.convert(value, _PythonSplit)
        except msgspec.ValidationError as problem:
            raise error("bad-protocol-body", describe(problem, self.where)) from None
        except UNREADABLE as problem:
            raise bad_json(problem, value, self.where) from None
        names = tuple(self._rows.names if split.columns is None else map(str, split.columns))
        decode, places = self._order(names)
        data: Any = split.data
        if isinstance(data, Raw):
            if len(memoryview(data)) > ENOUGH:
                elements(data, f"{self.where}.data")
            try:
                rows: list[Row] = decode(data)
            except UNREADABLE:
                rows = self._one_by_one(elements(data, f"{self.where}.data"), names, part)
            else:
                if places:
                    rows = [tuple([(*row, None)[place] for place in places]) for row in rows]
        else:
            rows = self._one_by_one(within_limit(data), names, part)
        ignored = len(names) - len(set(names).intersection(self._rows.names))
        if ignored:
            counters.append(lambda: ignored * len(rows))
        return rows

    def _order(self, names: tuple[str, ...]) -> tuple[Callable[[Any], Any], Sequence[int]]:
        """What reads rows of these columns, and the place of each field in them; none where they are in order."""
        found = self._orders.get(names)
        if found is not None:
            return found
        own = self._rows.names
        if len(set(names)) < len(names):
            raise error("bad-protocol-body", f"{self.where}.columns: a column is named twice")
        missing = [f.name for f in self._rows.fields if f.name not in names and not optional(f)]
        if missing:
            raise error(
                "invalid-row", f"{self.where}.columns lacks {listed(missing)}", hint=f"the columns are {listed(own)}"
            )
        kinds = dict(zip(own, self._rows.kinds, strict=True))
        row = tuple.__class_getitem__(tuple(kinds.get(name, Any) for name in names))
        places = () if names == tuple(own) else [names.index(n) if n in names else len(names) for n in own]
        if len(self._orders) >= MAX_ORDERS:
            self._orders.clear()
        self._orders[names] = found = decoder(list[row]).decode, places  # type: ignore[valid-type]
        return found

    def _one_by_one(self, items: Sequence[Any], names: Sequence[str], part: Part) -> list[Row]:
        def read(item: Any, index: int) -> Struct:
            where = f"{self.where}.data[{index}]"
            values = python_values(item, where=where) if isinstance(item, Raw) else item
            if not isinstance(values, list) or len(values) != len(names):
                raise error("invalid-row", f"{where}: expected array of {len(names)} values")
            return self._rows.read(dict(zip(names, values, strict=True)), where)

        return read_each(items, part, read)


class Invocations:
    """MLflow's and SageMaker's JSON."""

    name = "invocations"

    def codec(self, subject: Subject) -> Codec:
        """The codec of this format for one release."""
        return InvocationsCodec(subject)


PROTOCOL = Invocations()


def _size(params: Any) -> int:
    """How many parameters were ignored."""
    try:
        value = python_values(params) if isinstance(params, Raw) else params
    except SalverError:
        return 1
    return len(value) if isinstance(value, dict) else 1
