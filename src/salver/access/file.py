"""The keys file on disk: read whole, replaced whole, one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from salver.access.keys import Key, read_keys, write_keys
from salver.errors import error

LARGEST = 16 << 20
_PRIVATE = 0o600


class Stamp(NamedTuple):
    """What changes whenever a file does; another `inode` is a file that took its place."""

    changed_ns: int
    inode: int
    size: int


def stamp(path: Path) -> Stamp | None:
    """The stamp of the file; None while it can't be seen."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return Stamp(facts.st_mtime_ns, facts.st_ino, facts.st_size)


def load(path: Path) -> tuple[Key, ...]:
    """The keys in the file; raises `bad-keys` if it can't be read or used."""
    return read_keys(read(path, LARGEST))


def read(path: Path, largest: int) -> bytes:
    """The whole of a small file; raises `bad-keys` if it is missing or over `largest` bytes."""
    try:
        with path.open("rb") as file:
            text = file.read(largest + 1)
    except OSError as problem:
        raise error("bad-keys", f"{path} can't be read: {problem.strerror}", hint="salver key add NAME") from None
    if len(text) > largest:
        raise error("bad-keys", f"{path} is over {largest} bytes")
    return text


def change(path: Path, edit: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    """Replace the file's keys by `edit` of them: after a crash it holds either the old keys or the new."""
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            _replace(path, write_keys(edit(load(path) if path.exists() else ())))
    except OSError as problem:
        raise error("storage-failed", f"{path} can't be written: {problem.strerror}") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
