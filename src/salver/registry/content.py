"""File contents by digest: checked on the way in, checked on the way out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from salver.errors import SalverError, error
from salver.record import Release
from salver.registry.layout import blob_key, digest_of
from salver.registry.sealed import corrupt
from salver.release import MANIFEST, File
from salver.storage import PIECE, Storage

_REPLACE = "move the damaged file away and publish the same content again, or restore it from a backup"
_REBUILD = "the folder changed after its manifest was made: build the release again"


def checked(pieces: Iterable[bytes], file: File, where: str, hint: str = _REPLACE) -> Iterator[bytes]:
    """Pass pieces on and raise `corrupt` at the end unless they had the size and sha256 of `file`.

    Whoever uses the pieces must keep them to himself until the end.
    """
    seen, found = 0, hashlib.sha256()
    for piece in pieces:
        seen += len(piece)
        if seen > file.size:
            raise corrupt(where, f"more than {file.size} bytes", hint)
        found.update(piece)
        yield piece
    if seen != file.size:
        raise corrupt(where, f"{seen} bytes instead of {file.size}", hint)
    if found.hexdigest() != file.sha256:
        raise corrupt(where, f"its sha256 is {found.hexdigest()} instead of {file.sha256}", hint)


def put_file(storage: Storage, folder: Path, file: File) -> None:
    """Store one file of a release, checked against its manifest entry on the way.

    A blob that is there already is read and checked too: an acknowledged release can be loaded.
    """
    path, key = folder / file.path, blob_key(file.sha256)

    def source() -> Iterator[bytes]:
        return checked(_chunks_checked(_read(path), file, str(path)), file, str(path), _REBUILD)

    stored = storage.stream(key)
    if stored is not None:
        exhaust(checked(stored, file, f"{storage.place}/{key}"))
        exhaust(source())
    storage.create(key, source())  # also when it is there: the answer means that it is durable


def put_bytes(storage: Storage, data: bytes) -> str:
    """Store bytes; the sha256 in hex under which they lie."""
    digest = hashlib.sha256(data).hexdigest()
    key = blob_key(digest)
    if not storage.create(key, [data]):
        exhaust(checked(storage.stream(key) or (), File("", len(data), digest), f"{storage.place}/{key}"))
    return digest


def measure(pieces: Iterable[bytes]) -> tuple[str, int]:
    """The sha256 in hex and the number of bytes."""
    size, found = 0, hashlib.sha256()
    for piece in pieces:
        size += len(piece)
        found.update(piece)
    return found.hexdigest(), size


def exhaust(pieces: Iterable[bytes]) -> int:
    """Read to the end for the sake of the check there; the number of bytes."""
    return sum(map(len, pieces))


def stream(storage: Storage, file: File, what: str) -> Iterator[bytes]:
    """The content of a file in pieces, checked at the end; `what` names it in errors (`model/a.bin of churn@7`)."""
    key = blob_key(file.sha256)
    pieces = storage.stream(key)
    if pieces is None:
        raise _missing(storage, key, what)
    return checked(pieces, file, f"{storage.place}/{key}, which is {what},")


def manifest_data(storage: Storage, release: Release) -> bytes:
    """The canonical manifest of a release, checked against its id."""
    what = f"{MANIFEST} of {release.name}"
    digest = digest_of(release.id)
    key = blob_key(digest)
    data = storage.read(key)
    if data is None:
        raise _missing(storage, key, what)
    exhaust(checked([data], File(MANIFEST, len(data), digest), f"{storage.place}/{key}, which is {what},"))
    return data


def _missing(storage: Storage, key: str, what: str) -> SalverError:
    return error(
        "corrupt",
        f"{storage.place}/{key}, which is {what}, is missing",
        hint="restore it from a backup, or publish the same content again",
    )


def _read(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except FileNotFoundError:
        raise error("missing-file", f"{path} does not exist", hint="build the release again") from None
    except OSError as problem:
        raise error("storage-failed", f"{path} can't be read: {problem.strerror}") from problem


def _chunks_checked(pieces: Iterable[bytes], file: File, where: str) -> Iterator[bytes]:
    """Pass pieces on and raise `corrupt` unless their digests are the file's `chunks`, where it has any."""
    for number, piece in enumerate(pieces):
        if file.chunks and hashlib.sha256(piece).hexdigest() != "".join(file.chunks[number : number + 1]):
            raise corrupt(where, f"piece {number} of {PIECE} bytes does not match its digest", _REBUILD)
        yield piece
