"""One request as it is read: what its line, headers and body have brought so far, and the limits they keep."""

from __future__ import annotations

from collections.abc import Callable

from salver.access.principal import Principal
from salver.errors import error
from salver.frames import Form
from salver.gateway.compressed import ENCODINGS, Decompressor
from salver.gateway.paths import Target
from salver.limits import Limits, over
from salver.memory import HEAP


class Request:
    """A request, filled by the parser's callbacks; raises the error that answers it where it passes a limit."""

    __slots__ = (
        "accept",
        "body",
        "chunks",
        "content_type",
        "cors",
        "credential",
        "decompressor",
        "expect",
        "form",
        "has_body",
        "header_bytes",
        "header_count",
        "header_length",
        "host",
        "hosts",
        "keep_alive",
        "length",
        "limits",
        "method",
        "model",
        "origin",
        "pattern",
        "plain",
        "principal",
        "received",
        "request_id",
        "size",
        "target",
        "timeout_ns",
        "traceparent",
        "tracestate",
        "upgrades",
        "url",
        "version",
        "whole",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.method = b""
        self.url = b""
        self.version = "1.1"
        self.whole = False  # the head is
        self.upgrades = False  # it offers another protocol, and its body is still to be read
        self.has_body = False
        self.hosts = 0
        self.header_bytes = 0
        self.header_count = 0
        self.content_type = b""
        self.accept = b""
        self.model = ""  # that a header names
        self.header_length = b""
        self.decompressor: Decompressor | None = None
        self.request_id = b""
        self.plain = False  # its answer needs no header of its own
        self.pattern = b""  # of its line in the access log, where it is plain and has one
        self.traceparent = b""
        self.tracestate = b""
        self.expect = False
        self.timeout_ns = 0
        self.body: bytes | bytearray = b""
        self.size = 0  # of the body, decompressed
        self.received = 0  # of the body, as it came
        self.chunks = 0
        self.keep_alive = True
        self.length = -1
        self.target: Target | None = None
        self.host = b""
        self.origin = b""
        self.credential = b""
        self.principal: Principal | None = None  # who calls, where that is asked for
        self.cors = b""  # headers of its answer for browsers
        self.form: Form | None = None  # how its body is read, and its answer written

    def header(self, name: bytes, value: bytes) -> None:
        """Take one header; only a few matter here, and none behind the body."""
        self.header_bytes += len(name) + len(value)
        self.header_count += 1
        if self.whole:
            self._check_headers()
            return
        read = _READERS.get(name.lower())
        if read is not None:
            read(self, value)

    def head_complete(self) -> None:
        """Refuse a head that is over its limits or no HTTP/1."""
        self.whole = True
        limits = self.limits
        if len(self.url) > limits.request_line:
            raise over("request-line", "uri-too-long", f"the request line is over {limits.request_line} bytes")
        self._check_headers()
        if self.version not in ("1.0", "1.1"):
            raise error("bad-request", "the request can't be read as HTTP/1.1")
        if self.hosts > 1 or (not self.hosts and self.version == "1.1"):
            raise error("bad-request", f"the request has {self.hosts} host headers", hint="HTTP/1.1 asks for one")

    def _check_headers(self) -> None:
        limits = self.limits
        if self.header_bytes > limits.headers or self.header_count > limits.header_count:
            which = "headers" if self.header_bytes > limits.headers else "header-count"
            message = f"the head is over {limits.headers} bytes or {limits.header_count} headers"
            raise over(which, "headers-too-large", message)

    def chunk(self) -> None:
        """Count one more chunk of the body."""
        self.chunks += 1
        if self.chunks > self.limits.chunks + 1:  # the last one, which is empty, ends the body
            raise over("chunks", "too-large", f"the body comes in more than {self.limits.chunks} chunks")

    def add(self, data: bytes) -> None:
        """Take a part of the body, as it came."""
        self.received += len(data)
        if self.decompressor is None:
            self._keep(data)
            return
        for part in self.decompressor.parts(data):
            self._keep(part)

    def _keep(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.limits.body:
            raise self.limits.too_large("body")
        if not self.body:
            self.body = data
        elif isinstance(self.body, bytearray):
            self.body += data
            HEAP.took(self.size)
        else:
            self.body = bytearray(self.body) + data

    def end(self) -> None:
        """The body is whole: refuse one whose compression ends too early."""
        if self.decompressor is not None:
            self.decompressor.end()


def _read_length(request: Request, value: bytes) -> None:
    most = request.limits.body
    if len(value) > 18 or (value.isdigit() and int(value) > most):
        raise request.limits.too_large("body")
    request.length = int(value)
    request.has_body = True


def _read_transfer(request: Request, value: bytes) -> None:
    if value.strip().lower() != b"chunked":
        raise error("bad-request", "transfer-encoding must be chunked", hint="content-encoding names a compression")
    request.has_body = True


def _read_type(request: Request, value: bytes) -> None:
    request.content_type = value


def _read_accept(request: Request, value: bytes) -> None:
    request.accept = request.accept + b"," + value if request.accept else value


def _read_header_length(request: Request, value: bytes) -> None:
    if not value.isdigit() or len(value) > 12:
        raise error("bad-request", "inference-header-content-length must be a whole number of bytes")
    request.header_length = value


def _read_model(request: Request, value: bytes) -> None:
    request.model = value.decode("latin-1")[:100]


def _read_timeout(request: Request, value: bytes) -> None:
    most = request.limits.timeout_most
    if not value.isdigit() or len(value) > 9 or not 0 < int(value) <= most * 1000:
        raise error("bad-request", f"x-request-timeout-ms must be a whole number from 1 to {most * 1000:g}")
    request.timeout_ns = int(value) * 1_000_000


def _read_request_id(request: Request, value: bytes) -> None:
    request.request_id = value[:128]


def _read_traceparent(request: Request, value: bytes) -> None:
    request.traceparent = value[:128]


def _read_tracestate(request: Request, value: bytes) -> None:
    request.tracestate = request.tracestate + b"," + value if request.tracestate else value


def _read_host(request: Request, value: bytes) -> None:
    request.host = value
    request.hosts += 1


def _read_origin(request: Request, value: bytes) -> None:
    request.origin = value


def _read_authorization(request: Request, value: bytes) -> None:
    request.credential = request.credential or value


def _read_api_key(request: Request, value: bytes) -> None:
    request.credential = value


def _read_expect(request: Request, value: bytes) -> None:
    request.expect = value.lower() == b"100-continue"


def _read_encoding(request: Request, value: bytes) -> None:
    encoding = value.strip().lower().removeprefix(b"x-")  # x-gzip is gzip (RFC 9110, 8.4.1.3)
    if encoding in (b"", b"identity"):
        return
    if request.decompressor is not None or encoding not in ENCODINGS:
        raise error(
            "unsupported-media-type",
            f"content-encoding {value.decode('latin-1')[:100]!r} is not accepted here",
            hint="compress once, with gzip, zstd or deflate, or not at all",
        )
    request.decompressor = Decompressor(encoding, request.limits.compression_ratio)


_READERS: dict[bytes, Callable[[Request, bytes], None]] = {
    b"transfer-encoding": _read_transfer,
    b"content-length": _read_length,
    b"content-type": _read_type,
    b"accept": _read_accept,
    b"inference-header-content-length": _read_header_length,
    b"x-request-timeout-ms": _read_timeout,
    b"x-request-id": _read_request_id,
    b"x-salver-model": _read_model,
    b"traceparent": _read_traceparent,
    b"tracestate": _read_tracestate,
    b"expect": _read_expect,
    b"host": _read_host,
    b"origin": _read_origin,
    b"authorization": _read_authorization,
    b"x-api-key": _read_api_key,
    b"content-encoding": _read_encoding,
}
