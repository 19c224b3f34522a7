"""The storage port: named objects that are created once and never change.

A folder (`folder`), a dictionary (`memory`) and any object store with create-only puts can stand behind it.
Keys are relative paths of plain segments (`models/churn/routes/000000000007.json`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from salver.errors import error

PIECE = 8 << 20

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


class Storage(Protocol):
    """Objects that are created once; `place` names the store in messages.

    Every method raises `storage-failed` when the store can't do it, and reads raise `no-registry` where there is no
    store at all.
    """

    place: str

    def create(self, key: str, data: Iterable[bytes]) -> bool:
        """Create an object from pieces, whole or not at all; False when it exists already.

        Either answer means that the object is durable. An exception from `data` leaves nothing behind.
        """

    def read(self, key: str) -> bytes | None:
        """The whole object, or None when there is none."""

    def stream(self, key: str) -> Iterator[bytes] | None:
        """The object in pieces of `PIECE` bytes (the last may be shorter), or None when there is none."""

    def list(self, prefix: str) -> Iterator[str]:
        """All keys below `prefix` (empty, or ending in a slash), sorted."""


def check_key(key: str) -> str:
    """Return `key` if every segment of it is plain: letters, digits, '.', '_' and '-', not beginning with a dot."""
    if not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise error("storage-failed", f"{key!r} can't be the name of a stored object")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it is empty or a key followed by a slash."""
    if prefix:
        check_key(prefix.removesuffix("/"))
        if not prefix.endswith("/"):
            raise error("storage-failed", f"{prefix!r} can't be listed: a prefix ends in a slash")
    return prefix
