"""Bodies that killed workers, refused for a while without touching one."""

from __future__ import annotations

import hashlib


class Quarantine:
    """Remembers bodies by a keyed hash until a time; bounded, the oldest go first. The clock is the caller's."""

    def __init__(self, key: bytes, *, hold_ns: int = 600 * 10**9, most: int = 10_000) -> None:
        self._key = key[:64]
        self._hold = hold_ns
        self._most = most
        self.bodies: dict[bytes, int] = {}

    def add(self, body: bytes, now: int) -> None:
        """Refuse this body from now on, for the hold time."""
        while len(self.bodies) >= self._most:
            del self.bodies[next(iter(self.bodies))]
        self.bodies[self._digest(body)] = now + self._hold

    def holds(self, body: bytes, now: int) -> bool:
        """Whether this body is refused now."""
        digest = self._digest(body)
        until = self.bodies.get(digest)
        if until is None:
            return False
        if until <= now:
            del self.bodies[digest]
            return False
        return True

    def _digest(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._key, digest_size=16).digest()
