"""Where more is asked than waits, the requests of a key of low priority make room for those of others."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import salver
from tests.integration.held import Held
from tests.integration.server import Server
from tests.integration.test_access import key
from tests.integration.test_overload import ask

QUEUE = 64
"""Requests that wait, one full batch: what more there is has to be refused."""
NORMAL = 40


async def predict(server: Server, token: str, until: str = "") -> tuple[int, Any]:
    body = json.dumps({"x": 1.0, "until": until}).encode()
    head = f"POST /models/held/predict HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n"
    head += f"x-request-timeout-ms: 60000\r\ncontent-length: {len(body)}\r\n\r\n"
    status, _, value = await ask(server.port, head.encode() + body)
    return status, value


async def until(ready: Any) -> None:
    """Wait for a condition that holds sooner or later."""
    async with asyncio.timeout(30):
        while not ready():
            await asyncio.sleep(0.01)


def test_the_requests_of_a_low_priority_are_shed_before_those_of_a_normal_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, keys, gate = tmp_path / "registry", tmp_path / "keys.jsonl", tmp_path / "gate"
    salver.release("held", Held, examples=[{"x": 1.0, "until": ""}, {"x": 2.0, "until": ""}], registry=str(registry))
    normal, low = key(keys, "add", "normal"), key(keys, "add", "low", "--priority", "-10")
    watcher = {"authorization": f"Bearer {key(keys, 'add', 'watcher', '--scope', 'status')}"}

    async def scenario(server: Server) -> tuple[Counter[int], Counter[int]]:
        def opened() -> int:
            status = server.ask("GET", "/status", headers=watcher, port=server.admin_port).json
            return int(status["releases"][0]["open_requests"])

        held = asyncio.create_task(predict(server, normal, str(gate)))
        await until(lambda: opened() == 1)
        lows = [asyncio.create_task(predict(server, low)) for _ in range(3 * QUEUE)]

        def refused() -> int:
            return sum(task.done() for task in lows)

        await until(lambda: refused() and refused() + opened() == len(lows) + 1)
        before = refused()
        normals = [asyncio.create_task(predict(server, normal)) for _ in range(NORMAL)]
        await until(lambda: refused() == before + NORMAL)
        assert not any(task.done() for task in normals)
        gate.touch()
        assert (await held)[0] == 200
        ended = await asyncio.gather(*lows), await asyncio.gather(*normals)
        assert {value["code"] for status, value in ended[0] if status != 200} == {"overloaded"}
        return Counter(status for status, _ in ended[0]), Counter(status for status, _ in ended[1])

    options = ("--workers", "1", "--cache", str(tmp_path / "cache"), "--keys", str(keys))
    monkeypatch.setenv("SALVER_LIMITS_QUEUE_BATCHES", "1")
    with Server(registry, *options, log=tmp_path / "log") as server:
        lows, normals = asyncio.run(scenario(server))
    assert normals == {200: NORMAL}, "none of a normal priority is refused"
    assert set(lows) == {200, 503}
    assert lows[503] >= NORMAL, "as many of the low one make room"
