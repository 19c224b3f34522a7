"""Storage in a dictionary: for tests and for trying things out. It forgets everything with its process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock

from salver.storage import PIECE, check_key, check_prefix


class MemoryStorage:
    """Objects in memory, shared by the threads of one process; `objects` may be damaged by a test."""

    def __init__(self, place: str = "memory") -> None:
        self.place = place
        self.objects: dict[str, bytes] = {}
        self._lock = Lock()

    def create(self, key: str, data: Iterable[bytes]) -> bool:
        """Create an object; False when it exists already."""
        check_key(key)
        whole = b"".join(data)
        with self._lock:
            created = key not in self.objects
            self.objects.setdefault(key, whole)
        return created

    def read(self, key: str) -> bytes | None:
        """The whole object, or None."""
        return self.objects.get(check_key(key))

    def stream(self, key: str) -> Iterator[bytes] | None:
        """The object in pieces, or None."""
        data = self.read(key)
        if data is None:
            return None
        return (data[start : start + PIECE] for start in range(0, len(data), PIECE))

    def list(self, prefix: str) -> Iterator[str]:
        """All keys below `prefix`, sorted."""
        check_prefix(prefix)
        with self._lock:
            return iter(sorted(key for key in self.objects if key.startswith(prefix)))
