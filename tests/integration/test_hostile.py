"""Small doses of hostile clients: nothing they send crashes a process, shows the inside, or is taken past a limit."""

from __future__ import annotations

import functools
import gzip
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backports import zstd

import salver
from salver.model import Model
from salver.signature import Column, Signature, Tensor
from tests.integration import hostile
from tests.integration.hostile import ANSWER, CHUNKED, POST, PREDICT, REFUSED, ROW, TAKEN, LimitedServer
from tests.integration.server import Answer, Server
from tests.integration.wire import Wire, until_closed

V2 = "/v2/models/oracle/infer"
V1 = "/v1/models/oracle:predict"
JSON = {"content-type": "application/json"}
EXTENSION = b"\x1f\x8b\x08\x08" + bytes(6)  # the head of a gzip member that has a name, which zero ends


class Sums(Model):
    """Adds up a matrix of any size."""

    def predict(self, rows: Any) -> Any:
        return rows["x"].reshape(len(rows["x"]), -1).sum(axis=1, dtype=np.int64)


@pytest.fixture(scope="module")
def processes(server: Server) -> Iterator[tuple[list[int], list[int]]]:
    """The gateways and workers of the server; a test that takes them proves that none ends."""
    seen = sorted(server.gateways()), sorted(server.workers())
    yield seen
    assert (sorted(server.gateways()), sorted(server.workers())) == seen


@pytest.mark.parametrize("name", REFUSED)
def test_bytes_that_break_http_are_answered_once_with_400_and_the_connection_closed(server: Server, name: str) -> None:
    received = server.raw(REFUSED[name])
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in received
    (status, kind, body), *_ = hostile.answers(received)
    assert not hostile.fault(status, kind, body)


def test_what_is_odd_but_allowed_means_what_it_says(server: Server) -> None:
    for name, data in TAKEN.items():
        with Wire(server.port) as wire:
            for _ in range(2):  # the second shows that the first ended where it should
                assert wire.ask(data).body == ANSWER, name


@pytest.mark.usefixtures("processes")
def test_bodies_that_say_what_they_should_not_get_a_clean_answer(server: Server) -> None:
    chance = random.Random(20)
    wire = Wire(server.port)
    for number in range(1500):
        data = hostile.request(chance)
        try:
            answer = wire.ask(data)
        except OSError:
            raise AssertionError(f"no answer to request {number}: {data[:2000]!r}") from None
        found = hostile.fault(answer.status, answer.kind, answer.body)
        assert not found, f"{found}: {answer.status} {answer.body[:500]!r} for request {number}: {data[:2000]!r}"
        if answer.last:
            wire.close()
            wire = Wire(server.port)
    wire.close()
    assert server.post(PREDICT, ROW).body == ANSWER


@pytest.mark.parametrize(("over", "status"), [(-1, 404), (0, 404), (1, 414)])
def test_the_limit_of_the_request_line(server: Server, over: int, status: int) -> None:
    assert server.get("/" + "a" * (8191 + over)).status == status


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 431)])
def test_the_limit_of_all_headers_together(server: Server, over: int, status: int) -> None:
    head = b"GET /healthz/live HTTP/1.1\r\nhost: localhost\r\nx: %b\r\n\r\n" % (b"y" * ((16 << 10) - 14 + over))
    assert _status(server.raw(head)) == status


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 431)])
def test_the_limit_of_the_number_of_headers(server: Server, over: int, status: int) -> None:
    head = b"GET /healthz/live HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * (99 + over) + b"\r\n"
    assert _status(server.raw(head)) == status


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 413)])
def test_the_limit_of_chunks(server: Server, over: int, status: int) -> None:
    spaces = b"1\r\n \r\n" * (65_535 + over)  # the row is one more
    assert _status(server.raw(POST + CHUNKED + b"\r\n" + spaces + hostile.CHUNKS)) == status


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 413)])
def test_the_limit_of_a_body_holds_for_chunks_and_after_decompression(server: Server, over: int, status: int) -> None:
    body = ROW + _spaces()[: (64 << 20) - len(ROW) + over]
    assert server.ask("POST", PREDICT, zstd.compress(body, 1), JSON | {"content-encoding": "zstd"}).status == status
    pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[: 1 << 25], body[1 << 25 :])]
    assert _status(server.raw(POST + CHUNKED + b"\r\n" + b"".join(pieces) + b"0\r\n\r\n")) == status


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 413)])
def test_the_limit_of_what_a_body_swells_to(server: Server, over: int, status: int) -> None:
    size = 2_000_000 + over
    plain = gzip.compress(ROW + b" " * (size - len(ROW)), mtime=0)
    named = EXTENSION + b"n" * (20_000 - len(plain) - 1) + b"\0" + plain[10:]
    assert len(named) == 20_000
    assert server.ask("POST", PREDICT, named, JSON | {"content-encoding": "gzip"}).status == status


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 413)])
def test_the_limit_of_rows_is_the_same_in_every_protocol(server: Server, over: int, status: int) -> None:
    count = 10_000 + over
    row = {"key": 7, "act": ""}
    assert server.post(PREDICT, [row] * count).status == status
    assert server.post(V1, {"instances": [row] * count}).status == status
    assert server.post(V1, {"inputs": {"key": [7] * count, "act": [""] * count}}).status == status
    assert server.post(V2, {"inputs": _columns(count)}).status == status


@pytest.mark.parametrize(("over", "status"), [(-1, 200), (0, 200), (1, 413)])
def test_the_limit_of_tensors(server: Server, over: int, status: int) -> None:
    more = [{"name": f"n{at}", "shape": [1], "datatype": "INT8", "data": [1]} for at in range(254 + over)]
    assert server.post(V2, {"inputs": [*_columns(1), *more]}).status == status


def test_the_limit_of_elements_and_what_overflows_them(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    signature = Signature((Tensor("x", "int8", (-1, -1)),), (Column("prediction", "int"),))
    salver.release("sums", Sums, examples=[{"x": [1, 2, 3]}], signature=signature, registry=str(registry))
    with Server(registry, "--workers", "1", log=tmp_path / "log") as server:
        most = 16 << 20
        for over, status in ((-1, 200), (0, 200), (1, 413)):
            got = _binary(server, [1, most + over], bytes(most + over))
            assert got.status == status, (over, got.body)
        for shape in ([2**62, 4], [2**32, 2**32], [2**63, 2], [2**64, 1], [0, 2**63], [-1, -1], [-2, -3], [1, 2**31]):
            assert _binary(server, shape, b"\1" * 8).status in (400, 413, 422), shape
        assert _binary(server, [2, 4], b"\1" * 8).json["outputs"][0]["data"] == [4, 4]


@pytest.mark.parametrize("path", [PREDICT, V2, V1])
@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b'{"a":' * 1_000_000, b"[" * 1_000_000 + b"]" * 1_000_000, b'{"key":' + b"[" * 1_000_000],
    ids=["open lists", "open objects", "closed lists", "lists in a row"],
)
@pytest.mark.usefixtures("processes")
def test_absurd_nesting_is_400(server: Server, path: str, body: bytes) -> None:
    assert server.post(path, body).status == 400


@pytest.mark.usefixtures("processes")
def test_nesting_of_a_hundred_is_read_and_a_million_keys_and_a_huge_number_are_answered(server: Server) -> None:
    deep = b'{"key": 7, "act": "", "more": ' + b"[" * 99 + b"]" * 99 + b"}"
    assert server.post(PREDICT, deep).body == ANSWER
    keys = b"{%b}" % b",".join(b'"k%d":0' % number for number in range(1_000_000))
    assert server.post(PREDICT, keys).status == 422
    for path, body in (
        (PREDICT, b'{"key": %b, "act": ""}' % (b"9" * 1_000_000)),
        (V1, b'{"instances": [{"key": %b, "act": ""}]}' % (b"9" * 1_000_000)),
        (V2, json.dumps({"inputs": _columns(1)}).encode().replace(b"[7]", b"[%b]" % (b"9" * 1_000_000))),
    ):
        assert server.post(path, body).status in (400, 422), path


def test_bombs_are_refused_however_they_are_packed(server: Server) -> None:
    for encoding, pack in (("gzip", gzip.compress), ("zstd", zstd.compress)):
        headers = JSON | {"content-encoding": encoding}
        once = pack(bytes(64 << 20))
        assert server.ask("POST", PREDICT, once, headers).status == 413, encoding
        assert server.ask("POST", PREDICT, pack(once), headers).status == 400, f"{encoding} in {encoding}"
        assert server.ask("POST", PREDICT, once, JSON | {"content-encoding": f"{encoding}, {encoding}"}).status == 415
        assert server.ask("POST", PREDICT, pack(bytes(1 << 20)) * 64, headers).status == 413, encoding
        assert server.ask("POST", PREDICT, pack(b"") * 100_000, headers).status == 413, encoding
        assert server.ask("POST", PREDICT, pack(ROW[:5]) + pack(ROW[5:]), headers).body == ANSWER, encoding


def test_connections_are_limited_and_idle_ones_are_closed(published: Path, tmp_path: Path) -> None:
    limits = {"connections": 20, "keep_alive": 1.0, "header_time": 1.0, "body_time": 1.0}
    with LimitedServer(published, "--workers", "1", log=tmp_path / "log", limits=limits) as server:
        _until_quiet(server)
        held = [Wire(server.port) for _ in range(20)]
        for wire in held:
            assert wire.ask(POST + hostile.LENGTH + b"\r\n" + ROW).body == ANSWER
        over = server.raw(b"")
        assert over.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after" in over
        assert all(until_closed(wire.sock) == b"" for wire in held)
        assert server.post(PREDICT, ROW).status == 200


def test_slow_clients_are_told_so_and_cut_while_others_are_answered(published: Path, tmp_path: Path) -> None:
    limits = {"header_time": 1.0, "body_time": 1.0, "write_time": 1.0}
    with LimitedServer(published, "--workers", "1", log=tmp_path / "log", limits=limits) as server:
        heads = [_begun(server, b"POST /models") for _ in range(100)]
        bodies = [_begun(server, POST + hostile.LENGTH + b"\r\n" + ROW[:4]) for _ in range(100)]
        assert server.post(PREDICT, ROW).status == 200
        for sock in heads + bodies:
            assert until_closed(sock).startswith(b"HTTP/1.1 408 ")
        assert server.post(PREDICT, ROW).status == 200


def _begun(server: Server, data: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=15)
    sock.sendall(data)
    return sock


def _until_quiet(server: Server) -> None:
    """Wait until the connections that asked for readiness are gone."""
    while True:
        said = server.get("/metrics", port=server.admin_port).body.decode()
        lines = [line for line in said.splitlines() if line.startswith("salver_connections")]
        if sum(float(line.rpartition(" ")[2]) for line in lines) <= 1:  # the one that asks
            return


@functools.cache
def _spaces() -> bytes:
    """A body's worth of white space that compresses badly."""
    chosen = np.random.default_rng(1).integers(0, 4, 64 << 20, np.uint8)
    return np.frombuffer(b" \t\r\n", np.uint8)[chosen].tobytes()


def _columns(count: int) -> list[dict[str, Any]]:
    return [
        {"name": "key", "shape": [count], "datatype": "INT64", "data": [7] * count},
        {"name": "act", "shape": [count], "datatype": "BYTES", "data": [""] * count},
    ]


def _binary(server: Server, shape: list[int], data: bytes) -> Answer:
    tensor = {"name": "x", "shape": shape, "datatype": "INT8", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    return server.ask("POST", "/v2/models/sums/infer", head + data, headers)


def _status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


@pytest.mark.usefixtures("processes")
def test_an_ignored_number_of_too_many_digits_costs_no_worker(server: Server) -> None:
    body = b'{"instances": [{"key": 7, "act": "", "more": {"b64": ""}}], "other": %b}' % (b"1" * 10_000)
    assert server.ask("POST", V1, body, JSON).status == 200
    assert server.post(PREDICT, ROW).body == ANSWER
