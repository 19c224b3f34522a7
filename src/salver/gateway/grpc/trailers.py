"""How calls end: their status, and what they say of themselves, as header blocks."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from salver.errors import SalverError, error
from salver.gateway.answers import Clock
from salver.gateway.http2_headers import literal

MOST_WORDS: Final = 2000
MOST_ESCAPED: Final = 6000
_CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
OK: Final = literal(b"grpc-status", b"0")
_RELEASE: Final = b"x-salver-release"
_ID: Final = b"x-salver-prediction-id"
_PREFIX: Final = 28
"""Bytes of a prediction id without its last 8 digits."""
_ACCEPTED: Final = literal(b"grpc-accept-encoding", b"identity,gzip")


def refused(code: str, words: str) -> bytes:
    """The trailers of a call that ends with an error's code and words for it."""
    status = _CODES.index(error(code, "").meaning.grpc)
    escaped = quote(words[:MOST_WORDS], safe=_PRINTABLE)
    if len(escaped) > MOST_ESCAPED:
        escaped = escaped[:MOST_ESCAPED].rpartition("%")[0]
    return b"".join(
        [
            literal(b"grpc-status", b"%d" % status),
            literal(b"grpc-message", escaped.encode()),
            literal(b"x-salver-error", code.encode()),
            _ACCEPTED if code == "not-implemented" else b"",
        ]
    )


def of_problem(problem: SalverError) -> bytes:
    """The trailers of a call that ends with an error."""
    return refused(problem.code, str(problem))


def id_of(named: bytes, number: int) -> str:
    """The prediction id in what `Names` says, of the call with this number."""
    return f"{named[-_PREFIX:].decode()}{number & 0xFFFFFFFF:08x}"


class Names:
    """What the answers of one release say of themselves, renewed every millisecond for their prediction id."""

    __slots__ = ("_clock", "_head", "_ok", "_until")

    def __init__(self, release: str, clock: Clock) -> None:
        whole = literal(_ID, bytes(36))
        self._head = literal(_RELEASE, release.encode()) + whole[: len(whole) - 36]
        self._clock = clock
        self._until = -1
        self._ok = b""

    def ok(self, now: int) -> bytes:
        """The trailers of a call that is answered, but for the last 8 digits of its prediction id."""
        if now >= self._until:
            self._until = now + 1_000_000
            self._ok = OK + self.other(now)
        return self._ok

    def other(self, now: int) -> bytes:
        """The same without a status."""
        return self._head + self._clock.prefix(now)
