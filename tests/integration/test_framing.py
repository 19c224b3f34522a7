"""Where one request ends and the next begins, for clients that are clever about it."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.integration.oracle import answer
from tests.integration.server import Server
from tests.integration.wire import Wire

PREDICT = b"/models/oracle/predict"
JSON = b"content-type: application/json\r\n"


def ask(key: int, headers: bytes = b"", act: str = "") -> bytes:
    body = json.dumps({"key": key, "act": act}).encode()
    return _head(len(body), headers) + body


def _head(length: int, headers: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: localhost\r\n%b%bcontent-length: %d\r\n\r\n" % (PREDICT, JSON, headers, length)


def said(key: int) -> bytes:
    return b'{"prediction":%d}' % answer(1, key)


def test_garbage_behind_a_request_never_holds_a_worker(server: Server) -> None:
    for _ in range(60):
        with Wire(server.port) as wire:
            wire.sock.sendall(ask(1) + b"XX\r\n\r\n")
    with Wire(server.port) as wire:
        assert wire.ask(ask(2)).body == said(2)
    ends = time.monotonic() + 10
    while json.loads(server.get("/status", port=server.admin_port).body)["releases"][0]["open_requests"]:
        assert time.monotonic() < ends, "a request that nobody waits for holds a worker"
        time.sleep(0.02)


def test_a_body_that_looks_like_a_request_stays_a_body(server: Server) -> None:
    known = ask(3)
    with Wire(server.port) as wire:
        assert wire.ask(known).body == said(3)  # its head is remembered from now on
        wire.sock.sendall(ask(4, act="sleep") + _head(len(known) + 50))
        assert wire.answer().status == 200
        wire.sock.sendall(known)
        wire.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):  # it is the beginning of the body that was announced
            wire.answer()


@pytest.mark.parametrize("size", [0, 30_000, 300_000])
def test_a_large_request_may_wait_behind_an_open_one(server: Server, size: int) -> None:
    padded = json.dumps({"key": 6, "act": "", "more": "x" * size}).encode()
    with Wire(server.port) as wire:
        wire.sock.sendall(ask(5, act="sleep") + _head(len(padded)) + padded + ask(7))
        assert [wire.answer().body for _ in range(3)] == [said(5), said(6), said(7)]


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(ask(1, act="sleep") + b"GET / HTTP/1.1\r\nx: ", id="a pipelined head"),
        pytest.param(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " % PREDICT,
            id="a trailer",
        ),
        pytest.param(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1;" % PREDICT,
            id="a chunk extension",
        ),
    ],
)
def test_framing_that_never_ends_is_cut_off(server: Server, endless: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(endless)
        with pytest.raises(ConnectionError):  # in the end: a client may finish what it is saying
            _send_on(sock)


def _send_on(sock: socket.socket) -> None:
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        sock.sendall(b"y" * (64 << 10))
        time.sleep(0.01)


def test_trailers_are_no_headers(server: Server) -> None:
    body = b'{"key": 8, "act": ""}'
    chunked = b"POST %b HTTP/1.1\r\nhost: localhost\r\n%btransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n%b\r\n"
    with Wire(server.port) as wire:
        for trailer in (b"content-encoding: gzip\r\n", b"host: elsewhere\r\n", b"x-api-key: slv_nobody\r\n"):
            assert wire.ask(chunked % (PREDICT, JSON, len(body), body, trailer)).body == said(8), trailer


@pytest.mark.parametrize("length", [True, False])
def test_an_offer_of_another_protocol_is_declined_by_going_on(server: Server, *, length: bool) -> None:
    offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    body = b'{"key": 9, "act": ""}'
    chunked = b"POST %b HTTP/1.1\r\nhost: localhost\r\n%b%btransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    data = ask(9, offer) if length else chunked % (PREDICT, JSON, offer, len(body), body)
    with Wire(server.port) as wire:
        assert wire.ask(data).body == said(9)
        for place in (20, len(data) - 5):
            wire.sock.sendall(data[:place])
            time.sleep(0.05)
            assert wire.ask(data[place:]).body == said(9)
        assert wire.ask(b"GET /models HTTP/1.1\r\nhost: localhost\r\n" + offer + b"\r\n").status == 200
        assert wire.ask(ask(10)).body == said(10)


def test_a_proxy_is_not_what_this_is(server: Server) -> None:
    received = server.raw(b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 405 ")
    assert b"connection: close" in received


def test_a_whole_address_is_taken_for_its_path(server: Server) -> None:
    with Wire(server.port) as wire:
        assert wire.ask(b"GET http://localhost/models HTTP/1.1\r\nhost: localhost\r\n\r\n").status == 200


def test_what_is_not_allowed_says_what_is(server: Server) -> None:
    got = server.ask("DELETE", "/models/oracle")
    assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")
    assert server.get(PREDICT.decode()).headers["allow"] == "POST"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET / HTTP/2.0\r\nhost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_a_head_that_is_no_http_1_is_refused_without_the_parsers_words(server: Server, head: bytes) -> None:
    received = server.raw(head)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"Pause" not in received
