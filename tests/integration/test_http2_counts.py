"""The limits of HTTP/2 are counted by their names, as the client library of somebody else runs into them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, ResponseReceived, StreamReset

from tests.integration.server import Server
from tests.integration.test_grpc import place, wait_serving
from tests.integration.watched import comes, sample
from tests.ports import free_port

HEAD = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/inference.GRPCInferenceService/ModelInfer"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


@pytest.fixture(scope="module")
def server(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("counts") / "log"
    with Server(published, "--grpc-port", str(free_port()), log=log) as running:
        wait_serving(running)
        yield running


class Client:
    """A connection of the library `h2`, which has said its preface and knows the server's settings."""

    def __init__(self, server: Server) -> None:
        host, _, port = place(server).rpartition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=30)
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def open(self, *more: tuple[str, str]) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, [*HEAD, *more])
        return number

    def hear(self, kind: type[Event]) -> Event:
        """The next event of this kind."""
        while True:
            data = self.sock.recv(1 << 16)
            assert data, f"the server has closed without {kind.__name__}"
            for event in self.h2.receive_data(data):
                if isinstance(event, kind):
                    return event


def too_many_streams(client: Client) -> None:
    for _ in range(101):  # before the server's settings were heard
        client.open()
    client.flush()
    reset = client.hear(StreamReset)
    assert isinstance(reset, StreamReset)
    assert (reset.stream_id, reset.error_code) == (201, ErrorCodes.REFUSED_STREAM)


def too_many_resets(client: Client) -> None:
    for _ in range(201):
        client.h2.reset_stream(client.open(), ErrorCodes.CANCEL)
    client.flush()
    _is_calmed(client)


def too_many_odd_frames(client: Client) -> None:
    for _ in range(1001):
        client.h2.ping(bytes(8))
    client.flush()
    _is_calmed(client)


def too_large_a_list(client: Client) -> None:
    client.open(*((f"x-{number}", "y" * 100) for number in range(120)))
    client.flush()
    answer = client.hear(ResponseReceived)
    assert isinstance(answer, ResponseReceived)
    assert "('grpc-status', '8')" in str(answer.headers)


def _is_calmed(client: Client) -> None:
    goaway = client.hear(ConnectionTerminated)
    assert isinstance(goaway, ConnectionTerminated)
    assert goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("limit", "run_into"),
    [
        ("streams", too_many_streams),
        ("resets", too_many_resets),
        ("odd-frames", too_many_odd_frames),
        ("headers", too_large_a_list),
    ],
)
def test_a_limit_of_http_2_is_counted_when_it_binds(
    server: Server, limit: str, run_into: Callable[[Client], None]
) -> None:
    before = sample(server, "salver_limit_hits_total", limit=limit)
    with Client(server) as client:
        run_into(client)
        comes(lambda: sample(server, "salver_limit_hits_total", limit=limit) == before + 1)
