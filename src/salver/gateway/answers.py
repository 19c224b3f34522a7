"""The bytes of answers: heads, bodies of errors in each protocol's own shape, prediction ids."""

from __future__ import annotations

import math
import os
import time
from email.utils import formatdate
from http import HTTPStatus

from salver.errors import SalverError
from salver.protocols.refusals import refusal_body

_REASONS = {int(status): status.phrase for status in HTTPStatus}
RETRY_AFTER = b"retry-after: 1\r\n"
RETRIED = (429, 503)
CHALLENGE = b"www-authenticate: Bearer\r\n"


def status_line(status: int) -> bytes:
    """The first line of an answer."""
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n".encode()


STATUS_LINES = {status: status_line(status) for status in _REASONS}


def error_body(problem: SalverError, protocol: str) -> tuple[bytes, str]:
    """An error in the shape of the protocol it answers, and its media type."""
    return refusal_body(problem, protocol)


def error_page(problem: SalverError, protocol: str, headers: bytes, *, close: bool, head: bool = False) -> bytes:
    """A whole answer that is an error, with these headers besides the usual ones."""
    body, kind = error_body(problem, protocol)
    status = problem.meaning.http
    if status == 401:
        headers += CHALLENGE
    if problem.allow:
        headers += b"allow: %b\r\n" % problem.allow.encode()
    answer = page(status, body, kind, close=close, head=head)
    if problem.retry_after:
        headers += b"retry-after: %d\r\n" % math.ceil(problem.retry_after)
        answer = answer.replace(RETRY_AFTER, b"", 1)
    return with_headers(answer, headers)


def with_headers(answer: bytes, headers: bytes) -> bytes:
    """A whole answer with more headers, each of which ends its line."""
    return answer.replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n", 1) if headers else answer


def page(status: int, body: bytes, content_type: str, *, close: bool = False, head: bool = False) -> bytes:
    """A whole answer that is no prediction."""
    lines = [
        STATUS_LINES.get(status) or status_line(status),
        f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n".encode(),
        b"x-content-type-options: nosniff\r\n",
        RETRY_AFTER if status in RETRIED else b"",
        b"connection: close\r\n\r\n" if close else b"\r\n",
    ]
    return b"".join(lines if head else [*lines, body])


class Clock:
    """The date of answers and the first part of prediction ids, renewed no more often than each changes.

    An id is a UUIDv7 of the time, random bits of this process, and the request's number in its last 8 hex digits.
    """

    __slots__ = ("_date", "_offset", "_second", "_tail")

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()
        entropy = int.from_bytes(os.urandom(6), "big")
        self._tail = b"-7%03x-8%03x-%04x" % (entropy & 0xFFF, entropy >> 12 & 0xFFF, entropy >> 24 & 0xFFFF)
        self._second = -1
        self._date = b""

    def date(self, now_ns: int) -> bytes:
        """The date header's value at `now_ns` of the monotonic clock."""
        second = (now_ns + self._offset) // 1_000_000_000
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True).encode()
        return self._date

    def prefix(self, now_ns: int) -> bytes:
        """All of an id made at `now_ns` of the monotonic clock but its last 8 hex digits."""
        stamp = b"%012x" % ((now_ns + self._offset) // 1_000_000)
        return stamp[:8] + b"-" + stamp[8:] + self._tail


class Heads:
    """Prepared heads of one release's answers, renewed every millisecond for their prediction id."""

    __slots__ = ("_clock", "_ok", "_release", "_until")

    def __init__(self, release: str, clock: Clock) -> None:
        self._release = f"x-salver-release: {release}\r\nx-salver-prediction-id: ".encode()
        self._clock = clock
        self._until = -1
        self._ok = b""

    def ok(self, now_ns: int) -> bytes:
        """The head of a 200 JSON answer, up to the last 8 digits of its prediction id."""
        if now_ns >= self._until:
            self._until = now_ns + 1_000_000
            self._ok = self.other(200, "application/json", now_ns)
        return self._ok

    def other(self, status: int, content_type: str, now_ns: int, retry_after: int = 1) -> bytes:
        """The head of any answer, up to the same place; `retry_after` is in seconds, for those that may be retried."""
        return b"%bcontent-type: %b\r\ndate: %b\r\n%b%b%b" % (
            STATUS_LINES.get(status) or status_line(status),
            content_type.encode(),
            self._clock.date(now_ns),
            b"retry-after: %d\r\n" % retry_after if status in RETRIED else b"",
            self._release,
            self._clock.prefix(now_ns),
        )
