"""The end of a server: whoever got a connection gets an answer, everybody else is refused at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

import salver
from salver import metrics
from salver.gateway.connection import Connection
from salver.gateway.front import Front
from salver.gateway.pages import Pages
from salver.gateway.paths import PUBLIC
from salver.gateway.serving import Serving
from salver.gateway.sweep import HASTE, Sweep
from salver.limits import Limits
from salver.supervisor.listeners import SETTLE, Closing, bind
from tests.integration.conftest import EXAMPLES
from tests.integration.oracle import Oracle
from tests.integration.server import Server
from tests.ports import free_port

CLIENTS = 12
PATIENCE = 30.0
STALL = 2.0
REQUEST = b"GET /healthz/live HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Knocking:
    """Clients that open a new connection for each request, until they are refused."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.outcomes: Counter[str] = Counter()

    async def run(self, stop: Callable[[], None]) -> None:
        """Ask for a while, then `stop` the server, and ask on until nobody is there."""
        clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        while self.outcomes["answered"] < 10 * CLIENTS:
            await asyncio.sleep(0.01)
        stop()
        await asyncio.wait_for(asyncio.gather(*clients), PATIENCE)

    async def _client(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except ConnectionRefusedError:
                return
            try:
                writer.write(REQUEST)
                head = await reader.readuntil(b"\r\n\r\n")
                self.outcomes["answered" if head.startswith(b"HTTP/1.1 200 ") else "failed"] += 1
            except (OSError, asyncio.IncompleteReadError) as problem:
                self.outcomes[type(problem).__name__] += 1
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_ends_answers_every_connection_that_it_did_not_refuse(
    start: Callable[..., Server], signum: signal.Signals
) -> None:
    server = start("--gateways", "2", "--workers", "1", "--drain-delay", "0.2")
    process = server.process
    assert process is not None
    knocking = Knocking(server.port)
    asyncio.run(knocking.run(lambda: process.send_signal(signum)))
    assert process.wait(PATIENCE) == 0
    assert set(knocking.outcomes) == {"answered"}, knocking.outcomes


@pytest.mark.parametrize("stalled", ["gateway", "keeper"])
def test_a_process_that_gets_no_time_while_the_server_ends_loses_no_connection(
    start: Callable[..., Server], stalled: str
) -> None:
    server = start("--gateways", "2", "--workers", "1", "--drain-delay", "0.3")
    process = server.process
    assert process is not None
    numbers = [process.pid] if stalled == "keeper" else server.gateways()

    def stop() -> None:
        loop = asyncio.get_running_loop()
        process.send_signal(signal.SIGTERM)
        for after, signum in ((0.15, signal.SIGSTOP), (STALL, signal.SIGCONT)):
            loop.call_later(after, lambda signum=signum: [os.kill(number, signum) for number in numbers])

    knocking = Knocking(server.port)
    asyncio.run(knocking.run(stop))
    assert process.wait(PATIENCE) == 0
    assert set(knocking.outcomes) == {"answered"}, knocking.outcomes


def test_what_is_idle_ends_first_and_a_connection_that_has_just_begun_is_still_answered(
    start: Callable[..., Server],
) -> None:
    server = start("--workers", "1", "--drain-delay", "0")
    process = server.process
    assert process is not None
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(connected(server.port))
        idle.sendall(REQUEST)
        assert idle.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        last = stack.enter_context(connected(server.port))
        process.send_signal(signal.SIGTERM)
        assert idle.recv(1 << 16) == b""
        last.sendall(REQUEST)
        answer = last.recv(1 << 16).lower()
        assert answer.startswith(b"http/1.1 200 ")
        assert b"connection: close\r\n" in answer
        assert last.recv(1 << 16) == b""
    assert process.wait(PATIENCE) == 0


def test_an_idle_connection_is_not_closed_once_its_next_request_has_come() -> None:
    memory = os.memfd_create("front")
    os.ftruncate(memory, metrics.BLOCK_BYTES)
    block = metrics.Block(memory)
    os.close(memory)

    async def ask() -> bytes:
        loop = asyncio.get_running_loop()
        serving = Serving(loop, Limits(), block, lambda *_: None)
        sweep = Sweep(time.monotonic_ns)
        front = Front(serving, Limits(), block, PUBLIC, Pages(serving, [block], "").answer, sweep)
        server = await loop.create_server(lambda: Connection(front), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(REQUEST)
            await reader.readuntil(b"\r\n\r\n")
            front.closing = front.ending = True
            writer.write(REQUEST)  # is there at once, and not read before this task waits
            sweep.round = HASTE
            sweep.step()
            answer = await reader.read()
            writer.close()
            return answer

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert b"\r\nconnection: close\r\n" in runner.run(ask())


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def port() -> Iterator[socket.socket]:
    with contextlib.closing(bind("127.0.0.1", 0, what="a port", option="")) as bound:
        yield bound


def test_a_closing_port_takes_what_has_begun_and_nothing_else(port: socket.socket) -> None:
    address = port.getsockname()
    closing = Closing([port])
    closing.begin(20.0)
    closing.begin(10.0)
    closing.begin(30.0)
    assert closing.due == 10.0
    with contextlib.ExitStack() as stack:
        early = stack.enter_context(socket.create_connection(address, PATIENCE))
        early.sendall(b"early")
        closing.go_on(9.9)
        closing.go_on(10.0)
        late = stack.enter_context(socket.socket())
        late.setblocking(False)
        assert late.connect_ex(address) != 0
        taken, _ = port.accept()
        stack.enter_context(taken)
        assert taken.recv(100) == b"early"
        assert closing.due == 10.0 + SETTLE
        closing.go_on(10.0 + SETTLE)
        assert closing.due is None
        late.settimeout(PATIENCE)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(address, PATIENCE)
        taken.sendall(b"still")
        assert early.recv(100) == b"still"


def test_grpc_is_refused_until_a_model_answers_and_a_ready_server_takes_it(tmp_path: Path) -> None:
    registry, port = tmp_path / "registry", free_port()
    salver.release("oracle", Oracle, examples=EXAMPLES, registry=str(registry))
    routes = registry / "models" / "oracle" / "routes"
    routes.rename(tmp_path / "routes")
    server = Server(registry, "--workers", "1", "--grpc-port", str(port), log=tmp_path / "log")
    server.start()
    try:
        ends = time.monotonic() + PATIENCE
        while not is_open(server.port) or server.get("/healthz/live").status != 200:
            assert time.monotonic() < ends
        assert server.get("/healthz/ready").status == 503
        assert not is_open(port)
        (tmp_path / "routes").rename(routes)
        server.wait_ready()
        assert is_open(port)
    finally:
        server.stop()
