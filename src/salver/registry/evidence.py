"""Evidence: verdicts, reports, approvals. The content is a blob; what points to it says whose it is."""

from __future__ import annotations

from msgspec import Struct

from salver.errors import error
from salver.registry.content import put_bytes, stream
from salver.registry.layout import evidence_name, evidence_prefix
from salver.registry.sealed import seal, unseal
from salver.release import File
from salver.storage import Storage


class Pointer(Struct, frozen=True):
    """Which content a piece of evidence has."""

    name: str
    size: int
    sha256: str


def put_evidence(storage: Storage, model: str, of: str, name: str, data: bytes) -> None:
    """Keep `data` as evidence `name` on the release or event `of`; the same content again is fine, other is not."""
    key = f"{evidence_prefix(model, of)}{evidence_name(name)}.json"
    pointer = Pointer(name, len(data), put_bytes(storage, data))
    if not storage.create(key, [seal(pointer)]) and read_pointer(storage, key) != pointer:
        raise error(
            "already-exists",
            f"{storage.place}/{key} holds other evidence already",
            hint="evidence never changes: give it another name",
        )


def evidence(storage: Storage, model: str, of: str) -> dict[str, bytes]:
    """All evidence on a release or event, by name."""
    pointers = [read_pointer(storage, key) for key in storage.list(evidence_prefix(model, of))]
    return {
        pointer.name: b"".join(stream(storage, content(pointer), f"evidence {pointer.name} of {model}"))
        for pointer in pointers
    }


def read_pointer(storage: Storage, key: str) -> Pointer:
    """The pointer at `key`."""
    return unseal(storage.read(key) or b"", Pointer, f"{storage.place}/{key}")


def content(pointer: Pointer) -> File:
    """The blob that a pointer stands for."""
    return File(pointer.name, pointer.size, pointer.sha256)
