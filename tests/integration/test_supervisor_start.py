"""What a server needs before it can start, and what it says where that is missing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from salver.errors import SalverError
from salver.supervisor import runtime
from salver.supervisor.listeners import bind
from tests.integration.keeping import PATIENCE, Keeping
from tests.integration.server import Server
from tests.ports import free_port


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    keeping = Keeping(tmp_path)
    yield keeping
    keeping.end()


@pytest.mark.parametrize("field", ["port", "admin_port"])
def test_a_port_in_use_is_said_with_the_option_that_changes_it(tmp_path: Path, field: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        keeping = Keeping(tmp_path, **{field: other.getsockname()[1]})
        try:
            assert keeping.process.wait(PATIENCE) == 2
            text = keeping.errors.read_text()
            assert f"port {other.getsockname()[1]} on 127.0.0.1 is in use" in text
            assert "--" + field.replace("_", "-") in text
            assert not [folder for folder in keeping.root.iterdir() if f"{keeping.process.pid}-" in folder.name]
        finally:
            keeping.end()


def test_a_grpc_port_that_another_server_has_and_does_not_open_yet_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    port = free_port()
    first = Keeping(tmp_path, grpc_port=port)
    try:
        first.follow()
        second = Keeping(tmp_path / "other", grpc_port=port)
        try:
            assert second.process.wait(PATIENCE) == 2
            assert f"the gRPC port: port {port} on 127.0.0.1 is in use" in second.errors.read_text()
            assert "--grpc-port" in second.errors.read_text()
        finally:
            second.end()
    finally:
        first.end()


def test_a_port_beside_which_connections_linger_is_free_and_then_nobody_elses() -> None:
    def take() -> socket.socket:
        return bind("127.0.0.1", port, what="the gRPC port", option="--grpc-port", listen=False)

    port = free_port()
    with take() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a gateway does when it opens the port
        listener.listen()
        listener.setblocking(True)
        with socket.create_connection(("127.0.0.1", port)) as client:
            listener.accept()[0].close()  # who closes first keeps the port for a minute
            assert client.recv(1) == b""
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))
    with take():
        with pytest.raises(SalverError) as caught:
            take()
        assert caught.value.code == "port-in-use"


def test_a_server_begins_on_a_grpc_port_beside_which_connections_of_the_last_one_linger(
    published: Path, tmp_path: Path
) -> None:
    options = ("--grpc-port", str(free_port()), "--workers", "1")
    for _ in range(2):
        with Server(published, *options, log=tmp_path / "log") as server:
            client = socket.create_connection(("127.0.0.1", int(options[1])), PATIENCE)
            assert server.stop() == 0
        with client:
            while client.recv(1 << 10):
                pass


def test_a_host_that_is_not_ours_is_said(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, host="no.such.host.invalid")
    try:
        assert keeping.process.wait(PATIENCE) == 4
        assert "no.such.host.invalid" in keeping.errors.read_text()
    finally:
        keeping.end()


def test_only_this_user_can_reach_the_sockets(keeping: Keeping) -> None:
    keeping.follow()
    [(folder, card)] = runtime.found(str(keeping.root))
    assert card["pid"] == keeping.process.pid
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in (runtime.CONTROL, runtime.STATUS):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


def test_a_folder_for_sockets_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "s"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(SalverError, match="only you can write to") as caught:
        runtime.create(str(shared))
    assert caught.value.code == "start-failed"


def test_a_folder_whose_path_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SalverError, match="too long a path") as caught:
        runtime.create(str(tmp_path / ("x" * 100)))
    assert caught.value.code == "start-failed"
