"""KServe V1 and TF Serving: rows give `predictions`, columns give `outputs`.

`instances` are rows. `inputs` are rows where they are a list, as in KServe, and columns where they are an object; in
the dialect of TF Serving they are columns always. An instance is a row object, a list of the fields' values in order,
or the bare value of the only field. One bad row fails the request. The tokens NaN, Infinity and -Infinity, which JSON
does not have, are read and written as this protocol does; null stays null. Text and bytes may come as `{"b64": …}`;
outputs of bytes, and of text named `…_bytes`, are sent so. The one signature is called `serving_default`.
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
from salver.protocols.answers import failed, refused
from salver.protocols.bounds import MOST_MEMBERS, check_rows, has_many_members
from salver.protocols.extra import ExtraFields
from salver.protocols.instances import (
    ENOUGH,
    Form,
    InstanceAnswers,
    InstanceReader,
    Row,
    fast_decoders,
    instance_values,
    json_kind,
    needs_python,
    python_values,
)
from salver.protocols.refusals import settled
from salver.protocols.rows import UNREADABLE, RowType, decoder, describe, refusal
from salver.protocols.values import json_type
from salver.tables import Columns

SIGNATURE_NAMES = (None, "", "serving_default")
TFSERVING = "tfserving"

_NOT_FAST = (KeyError, *UNREADABLE)
_FIRST = re.compile(rb'"instances"\s*:\s*\[\s*(.)', re.DOTALL)


class _Envelope(Struct, gc=False):
    instances: Raw | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET
    signature_name: str | None = None
    specversion: Raw | UnsetType = UNSET


class V1Codec:
    """Reads and writes V1 JSON for one release."""

    def __init__(self, subject: Subject) -> None:
        signature = subject.signature
        self._rows = RowType(signature.inputs)
        self._strict = fast_decoders(self._rows, self._rows.strict, _request)
        self._lenient = (fast_decoders(self._rows, self._rows.struct, _request),)
        self._both = (self._strict, *self._lenient)
        self._extra = ExtraFields(self._rows)
        self._expects_extra = False  # whether the last batch had extra fields
        self._reader = InstanceReader(self._rows)
        self._envelope = msgspec.json.Decoder(_Envelope)
        self._columns = tables.builder(signature.inputs, tuple)
        self._answers = InstanceAnswers(signature.outputs, packed=True)

    def decode(self, bodies: Sequence[bytes], options: Options | None = None) -> Decoded:
        """Read a batch of request bodies; never raises for a bad body, its part says what is wrong."""
        columnar = options is not None and options.get("dialect") == TFSERVING
        rows: list[Row] = []
        suspects: list[bytes] = []
        parts: list[Part] = []
        for body in bodies:
            part = Part(len(rows))
            try:
                part.context, read, exact = self._read(body, part, columnar=columnar)
            except SalverError as problem:
                part.failure = settled(problem)
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
            errors = failed(part, failures)
            if errors:
                encoded.append(refused(refusal(errors, part.rows), len(errors)))
            else:
                encoded.append(
                    Encoded(200, self._answers.body(part.context, texts, part.start, part.start + part.count))
                )
        return encoded

    def _count_extra(self, bodies: Sequence[bytes]) -> int:
        given = [value for body in bodies for value in self._open(body) if value is not UNSET]
        found = self._extra.count(given)
        self._expects_extra = found > 0
        return found

    def _read(self, body: bytes, part: Part, *, columnar: bool) -> tuple[Form, list[Row], bool]:
        """Which of the two forms a body has, its rows, and whether it has no extra fields for sure.

        `columnar` says that inputs are columns even where they are a list. Raises what is wrong, with the bad rows in
        `part.errors`.
        """
        if len(body) > ENOUGH and has_many_members(body):
            raise error("bad-protocol-body", f"$: more than {MOST_MEMBERS} members")
        if len(body) > ENOUGH and self._reader.could_exceed(body):
            check_rows(body, "instances")
        if first := _FIRST.search(body):
            for fast in self._lenient if self._expects_extra else self._both:
                try:
                    request = fast[first[1]](body)
                except _NOT_FAST:
                    continue  # extra fields, another form, or a bad body: the last two are read one by one
                if request.inputs is UNSET and request.signature_name in SIGNATURE_NAMES:
                    return "predictions", instance_values(request.instances), fast is self._strict
        instances, inputs = self._open(body)
        if (instances is UNSET) == (inputs is UNSET):
            raise error("bad-protocol-body", "$: expected exactly one of instances and inputs")
        if inputs is UNSET:
            return "predictions", self._reader.rows(instances, part), False
        if not columnar and json_kind(inputs) == "array":
            return "predictions", self._reader.rows(inputs, part, "$.inputs"), False
        return "outputs", self._reader.columns(inputs), False

    def _open(self, body: bytes) -> tuple[Any, Any]:
        """The instances and inputs of a body, unread; as Python values where the body holds tokens that JSON lacks."""
        if needs_python(body, self._rows.fields):
            return _of_python(python_values(body))
        try:
            envelope = self._envelope.decode(body)
        except msgspec.ValidationError as problem:
            raise error("bad-protocol-body", describe(problem, "$")) from None
        except UNREADABLE as problem:
            return _of_python(python_values(body, problem))
        _check_name(envelope.signature_name)
        if envelope.specversion is not UNSET:
            _check_event(envelope.instances, envelope.inputs)
        return envelope.instances, envelope.inputs


class V1:
    """KServe's V1 protocol, which is also the row and column format of TF Serving."""

    name = "v1"

    def codec(self, subject: Subject) -> Codec:
        """The codec of this format for one release."""
        return V1Codec(subject)


PROTOCOL = V1()


def _request(instance: Any) -> Callable[[bytes], Any]:
    members: list[Any] = [
        ("instances", list[instance]),
        ("inputs", Raw | UnsetType, UNSET),
        ("signature_name", str | None, None),
    ]
    return decoder(msgspec.defstruct("Request", members)).decode


def _of_python(value: Any) -> tuple[Any, Any]:
    if not isinstance(value, dict):
        raise error("bad-protocol-body", f"$: expected object, got {json_type(value)}")
    _check_name(value.get("signature_name"))
    found = value.get("instances", UNSET), value.get("inputs", UNSET)
    if "specversion" in value:
        _check_event(*found)
    return found


def _check_name(name: Any) -> None:
    if name not in SIGNATURE_NAMES:
        raise error("bad-protocol-body", "$.signature_name: this model has one signature, serving_default")


def _check_event(instances: Any, inputs: Any) -> None:
    """Refuse a structured CloudEvent, whose data is not unwrapped here."""
    if instances is UNSET and inputs is UNSET:
        raise error(
            "unsupported-media-type",
            "the body is a CloudEvent in structured mode (application/cloudevents+json), which is not read here",
            hint="send the event's data as the body, with content-type application/json",
        )
