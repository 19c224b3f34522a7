"""Every error Salver raises, and the one table that says what each code means to HTTP, gRPC and the shell.

    SalverError
    ├── UserError   it is the caller's turn: the request, the release or the command must change
    ├── Busy        it is nobody's fault: the same request may succeed later
    └── Broken      it is our turn, or the model author's: something that should work did not

A code is stable and kebab-case; the message names the thing, the place and what was tried; the hint says what to do.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Literal, NamedTuple

import msgspec

Turn = Literal["user", "busy", "broken"]


class Meaning(NamedTuple):
    """What one error code means: whose turn it is, and its status in each world."""

    turn: Turn
    http: int
    grpc: str
    exit: int


_USAGE, _NOT_FOUND, _REFUSED, _LATER, _BUG = 2, 3, 4, 5, 1


def _user(http: int, grpc: str = "INVALID_ARGUMENT", exit_code: int = _USAGE) -> Meaning:
    return Meaning("user", http, grpc, exit_code)


def _busy(http: int = 503, grpc: str = "UNAVAILABLE") -> Meaning:
    return Meaning("busy", http, grpc, _LATER)


def _broken(http: int = 500, grpc: str = "INTERNAL", exit_code: int = _BUG) -> Meaning:
    return Meaning("broken", http, grpc, exit_code)


CODES: dict[str, Meaning] = {
    # a request that can't be read
    "bad-request": _user(400),
    "bad-json": _user(400),
    "bad-protocol-body": _user(400),
    "too-large": _user(413, "RESOURCE_EXHAUSTED"),
    "too-many-rows": _user(413, "RESOURCE_EXHAUSTED"),
    "too-many-tensors": _user(413, "RESOURCE_EXHAUSTED"),
    "headers-too-large": _user(431, "RESOURCE_EXHAUSTED"),
    "uri-too-long": _user(414),
    "unsupported-media-type": _user(415),
    "not-acceptable": _user(406),
    "method-not-allowed": _user(405, "UNIMPLEMENTED"),
    "not-implemented": _user(501, "UNIMPLEMENTED"),
    "length-required": _user(411),
    "slow-request": _user(408, "DEADLINE_EXCEEDED"),
    # a request that can be read but not answered
    "invalid-row": _user(422),
    "poison-request": _user(422, "FAILED_PRECONDITION"),
    "no-such-path": _user(404, "NOT_FOUND", _NOT_FOUND),
    "no-such-model": _user(404, "NOT_FOUND", _NOT_FOUND),
    "no-such-release": _user(404, "NOT_FOUND", _NOT_FOUND),
    "release-not-loaded": _user(404, "NOT_FOUND", _NOT_FOUND),
    "no-live-release": _user(404, "FAILED_PRECONDITION", _NOT_FOUND),
    # who may ask
    "unauthenticated": _user(401, "UNAUTHENTICATED", _REFUSED),
    "forbidden": _user(403, "PERMISSION_DENIED", _REFUSED),
    "quota-exceeded": _busy(429, "RESOURCE_EXHAUSTED"),
    "too-many-connections": _busy(429, "RESOURCE_EXHAUSTED"),
    # capacity and time
    "overloaded": _busy(),
    "would-miss-deadline": _busy(),
    "not-ready": _busy(),
    "draining": _busy(),
    "deadline-exceeded": _busy(504, "DEADLINE_EXCEEDED"),
    "worker-died": _busy(),
    "answer-broken-off": _busy(),
    "lost-race": _busy(409, "ABORTED"),
    "no-server": _busy(),
    # the model's turn
    "model-error": _broken(),
    "row-count": _broken(),
    "bad-output": _broken(),
    "non-finite-output": _broken(),
    # releases
    "bad-name": _user(400),
    "bad-settings": _user(400),
    "bad-keys": _user(400),
    "no-such-key": _user(404, "NOT_FOUND", _NOT_FOUND),
    "no-authentication": _user(400, exit_code=_REFUSED),
    "bad-signature": _user(400),
    "bad-table": _user(400),
    "bad-examples": _user(400),
    "unsupported-model": _user(400),
    "missing-extra": _user(500, "FAILED_PRECONDITION"),
    "missing-file": _user(400, exit_code=_NOT_FOUND),
    "code-not-closed": _user(400, exit_code=_REFUSED),
    "untrusted-artifact": _user(400, exit_code=_REFUSED),
    "expected-mismatch": _user(400, exit_code=_REFUSED),
    "golden-mismatch": _broken(exit_code=_REFUSED),
    "load-failed": _broken(exit_code=_REFUSED),
    "environment-failed": _broken(exit_code=_REFUSED),
    "environment-differs": _user(500, "FAILED_PRECONDITION", _REFUSED),
    "format-too-new": _user(500, "FAILED_PRECONDITION", _REFUSED),
    "bad-manifest": _broken(exit_code=_REFUSED),
    "corrupt": _broken(500, "DATA_LOSS", _REFUSED),
    # registry and routes
    "no-registry": _user(400, exit_code=_NOT_FOUND),
    "already-exists": _user(409, "ALREADY_EXISTS", _REFUSED),
    "name-collision": _user(409, "ALREADY_EXISTS", _REFUSED),
    "nothing-to-roll-back": _user(409, "FAILED_PRECONDITION", _REFUSED),
    "storage-failed": _broken(),
    # serving
    "port-in-use": _user(500, exit_code=_USAGE),
    "start-failed": _broken(exit_code=_REFUSED),
    "internal": _broken(),
}


class SalverError(Exception):
    """The root of every error Salver raises on purpose.

    `code` is one of `CODES`; `message` names the thing and the place; `hint` says what to do next and may be empty;
    `details` holds all problems where several are known at once.
    """

    def __init__(self, code: str, message: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(code, message, hint, details)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details
        self.allow = ""  # the methods that are allowed, where another one is not
        self.retry_after = 0.0  # seconds until the same request may succeed, where that is known
        self.limit = ""  # the limit that it ran into (one of `metrics.LIMITS`), where a gateway counts it

    def __str__(self) -> str:
        text = self.message
        for detail in self.details:
            text += f"\n  - {detail}"
        return f"{text} · hint: {self.hint}" if self.hint else text

    @property
    def meaning(self) -> Meaning:
        """What this error's code means to HTTP, gRPC and the shell."""
        return CODES[self.code]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.code, self.message, self.hint, self.details)


class UserError(SalverError):
    """It is the caller's turn: the request, the release or the command must change."""


class Busy(SalverError):
    """It is nobody's fault: the same request may succeed later."""


class Broken(SalverError):
    """It is our turn or the model author's: something that should work did not."""


_TURNS: dict[Turn, type[SalverError]] = {"user": UserError, "busy": Busy, "broken": Broken}


def error(code: str, message: str, *, hint: str = "", details: tuple[str, ...] = ()) -> SalverError:
    """Build the error of a code, as the class that its turn asks for."""
    return _TURNS[CODES[code].turn](code, message, hint=hint, details=details)


def problem_json(problem: SalverError) -> bytes:
    """The body of an error in the native API: `application/problem+json` (RFC 9457)."""
    status = problem.meaning.http
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": problem.code,
        "detail": problem.message,
    }
    if problem.hint:
        body["hint"] = problem.hint
    if problem.details:
        body["details"] = problem.details
    return msgspec.json.encode(body)


def _rebuild(kind: type[SalverError], code: str, message: str, hint: str, details: tuple[str, ...]) -> SalverError:
    return kind(code, message, hint=hint, details=details)
