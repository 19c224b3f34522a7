"""The headers of a call: checked as RFC 9113 asks, and read as gRPC means them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from salver.errors import SalverError, error
from salver.gateway.http2_headers import Headers, literal
from salver.limits import Limits, over

MOST_REQUEST_ID: Final = 128
_REQUIRED: Final = frozenset((b":method", b":scheme", b":path"))
_PSEUDO: Final = _REQUIRED | {b":authority"}
_OF_CONNECTIONS: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"http2-settings")
)
_UNITS: Final = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1000,
    b"n": 1,
}
_OVERHEAD: Final = 32
NOT_POST = b"\x08\x03405" + literal(b"allow", b"POST")
NOT_GRPC = b"\x08\x03415"


class Head:
    """What the headers of a call say.

    `malformed` says that they break HTTP/2, `ends` that they may stand behind the last message; `page` is the answer
    to what is no gRPC; `problem` the error of what is. `deadline` and `timeout` are nanoseconds that the call, or the
    prediction, may take, 0 for what is not said; `length` is -1 where it is not. `echo` is a trailer of the answer.
    `context` are the W3C traceparent and tracestate.
    """

    __slots__ = ("context", "credential", "deadline", "echo", "ends", "gzip", "length", "malformed", "method", "page",
                 "path", "problem", "request_id", "timeout")  # fmt: skip

    def __init__(self) -> None:
        self.malformed = False
        self.ends = False
        self.page = b""
        self.problem: SalverError | None = None
        self.method: Any = None
        self.path = b""
        self.request_id = b""
        self.context = (b"", b"")
        self.credential = b""
        self.deadline = 0
        self.timeout = 0
        self.length = -1
        self.echo = b""
        self.gzip = False


def read_head(headers: Headers, methods: Mapping[bytes, Any], limits: Limits) -> Head:
    """Read the headers of a call; `methods` are found by their paths."""
    head = Head()
    pseudo: dict[bytes, bytes] = {}
    kind = b""
    size = 0
    for name, value in headers:
        size += len(name) + len(value) + _OVERHEAD
        if name[:1] == b":":
            head.malformed = head.malformed or bool(kind) or name in pseudo or name not in _PSEUDO
            pseudo[name] = value
            continue
        if name == b"content-type":
            kind = value
        else:
            kind = kind or b"none"
            head.malformed = head.malformed or not _is_allowed(name, value)
            _read_one(head, name, value, limits)
    head.path = pseudo.get(b":path", b"")
    head.ends = not pseudo and not head.malformed
    head.malformed = head.malformed or not pseudo.keys() >= _REQUIRED or not pseudo[b":path"]
    if head.malformed:
        return head
    if pseudo[b":method"] != b"POST":
        head.page = NOT_POST
    elif not kind.startswith(b"application/grpc"):
        head.page = NOT_GRPC
    elif size > limits.headers:
        head.problem = over("headers", "headers-too-large", f"the metadata is over {limits.headers} bytes")
    else:
        head.method = methods.get(pseudo[b":path"])
        if head.method is None:
            path = pseudo[b":path"].decode("latin-1")[:100]
            head.problem = error("not-implemented", f"there is no method {path!r}", hint="reflection lists the methods")
    return head


def _is_allowed(name: bytes, value: bytes) -> bool:
    if name in _OF_CONNECTIONS or name != name.lower() or not name:
        return False
    if name == b"content-length":
        return value.isdigit() and len(value) <= 12
    return name != b"te" or value == b"trailers"


def _read_one(head: Head, name: bytes, value: bytes, limits: Limits) -> None:
    reader = _READERS.get(name)
    if reader is None or head.problem is not None or head.malformed:
        return
    try:
        reader(head, value, limits)
    except SalverError as problem:
        head.problem = problem


def _read_timeout(head: Head, value: bytes, limits: Limits) -> None:
    amount, unit = value[:-1], _UNITS.get(value[-1:])
    if unit is None or not amount.isdigit() or len(amount) > 8:
        raise error("bad-request", "grpc-timeout must be up to 8 digits and a unit")
    head.deadline = int(amount) * unit or 1
    most = int(limits.timeout_most * 1e9)
    head.timeout = min(head.timeout or most, head.deadline, most)


def _read_own_timeout(head: Head, value: bytes, limits: Limits) -> None:
    most = limits.timeout_most * 1000
    if not value.isdigit() or len(value) > 9 or not 0 < int(value) <= most:
        raise error("bad-request", f"x-request-timeout-ms must be a whole number from 1 to {most:g}")
    asked = int(value) * 1_000_000
    head.timeout = min(head.timeout or asked, asked)


def _read_encoding(head: Head, value: bytes, limits: Limits) -> None:
    del limits
    head.gzip = value == b"gzip"
    if not head.gzip and value != b"identity":
        named = value.decode("latin-1")[:100]
        raise error("not-implemented", f"messages can't be compressed by {named!r} here", hint="use gzip or none")


def _read_request_id(head: Head, value: bytes, limits: Limits) -> None:
    del limits
    head.request_id = value[:MOST_REQUEST_ID]
    head.echo = literal(b"x-request-id", head.request_id)


def _read_authorization(head: Head, value: bytes, limits: Limits) -> None:
    del limits
    head.credential = head.credential or value


def _read_api_key(head: Head, value: bytes, limits: Limits) -> None:
    del limits
    head.credential = value


def _read_traceparent(head: Head, value: bytes, limits: Limits) -> None:
    del limits
    head.context = (value, head.context[1])


def _read_tracestate(head: Head, value: bytes, limits: Limits) -> None:
    del limits
    head.context = (head.context[0], value)


def _read_length(head: Head, value: bytes, limits: Limits) -> None:
    del limits
    head.length = int(value)


_READERS: dict[bytes, Callable[[Head, bytes, Limits], None]] = {
    b"grpc-timeout": _read_timeout,
    b"x-request-timeout-ms": _read_own_timeout,
    b"grpc-encoding": _read_encoding,
    b"x-request-id": _read_request_id,
    b"traceparent": _read_traceparent,
    b"tracestate": _read_tracestate,
    b"authorization": _read_authorization,
    b"x-api-key": _read_api_key,
    b"content-length": _read_length,
}
