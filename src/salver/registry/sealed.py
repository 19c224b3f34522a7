"""Small records with their own digest, so that a flipped bit is seen and never believed."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import msgspec
from msgspec import Struct

from salver.errors import SalverError, error
from salver.registry.layout import FORMAT

T = TypeVar("T", bound=Struct)


class _Numbered(Struct):
    format: int


class _Envelope(Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    sha256: str
    record: msgspec.Raw


def seal(record: Struct) -> bytes:
    """The bytes of a record: one line of JSON with the record's digest beside it."""
    body = msgspec.json.encode(record, order="sorted")
    return msgspec.json.encode(_Envelope(FORMAT, hashlib.sha256(body).hexdigest(), msgspec.Raw(body)))


def unseal(data: bytes, kind: type[T], where: str) -> T:
    """Read a record; `where` names the place in errors (`corrupt`, `format-too-new`)."""
    try:
        number = msgspec.json.decode(data, type=_Numbered).format
        if number > FORMAT:
            raise error(
                "format-too-new", f"{where}: format {number}; this Salver reads up to {FORMAT}", hint="update Salver"
            )
        envelope = msgspec.json.decode(data, type=_Envelope)
        if hashlib.sha256(envelope.record).hexdigest() != envelope.sha256:
            raise corrupt(where, "the content does not match its own digest")
        if number < 1 or msgspec.json.encode(envelope) != data:
            raise corrupt(where, "the envelope was changed")
        return msgspec.json.decode(envelope.record, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise corrupt(where, str(problem)) from None


def corrupt(where: str, problem: str, hint: str = "restore that file from a backup of the registry") -> SalverError:
    """The error of an object that is not what was stored."""
    return error("corrupt", f"{where} is damaged: {problem}", hint=hint)
