"""One request as it is read: what its line, headers and body have brought so far, and the limits they keep."""

from __future__ import annotations

from collections.abc import Callable

from salver.errors import SalverError, error
from salver.gateway.limits import Limits
from salver.gateway.paths import Target

JSON_TYPES = frozenset(
    (b"", b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8")
)


class Request:
    """A request, filled by the parser's callbacks; raises the error that answers it where it passes a limit."""

    __slots__ = (
        "body",
        "chunks",
        "content_type",
        "expect",
        "header_bytes",
        "header_count",
        "keep_alive",
        "length",
        "limits",
        "method",
        "request_id",
        "size",
        "target",
        "timeout_ns",
        "url",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.method = b""
        self.url = b""
        self.header_bytes = 0
        self.header_count = 0
        self.content_type = b""
        self.request_id = b""
        self.expect = False
        self.timeout_ns = 0
        self.body: bytes | bytearray = b""
        self.size = 0
        self.chunks = 0
        self.keep_alive = True
        self.length = -1
        self.target: Target | None = None

    def header(self, name: bytes, value: bytes) -> None:
        """Take one header; only a few matter here."""
        self.header_bytes += len(name) + len(value)
        self.header_count += 1
        read = _READERS.get(name.lower())
        if read is not None:
            read(self, value)

    def head_complete(self) -> None:
        """Refuse a head over its limits."""
        limits = self.limits
        if len(self.url) > limits.request_line:
            raise error("uri-too-long", f"the request line is over {limits.request_line} bytes")
        if self.header_bytes > limits.headers or self.header_count > limits.header_count:
            raise error(
                "headers-too-large", f"the head is over {limits.headers} bytes or {limits.header_count} headers"
            )

    def chunk(self) -> None:
        """Count one more chunk of the body."""
        self.chunks += 1
        if self.chunks > self.limits.chunks:
            raise error("too-large", f"the body comes in more than {self.limits.chunks} chunks")

    def add(self, data: bytes) -> None:
        """Take a part of the body, kept as it is."""
        self.size += len(data)
        if self.size > self.limits.body:
            raise _too_large(self.limits.body)
        if not self.body:
            self.body = data
        elif isinstance(self.body, bytearray):
            self.body += data
        else:
            self.body = bytearray(self.body) + data

    def refusal(self) -> SalverError | None:
        """The error of a body whose media type is not JSON in UTF-8."""
        if self.content_type in JSON_TYPES or _is_json(self.content_type):
            return None
        return error(
            "unsupported-media-type",
            f"content-type {self.content_type.decode('latin-1')[:100]!r} is not accepted here",
            hint="send JSON in UTF-8 with content-type: application/json",
        )

    def is_form(self) -> bool:
        """Whether its type is the one that `curl -d` names where nothing is said; V1's clients send JSON so."""
        return self.content_type.lower() == b"application/x-www-form-urlencoded"


def _read_length(request: Request, value: bytes) -> None:
    most = request.limits.body
    if len(value) > 18 or (value.isdigit() and int(value) > most):
        raise _too_large(most)
    request.length = int(value)


def _read_type(request: Request, value: bytes) -> None:
    request.content_type = value


def _read_timeout(request: Request, value: bytes) -> None:
    most = request.limits.timeout_most
    if not value.isdigit() or len(value) > 9 or not 0 < int(value) <= most * 1000:
        raise error("bad-request", f"x-request-timeout-ms must be a whole number from 1 to {most * 1000:g}")
    request.timeout_ns = int(value) * 1_000_000


def _read_request_id(request: Request, value: bytes) -> None:
    request.request_id = value[:128]


def _read_expect(request: Request, value: bytes) -> None:
    request.expect = value.lower() == b"100-continue"


def _read_encoding(request: Request, value: bytes) -> None:
    if value.lower() not in (b"", b"identity"):
        raise error(
            "unsupported-media-type",
            f"a body of {request.content_type.decode('latin-1')[:100] or 'any type'} may not be compressed",
            hint="send it without content-encoding",
        )


_READERS: dict[bytes, Callable[[Request, bytes], None]] = {
    b"content-length": _read_length,
    b"content-type": _read_type,
    b"x-request-timeout-ms": _read_timeout,
    b"x-request-id": _read_request_id,
    b"expect": _read_expect,
    b"content-encoding": _read_encoding,
}


def _too_large(most: int) -> SalverError:
    return error("too-large", f"the body is over {most} bytes", hint="send fewer rows per request")


def _is_json(content_type: bytes) -> bool:
    kind, _, parameters = content_type.lower().partition(b";")
    kind = kind.strip()
    utf8 = parameters.strip() in (b"", b"charset=utf-8", b'charset="utf-8"')
    return utf8 and (kind in (b"application/json", b"text/json", b"") or kind.endswith(b"+json"))
