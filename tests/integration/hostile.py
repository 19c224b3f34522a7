"""Hostile clients: bytes that are no HTTP, bodies that are no rows, and the checks of what comes back for them."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.integration.oracle import answer
from tests.integration.server import Server

PREDICT = "/models/oracle/predict"
ROW = b'{"key": 7, "act": ""}'
ANSWER = b'{"prediction":%d}' % answer(1, 7)
POST = b"POST /models/oracle/predict HTTP/1.1\r\nhost: localhost\r\n"
LENGTH = b"content-length: %d\r\n" % len(ROW)
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(ROW), ROW)
SHEDS = (503, 504)
INTERNAL = re.compile(rb"Traceback|File \"|site-packages|/tmp/|\.py\b|\bat 0x[0-9a-f]+|msgspec|numpy|llhttp|httptools")
"""What no answer may hold: stacks, paths, addresses, names of libraries."""


def lengths(value: bytes) -> bytes:
    """A request whose content-length says this."""
    return POST + b"content-length: %b\r\n\r\n" % value + ROW


def codings(value: bytes) -> bytes:
    """A request whose transfer-encoding says this."""
    return POST + b"transfer-encoding: %b\r\n\r\n" % value + CHUNKS


def chunks(data: bytes) -> bytes:
    """A request whose chunks are these."""
    return POST + CHUNKED + b"\r\n" + data


def header(line: bytes) -> bytes:
    """A request with this line among its headers."""
    return POST + line + b"\r\n" + LENGTH + b"\r\n" + ROW


REFUSED = {
    "length and chunks": POST + LENGTH + CHUNKED + b"\r\n" + CHUNKS,
    "chunks and length": POST + CHUNKED + LENGTH + b"\r\n" + CHUNKS,
    "the same length twice": POST + LENGTH + LENGTH + b"\r\n" + ROW,
    "two lengths": POST + LENGTH + b"content-length: 3\r\n\r\n" + ROW,
    "a list of lengths": lengths(b"21, 21"),
    "a length with a sign": lengths(b"+21"),
    "a negative length": lengths(b"-1"),
    "a hexadecimal length": lengths(b"0x15"),
    "a length with an underscore": lengths(b"2_1"),
    "an empty length": lengths(b""),
    "a length over 64 bits": lengths(b"18446744073709551637"),
    "a space before the colon of length": POST + b"content-length : 21\r\n\r\n" + ROW,
    "an unknown coding": codings(b"xchunked"),
    "chunked, then another coding": codings(b"chunked, identity"),
    "chunked twice": codings(b"chunked, chunked"),
    "two codings": POST + CHUNKED + CHUNKED + b"\r\n" + CHUNKS,
    "a coding after a control": codings(b"\x0bchunked"),
    "a quoted coding": codings(b'"chunked"'),
    "a folded coding": codings(b"\r\n chunked"),
    "a space before the colon of coding": POST + b"transfer-encoding : chunked\r\n\r\n" + CHUNKS,
    "bare line feeds": (POST + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + ROW,
    "one bare line feed": POST + b"x: y\n" + LENGTH + b"\r\n" + ROW,
    "a bare line feed at the end": POST + LENGTH + b"\n" + ROW,
    "a bare carriage return": header(b"x: y\rz: 1"),
    "a folded header": header(b"x: y\r\n z"),
    "a folded first header": POST.replace(b"host", b" host") + LENGTH + b"\r\n" + ROW,
    "a zero byte in a value": header(b"x: a\0b"),
    "a control in a value": header(b"x-request-id: a\x01b"),
    "a header without a colon": header(b"xyz"),
    "a header without a name": header(b": y"),
    "a space in a name": header(b"a b: y"),
    "a control in a name": header(b"a\x01b: y"),
    "a line feed in a chunk extension": chunks(b"15;a\nb\r\n" + ROW + b"\r\n0\r\n\r\n"),
    "a control in a chunk extension": chunks(b"15;a\x01\r\n" + ROW + b"\r\n0\r\n\r\n"),
    "chunks with bare line feeds": chunks(b"15\n" + ROW + b"\n0\n\n"),
    "a space after a chunk's size": chunks(b"15 \r\n" + ROW + b"\r\n0\r\n\r\n"),
    "a space before a chunk's size": chunks(b" 15\r\n" + ROW + b"\r\n0\r\n\r\n"),
    "a chunk's size with a prefix": chunks(b"0x15\r\n" + ROW + b"\r\n0\r\n\r\n"),
    "a negative chunk": chunks(b"-15\r\n" + ROW + b"\r\n0\r\n\r\n"),
    "a chunk's size with a sign": chunks(b"+15\r\n" + ROW + b"\r\n0\r\n\r\n"),
    "a chunk's size over 64 bits": chunks(b"10000000000000015\r\n" + ROW + b"\r\n0\r\n\r\n"),
    "a chunk longer than its size": chunks(b"15\r\n" + ROW + b"XX\r\n0\r\n\r\n"),
    "a chunk without a size": chunks(b"\r\n" + ROW + b"\r\n0\r\n\r\n"),
    "a length behind the chunks": chunks(CHUNKS[:-2] + b"content-length: 5\r\n\r\n"),
    "a coding behind the chunks": chunks(CHUNKS[:-2] + CHUNKED + b"\r\n"),
    "an unknown version": b"GET / HTTP/1.2\r\nhost: localhost\r\n\r\n",
    "a version of two digits": b"GET / HTTP/1.10\r\nhost: localhost\r\n\r\n",
    "another protocol": b"GET / ICE/1.0\r\nhost: localhost\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a greeting of TLS": bytes.fromhex("16030100a5010000a10303") + b"x" * 200,
    "an unknown method": b"BREW / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a method in small letters": b"get / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "tabs in the request line": b"GET\t/\tHTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a control in the path": b"GET /a\x01b HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a zero byte in the path": b"GET /a\0b HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a path that is not ASCII": b"GET /\xe9 HTTP/1.1\r\nhost: localhost\r\n\r\n",
}
"""Requests that must be answered once with 400, and their connection closed."""

TAKEN = {
    "a length among spaces": lengths(b"  21  "),
    "a length after a tab": POST + b"content-length:\t21\r\n\r\n" + ROW,
    "a length with zeros before it": lengths(b"0000021"),
    "chunked in capitals": codings(b"CHUNKED"),
    "chunks of one byte": chunks(b"".join(b"1\r\n%c\r\n" % byte for byte in ROW) + b"0\r\n\r\n"),
    "a chunk extension": chunks(b'15;a=b;c="d"\r\n' + ROW + b"\r\n0\r\n\r\n"),
    "a chunk's size with zeros before it": chunks(b"00000015\r\n" + ROW + b"\r\n0\r\n\r\n"),
    "a header behind the chunks": chunks(CHUNKS[:-2] + b"x: y\r\n\r\n"),
    "line ends before the request": b"\r\n\r\n" + POST + LENGTH + b"\r\n" + ROW,
}
"""Odd requests that HTTP allows: each asks for the answer of `ROW`."""


class Token(bytes):
    """JSON as it is to stand in a body, valid or not."""


def encode(value: Any) -> bytes:
    """JSON of a value that may hold tokens."""
    if isinstance(value, Token):
        return bytes(value)
    if isinstance(value, list):
        return b"[%b]" % b",".join(map(encode, value))
    if isinstance(value, dict):
        return b"{%b}" % b",".join(b"%b:%b" % (encode(name), encode(item)) for name, item in value.items())
    return json.dumps(value).encode()


EVIL: Sequence[Any] = (
    None, True, False, 0, -1, 1.5, -0.0, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**400, "", "\0", "x" * 70_000,
    "\ud800", "NaN", "7", [], {}, [[]], [None], [[1], [1, 2]], {"b64": "!"}, {"b64": "AAAA"}, {"": {}},
    *map(Token, (
        b"NaN", b"-Infinity", b"1e999", b"-", b"01", b"1.", b"+1", b"0x10", b'"\\ud800\\udc00\\udc00"', b'"\\u12"',
        b'"\xff"', b'"\x01"', b"'a'", b"nul", b"", b",", b"]", b"}", b'{"a":1,"a":2}', b'{"a":}', b"[1,]", b"/**/1",
        b"[" * 2000 + b"]" * 2000, b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"1e-400", b"\xef\xbb\xbf1",
    )),
)  # fmt: skip
NAMES = ("key", "act", "inputs", "instances", "name", "shape", "datatype", "data", "parameters", "binary_data_size")
TYPES = ("INT64", "INT8", "UINT64", "FP16", "BF16", "FP32", "FP64", "BOOL", "BYTES", "INT65", "")
SHAPES: Sequence[Any] = ([], [0], [1], [2], [1, 1], [-1], [2**62, 4], [2**64], [1] * 70, [10_001], [1.0], "1", [[1]])
STEMS: Sequence[tuple[str, Callable[[], Any]]] = (
    (PREDICT, lambda: {"key": 7, "act": ""}),
    (PREDICT, lambda: [{"key": 7, "act": ""}, {"key": 8, "act": "", "more": [1, {"a": None}]}]),
    ("/v2/models/oracle/infer", lambda: {"id": "a", "inputs": tensors(), "outputs": [{"name": "prediction"}]}),
    ("/v2/models/oracle/versions/1/infer", lambda: {"inputs": tensors(), "parameters": {"binary_data_output": True}}),
    ("/v2/repository/index", lambda: {"ready": True}),
    ("/v1/models/oracle:predict", lambda: {"instances": [{"key": 7, "act": ""}, {"key": 8, "act": ""}]}),
    ("/v1/models/oracle:predict", lambda: {"inputs": {"key": [7, 8], "act": ["", ""]}, "signature_name": "x"}),
)
HEADERS: Sequence[bytes] = (
    b"content-type: text/csv", b"content-type: application/jsonlines", b"content-type: application/x-npy",
    b"content-type: application/octet-stream", b"content-type: ;;=", b'content-type: a/b; c="', b"accept: ;;,q=",
    b"accept: */*;q=nan", b"accept: text/csv", b"content-encoding: gzip", b"content-encoding: zstd",
    b"content-encoding: br", b"inference-header-content-length: 40", b"inference-header-content-length: 0",
    b"inference-header-content-length: -1", b"x-request-timeout-ms: 0", b"x-request-timeout-ms: \xb2",
    b"x-request-id: \xff%0d%0a", b"x-salver-model: ../..", b"expect: nothing", b"host: [::1", b"origin: null",
    b"authorization: Bearer \xff", b"x-api-key: ", b"range: bytes=0-", b"cookie: a=b",
)  # fmt: skip


def tensors() -> list[Any]:
    """The inputs of two rows."""
    return [
        {"name": "key", "shape": [2], "datatype": "INT64", "data": [7, 8]},
        {"name": "act", "shape": [2], "datatype": "BYTES", "data": ["", ""]},
    ]


def mutated(value: Any, chance: random.Random) -> Any:
    """The value with one of its parts replaced, left out, doubled, wrapped or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        match chance.randrange(8):
            case 0:
                return {other: item for other, item in value.items() if other != name}
            case 1:
                return {**value, chance.choice(NAMES): chance.choice(EVIL)}
            case 2 if name == "shape":
                return {**value, name: chance.choice(SHAPES)}
            case 3 if name == "datatype":
                return {**value, name: chance.choice(TYPES)}
        return {**value, name: mutated(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        match chance.randrange(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value * chance.choice((2, 3, 300))
            case 2:
                return [value]
        return [*value[:at], mutated(value[at], chance), *value[at + 1 :]]
    return chance.choice(EVIL)


def flipped(body: bytes, chance: random.Random) -> bytes:
    """The bytes with some of them changed, left out or repeated."""
    data = bytearray(body)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.choice((1, 4, 1000))]
            case 2:
                data[at:at] = data[at : at + 40]
            case 3:
                data[at:at] = chance.choice((b"\0", b'"', b"[", b"{", b"\\", b"\xff", b"e9", b"\xf0\x9f\x98\x80"))
    return bytes(data)


def request(chance: random.Random) -> bytes:
    """A whole request that keeps to HTTP, and has a body that says what it should not."""
    path, stem = chance.choice(STEMS)
    value = stem()
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        value = mutated(value, chance)
    body = encode(value)
    if chance.random() < 0.3:
        body = flipped(body, chance)
    lines = [chance.choice(HEADERS)] if chance.random() < 0.15 else []
    query = chance.choice(("", "", "", "?strict=true", "?strict=%ff", "?&&=&strict"))
    head = b"\r\n".join([f"POST {path}{query} HTTP/1.1".encode(), b"host: localhost", *lines])
    if chance.random() < 0.9:
        return head + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    cut = chance.randrange(len(body) + 1)
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:]) if part)
    return head + b"\r\n" + CHUNKED + b"\r\n" + parts + b"0\r\n\r\n"


def broken(chance: random.Random) -> bytes:
    """Bytes that hardly keep to HTTP."""
    start = chance.choice([*REFUSED.values(), *TAKEN.values(), b"GET /models HTTP/1.1\r\nhost: localhost\r\n\r\n"])
    return flipped(start, chance) if chance.random() < 0.8 else start


def fault(status: int, content_type: str, body: bytes) -> str:
    """What is wrong with an answer; nothing if it is a success, or an error as the protocols promise it."""
    if status >= 500 and status not in SHEDS:
        return "a status of our own fault"
    if status < 400:
        return ""
    if INTERNAL.search(body):
        return "an error that shows the inside"
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return "an error that is no JSON"
    if content_type.startswith("application/problem+json"):
        whole = {"title", "status", "code", "detail"} <= said.keys() and said["status"] == status
    else:
        whole = isinstance(said.get("error"), str) and bool(said["error"])
    return "" if whole else "an error without its words"


def answers(received: bytes) -> list[tuple[int, str, bytes]]:
    """The whole answers in what a connection received: status, content type, body."""
    found = []
    while received.startswith(b"HTTP/1.1 "):
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(fields.get("content-length", "0"))
        found.append((int(lines[0].split()[1]), fields.get("content-type", ""), rest[:length]))
        received = rest[length:]
    return found


LIMITED = """
import dataclasses, sys
from salver.__main__ import main
from salver.supervisor import plan
limits, serve = sys.argv.pop(1), plan.serve
plan.serve = lambda planned: serve(dataclasses.replace(planned, limits=limits))
sys.exit(main())
"""


class LimitedServer(Server):
    """A server whose front has these limits instead of the defaults."""

    def __init__(self, registry: Path, *options: str, log: Path, limits: dict[str, Any]) -> None:
        super().__init__(registry, *options, log=log)
        self._limits = json.dumps(limits)

    def start(self) -> None:
        ports = ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", LIMITED, self._limits, "serve", *ports, *self.options],
                env=dict(os.environ, SALVER_REGISTRY=str(self.registry)),
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
