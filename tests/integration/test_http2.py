"""The gRPC port as a peer sees it that keeps to RFC 9113 or does not: raw frames to a real server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import grpc
import pytest
from hpack import Decoder, Encoder
from tritonclient.grpc import service_pb2_grpc

from salver.gateway import http2_frames as h2
from salver.gateway.http2_frames import Cutter, Frame, frame
from tests.integration.oracle import answer
from tests.integration.server import Server
from tests.integration.test_grpc import SERVICE, place, typed, wait_serving
from tests.ports import free_port

LIVE, INFER, STREAM = "ServerLive", "ModelInfer", "ModelStreamInfer"
EMPTY = bytes(5)
Headers = list[tuple[str, str]]


@pytest.fixture(scope="module")
def server(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("http2") / "log"
    with Server(published, "--grpc-port", str(free_port()), log=log) as running:
        wait_serving(running)
        yield running


class Peer:
    """A connection whose every frame is written by hand."""

    def __init__(self, server: Server, *, greets: bool = True, window: int = 1 << 20) -> None:
        host, _, port = place(server).rpartition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=30.0)
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._cutter = Cutter()
        self._came: list[Frame] = []
        if greets:
            self.send(h2.PREFACE, h2.settings({h2.WINDOW: window}))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, *parts: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(b"".join(parts))

    def block(self, method: str, *more: tuple[str, str], without: str = "") -> bytes:
        head = [
            (":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/{method}"), (":authority", "here"),
            ("te", "trailers"), ("content-type", "application/grpc"), *more,
        ]  # fmt: skip
        return bytes(self._encoder.encode([pair for pair in head if pair[0] != without]))

    def ask(self, number: int, method: str = LIVE, data: bytes = EMPTY, *more: tuple[str, str]) -> None:
        block = self.block(method, *more)
        self.send(frame(h2.HEADERS, h2.END_HEADERS, number, block))
        self.send(frame(h2.DATA, h2.END_STREAM, number, data))

    def next(self, *kinds: int) -> Frame:
        """The next frame of these kinds; ConnectionError at the end."""
        while True:
            while self._came:
                found = self._came.pop(0)
                if found[0] in kinds:
                    return found
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the server has closed")
            self._came += self._cutter.feed(data)

    def status(self, number: int) -> str:
        """How a call ends, by its gRPC status or `reset CODE`."""
        while True:
            kind, flags, stream, payload = self.next(h2.HEADERS, h2.RST_STREAM)
            if kind == h2.RST_STREAM and stream == number:
                return f"reset {int.from_bytes(payload, 'big')}"
            headers = dict(self._decoder.decode(payload)) if kind == h2.HEADERS else {}
            if stream == number and flags & h2.END_STREAM:
                return str(headers.get("grpc-status") or headers[":status"])

    def broken(self) -> int:
        """The code of the GOAWAY that ends the connection."""
        payload = self.next(h2.GOAWAY)[3]
        with pytest.raises((ConnectionError, OSError)):
            self.next(-1)
        return int.from_bytes(payload[4:8], "big")


def test_a_call_by_hand_is_answered_with_padding_priority_and_continuations(server: Server) -> None:
    with Peer(server) as peer:
        settings = peer.next(h2.SETTINGS)[3]
        said = dict(h2.read_settings(settings))
        assert (said[h2.STREAMS], said[h2.HEADER_LIST]) == (100, 16 << 10)
        assert peer.next(h2.SETTINGS)[1] == h2.ACK
        peer.ask(1)
        assert peer.status(1) == "0"
        block = peer.block(LIVE)
        padded = b"\2" + b"\0\0\0\1\x10" + block[:3] + b"\0\0"
        peer.send(frame(h2.HEADERS, h2.PADDED | h2.PRIORITIZED, 3, padded))
        peer.send(frame(h2.CONTINUATION, 0, 3, b""), frame(h2.CONTINUATION, h2.END_HEADERS, 3, block[3:]))
        peer.send(frame(h2.DATA, h2.PADDED, 3, b"\4" + EMPTY[:2] + bytes(4)))
        peer.send(frame(h2.DATA, h2.END_STREAM, 3, EMPTY[2:]))
        assert peer.status(3) == "0"
        peer.send(frame(h2.PING, 0, 0, b"12345678"), frame(222, 7, 3, b"what nobody knows"))
        assert peer.next(h2.PING) == (h2.PING, h2.ACK, 0, b"12345678")


def test_http_1_gets_an_answer_that_says_what_is_spoken_here(server: Server) -> None:
    with Peer(server, greets=False) as peer:
        peer.send(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        peer.sock.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: peer.sock.recv(4096), b""))
    assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"HTTP/2" in said


Wrong = Callable[[Peer], list[bytes]]
PING = frame(h2.PING, 0, 0, bytes(8))
BREAKS: dict[str, tuple[int, Wrong]] = {
    "an even stream": (1, lambda peer: [frame(h2.HEADERS, 5, 2, peer.block(LIVE))]),
    "headers on stream 0": (1, lambda peer: [frame(h2.HEADERS, 5, 0, peer.block(LIVE))]),
    "data on an idle stream": (1, lambda _: [frame(h2.DATA, 1, 5, EMPTY)]),
    "data on stream 0": (1, lambda _: [frame(h2.DATA, 0, 0, EMPTY)]),
    "a reset of an idle stream": (1, lambda _: [h2.rst_stream(7, 8)]),
    "a window for an idle stream": (1, lambda _: [h2.window_update(7, 8)]),
    "a window of nothing": (1, lambda _: [h2.window_update(0, 0)]),
    "a window over the most": (3, lambda _: [h2.window_update(0, h2.MOST_WINDOW)]),
    "a window too short": (6, lambda _: [frame(h2.WINDOW_UPDATE, 0, 0, b"123")]),
    "a frame too large": (6, lambda _: [frame(h2.DATA, 0, 1, bytes(h2.LARGEST + 1))]),
    "settings with a stream": (1, lambda _: [frame(h2.SETTINGS, 0, 1, b"")]),
    "settings of half a word": (6, lambda _: [frame(h2.SETTINGS, 0, 0, b"123")]),
    "settings acknowledged with some": (6, lambda _: [frame(h2.SETTINGS, 1, 0, bytes(6))]),
    "an initial window over the most": (3, lambda _: [h2.settings({h2.WINDOW: 1 << 31})]),
    "a ping with a stream": (1, lambda _: [frame(h2.PING, 0, 1, bytes(8))]),
    "a short ping": (6, lambda _: [frame(h2.PING, 0, 0, bytes(7))]),
    "a promise": (1, lambda _: [frame(h2.PUSH_PROMISE, 4, 1, bytes(8))]),
    "a continuation of nothing": (1, lambda _: [frame(h2.CONTINUATION, 4, 1, b"")]),
    "a frame within a block": (1, lambda peer: [frame(h2.HEADERS, 0, 1, peer.block(LIVE)), PING]),
    "padding longer than the frame": (1, lambda _: [frame(h2.HEADERS, h2.PADDED | 4, 1, b"\x20\0")]),
    "a block that swells": (9, lambda _: [
        frame(h2.HEADERS, 5, 1, b"\x40\1x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 2000)]),
    "a block that is no HPACK": (9, lambda _: [frame(h2.HEADERS, 5, 1, b"\xff" * 20)]),
    "headers on an ended stream": (5, lambda peer: [
        frame(h2.HEADERS, 5, 1, peer.block(LIVE)), frame(h2.HEADERS, 5, 1, peer.block(LIVE))]),
    "an older stream": (5, lambda peer: [
        frame(h2.HEADERS, 5, 9, peer.block(LIVE)), frame(h2.HEADERS, 5, 3, peer.block(LIVE))]),
}  # fmt: skip


@pytest.mark.parametrize("wrong", BREAKS)
def test_what_breaks_the_connection_is_said_with_its_code(server: Server, wrong: str) -> None:
    code, frames = BREAKS[wrong]
    with Peer(server) as peer:
        peer.send(*frames(peer))
        assert peer.broken() == code


def test_nothing_may_come_before_the_settings(server: Server) -> None:
    with Peer(server, greets=False) as peer:
        peer.send(h2.PREFACE, PING)
        assert peer.broken() == h2.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("more", "without"),
    [
        ([("x-Upper", "1")], ""),
        ([("connection", "close")], ""),
        ([("te", "gzip")], ""),
        ([(":path", "/again")], ""),
        ([(":status", "200")], ""),
        ([], ":path"),
        ([], ":method"),
        ([("content-length", "77")], ""),
    ],
)
def test_malformed_headers_end_their_stream_alone(server: Server, more: Headers, without: str) -> None:
    with Peer(server) as peer:
        peer.send(frame(h2.HEADERS, h2.END_HEADERS, 1, peer.block(LIVE, *more, without=without)))
        peer.send(frame(h2.DATA, h2.END_STREAM, 1, EMPTY))
        assert peer.status(1) == f"reset {h2.PROTOCOL_ERROR}"
        peer.ask(3)
        assert peer.status(3) == "0"


def test_what_is_wrong_with_one_stream_ends_it_alone(server: Server) -> None:
    with Peer(server) as peer:
        peer.send(frame(h2.HEADERS, h2.END_HEADERS, 1, peer.block(INFER)), h2.window_update(1, 0))
        assert peer.status(1) == f"reset {h2.PROTOCOL_ERROR}"
        peer.send(frame(h2.HEADERS, h2.END_HEADERS, 3, peer.block(INFER)), h2.window_update(3, h2.MOST_WINDOW))
        assert peer.status(3) == f"reset {h2.FLOW_CONTROL_ERROR}"
        peer.send(frame(h2.HEADERS, h2.END_HEADERS, 5, peer.block(INFER)))
        peer.send(*[frame(h2.DATA, 0, 5, bytes(h2.LARGEST)) for _ in range(5)])  # 80 KiB where 64 are allowed
        assert peer.status(5) in (f"reset {h2.FLOW_CONTROL_ERROR}", "3")
        peer.ask(7, LIVE, EMPTY[:3])
        assert peer.status(7) == "3"
        peer.ask(9, "Nothing")
        assert peer.status(9) == "12"
        peer.ask(11, LIVE, EMPTY, ("grpc-encoding", "br"))
        assert peer.status(11) == "12"
        peer.ask(13, LIVE, EMPTY, ("x-large", "x" * (16 << 10)))
        assert peer.status(13) == "8"


def test_what_is_no_grpc_is_said_in_http(server: Server) -> None:
    with Peer(server) as peer:
        encoder = Encoder()
        for number, method, kind, status in ((1, "GET", "application/grpc", "405"), (3, "POST", "text/plain", "415")):
            head = [(":method", method), (":scheme", "http"), (":path", "/"), ("content-type", kind)]
            peer.send(frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, number, encoder.encode(head)))
            assert peer.status(number) == status


def begun(peer: Peer, flags: int, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield frame(h2.HEADERS, flags, 1, peer.block(INFER))
    yield from rest


def calls(peer: Peer, more: Callable[[int], bytes]) -> Iterator[bytes]:
    for number in range(1, 2001, 2):
        yield frame(h2.HEADERS, h2.END_HEADERS, number, peer.block(INFER)) + more(number)


FLOODS: dict[str, Callable[[Peer], Iterator[bytes]]] = {
    "resets": lambda peer: calls(peer, lambda number: h2.rst_stream(number, h2.CANCEL)),
    "errors on purpose": lambda peer: calls(peer, lambda number: h2.window_update(number, 0)),
    "continuations": lambda peer: begun(peer, 0, repeat(frame(h2.CONTINUATION, 0, 1, b"\0\1a\1b" * 100), 500)),
    "empty continuations": lambda peer: begun(peer, 0, repeat(frame(h2.CONTINUATION, 0, 1), 20_000)),
    "pings": lambda _: repeat(PING, 20_000),
    "settings": lambda _: repeat(h2.settings({}), 20_000),
    "empty data": lambda peer: begun(peer, h2.END_HEADERS, repeat(frame(h2.DATA, 0, 1), 20_000)),
    "priorities": lambda _: repeat(frame(h2.PRIORITY, 0, 1, bytes(5)), 20_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_its_connection_and_nobody_elses(server: Server, name: str) -> None:
    with Peer(server) as honest, Peer(server) as peer:
        honest.ask(1)
        assert honest.status(1) == "0"
        peer.send(*FLOODS[name](peer))
        assert peer.broken() == h2.ENHANCE_YOUR_CALM
        honest.ask(3)
        assert honest.status(3) == "0"


def test_a_client_that_opens_no_window_holds_up_only_itself(server: Server) -> None:
    with Peer(server, window=0) as starved, grpc.insecure_channel(place(server)) as channel:
        starved.ask(1)
        starved.next(h2.HEADERS)
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        for key in range(20):
            assert list(infer(typed([key])).outputs[0].contents.int64_contents) == [answer(1, key)]
        starved.send(h2.window_update(1, 3))
        assert len(starved.next(h2.DATA)[3]) == 3
        starved.send(h2.settings({h2.WINDOW: 100}))
        assert starved.status(1) == "0"


def test_streams_over_the_limit_are_refused_so_that_they_may_be_repeated(server: Server) -> None:
    with Peer(server) as peer:
        for number in range(1, 203, 2):
            peer.send(frame(h2.HEADERS, h2.END_HEADERS, number, peer.block(INFER)))
        assert peer.status(201) == f"reset {h2.REFUSED_STREAM}"
        peer.send(h2.rst_stream(1, h2.CANCEL))
        peer.ask(203)
        assert peer.status(203) == "0"


def test_a_smaller_table_is_acknowledged_before_the_next_headers(server: Server) -> None:
    with Peer(server) as peer:
        peer.send(h2.settings({h2.TABLE_SIZE: 0}))
        peer.ask(1)
        assert peer.next(h2.HEADERS)[3][:1] == b"\x20"
        assert peer.status(1) == "0"


def test_a_server_that_leaves_names_the_last_stream_and_answers_up_to_it(start: Callable[..., Server]) -> None:
    server = start("--grpc-port", str(free_port()), "--drain-delay", "0")
    wait_serving(server)
    assert server.process is not None
    slow = typed([7])
    slow.inputs[1].contents.bytes_contents[0] = b"sleep"
    body = slow.SerializeToString()
    with Peer(server) as peer:
        peer.ask(1, INFER, b"\0" + len(body).to_bytes(4, "big") + body)
        peer.send(frame(h2.HEADERS, h2.END_HEADERS, 3, peer.block(INFER)))
        server.process.terminate()
        assert peer.next(h2.GOAWAY)[3][:8] == b"\x7f\xff\xff\xff" + bytes(4)
        peer.ask(5)
        ping = peer.next(h2.PING)
        peer.send(frame(h2.PING, h2.ACK, 0, ping[3]))
        assert peer.next(h2.GOAWAY)[3][:8] == b"\0\0\0\5" + bytes(4)
        peer.send(frame(h2.DATA, h2.END_STREAM, 3, EMPTY))
        peer.ask(7)
        ends = {n: peer.status(n) for n in (3, 1)}
        assert ends == {3: "5", 1: "0"}
        with pytest.raises((ConnectionError, OSError)):
            peer.status(7)
    assert server.process.wait(60) == 0
