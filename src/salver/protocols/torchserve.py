"""TorchServe's `/predictions/{model}`: a row object or a list of rows, answered by the bare prediction or a list.

The list may stand in an object under `instances` or `data`, unless a field of the model has that name. A prediction is
the bare value of one output, an object of several. One bad row fails the request.

The body may be the value of the only input itself, where that is bytes: it says so by its content type, or it has none
and begins like no JSON.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from salver import tables
from salver.errors import SalverError, error
from salver.protocols import Codec, Decoded, Encoded, Options, Part, Subject
from salver.protocols.answers import in_place, refused_at
from salver.protocols.extra import ExtraFields
from salver.protocols.instances import InstanceAnswers, ListReader, Row, json_kind, python_values
from salver.protocols.media import RAW
from salver.protocols.refusals import settled
from salver.protocols.rows import UNREADABLE, RowType, refusal
from salver.signature import is_blob
from salver.tables import Columns

_LIST = re.compile(rb"\s*\[")
_JSON = re.compile(rb'\s*[\[{"]')


class _Envelope(Struct, gc=False):
    instances: Raw | UnsetType = UNSET
    data: Raw | UnsetType = UNSET


class TorchServeCodec:
    """Reads and writes TorchServe's JSON for one release."""

    def __init__(self, subject: Subject) -> None:
        signature = subject.signature
        rows = RowType(signature.inputs)
        self._names = rows.names
        self._is_blob = len(signature.inputs) == 1 and is_blob(signature.inputs[0])
        self._lists = ListReader(rows)
        self._extra = ExtraFields(rows)
        self._envelope = msgspec.json.Decoder(_Envelope)
        self._columns = tables.builder(signature.inputs, tuple)
        self._answers = InstanceAnswers(signature.outputs)

    def decode(self, bodies: Sequence[bytes], options: Options | None = None) -> Decoded:
        """Read a batch of request bodies; never raises for a bad body, its part says what is wrong."""
        raw = options is not None and options.get("body") == RAW
        rows: list[Row] = []
        parts: list[Part] = []
        suspects: list[Any] = []
        for body in bodies:
            part = Part(len(rows))
            parts.append(part)
            try:
                data, where, part.context = self._open_raw(body, raw) or self._open(body)
                read, exact = self._lists.read(data, part, where)
            except SalverError as problem:
                part.failure = settled(problem)
                continue
            part.count = part.rows = len(read)
            rows += read
            if not exact:
                suspects.append(data)
        extra = partial(self._extra.count, suspects) if suspects else None
        return Decoded(self._columns(rows), len(rows), parts, extra=extra)

    def encode(self, decoded: Decoded, outputs: Columns, failures: Mapping[int, SalverError]) -> list[Encoded]:
        """Write one answer per part. `outputs` has `decoded.count` rows; those in `failures` hold no answer."""
        texts = self._answers.texts(outputs) if len(failures) < decoded.count else self._answers.nothing
        encoded: list[Encoded] = []
        for part in decoded.parts:
            problem = part.failure
            errors = part.errors
            if problem is None and failures:
                _, errors = in_place(part, (), failures)
                problem = refusal(errors, part.rows) if errors else None
            if problem is not None:
                encoded.append(refused_at("torchserve", problem, len(errors)))
                continue
            rows = self._answers.rows(texts, part.start, part.start + part.count)
            encoded.append(Encoded(200, rows[0] if part.context == "row" else b"[%b]" % b",".join(rows)))
        return encoded

    def _open_raw(self, body: bytes, raw: bool) -> tuple[Any, str, str] | None:
        """The one row of a body that is a value itself; None where it is JSON."""
        if raw and not self._is_blob:
            raise error(
                "unsupported-media-type",
                "a body of plain bytes is for models whose only input is bytes",
                hint="send JSON, as application/json",
            )
        if raw or (self._is_blob and body and not _JSON.match(body)):
            return [{"b64": b64encode(body).decode()}], "$", "row"
        return None

    def _open(self, body: bytes) -> tuple[Any, str, str]:
        """The list of rows in a body, its place, and whether the body is a list or a row."""
        if _LIST.match(body):
            return body, "$", "list"
        value: Any = Raw(body)
        given: dict[str, Any] = {}
        try:
            given = msgspec.structs.asdict(self._envelope.decode(body))
        except msgspec.ValidationError:
            pass  # no object
        except UNREADABLE as problem:
            value = python_values(body, problem)
            given = value if isinstance(value, dict) else {}
        for name in ("instances", "data"):
            each = given.get(name, UNSET)
            if each is not UNSET and name not in self._names and json_kind(each) == "array":
                return each, f"$.{name}", "list"
        return (b"[%b]" % body if isinstance(value, Raw) else [value]), "$", "row"


class TorchServe:
    """TorchServe's inference API."""

    name = "torchserve"

    def codec(self, subject: Subject) -> Codec:
        """The codec of this format for one release."""
        return TorchServeCodec(subject)


PROTOCOL = TorchServe()
