"""What a terminal or a service manager sends to every process ends a server as if only its keeper had got it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.history import Load, failures
from tests.integration.server import Server

Start = Callable[..., Server]


def everyone(server: Server, number: int) -> None:
    """Signal each process of the server, as systemd does to a control group."""
    assert server.process is not None
    for pid in (*server.descendants(), server.process.pid):
        os.kill(pid, number)


def group(server: Server, number: int) -> None:
    """Signal the process group of the server, as a terminal or a container's init does."""
    assert server.process is not None
    os.killpg(server.process.pid, number)


def keeper(server: Server, number: int) -> None:
    """Signal the first process alone, as Kubernetes does."""
    assert server.process is not None
    server.process.send_signal(number)


@pytest.mark.parametrize("send", [keeper, group, everyone])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_fails_no_request_and_is_no_death_whoever_gets_the_signal(
    start: Start, tmp_path: Path, send: Callable[[Server, int], None], number: int
) -> None:
    server = start("--drain-delay", "1")
    process = server.process
    assert process is not None

    async def scenario() -> tuple[Load, int]:
        load = Load(server.port, clients=8, rows=lambda _: 1)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(0.5)
        send(server, number)
        ending = asyncio.create_task(asyncio.to_thread(process.wait, 30))
        if number == signal.SIGTERM:
            await asyncio.sleep(0.5)
        load.stop()
        await running
        return load, await ending

    load, code = asyncio.run(scenario())
    assert code == 0
    refused = [event for event in failures(load.events) if number == signal.SIGTERM or event.status != 0]
    assert not refused
    assert load.answered_rows > 0
    said = (tmp_path / "log0").read_text()
    assert "died" not in said
    assert "Traceback" not in said
