"""Five times more than a model can do: every request ends once, at once or with its answer, and health answers on."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import salver
from salver.model import Model
from tests.integration.oracle import answer
from tests.integration.server import Server

REQUESTS = 1500
RATE = 500.0
EXAMPLES = [{"key": key} for key in (1, 2, 3)]


class SlowOracle(Model):
    """The oracle at 10 ms a row: 100 rows a second from one worker."""

    def predict(self, rows: Any) -> Any:
        keys = rows["key"].tolist()
        time.sleep(0.01 * len(keys))
        return np.array([answer(1, key) for key in keys], np.int64)


class Ended(NamedTuple):
    """One request that ended."""

    key: int
    status: int
    retry_after: str
    value: Any


async def ask(port: int, request: bytes) -> tuple[int, dict[str, str], Any]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    await writer.wait_closed()
    return int(head[0].split()[1]), headers, json.loads(body)


async def predict(port: int, key: int) -> Ended:
    body = json.dumps({"key": key}).encode()
    head = f"POST /models/slow/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
    status, headers, value = await ask(port, head.encode() + b"x-request-timeout-ms: 2000\r\n\r\n" + body)
    return Ended(key, status, headers.get("retry-after", ""), value)


def status(server: Server) -> list[dict[str, int]]:
    releases: list[dict[str, int]] = server.get("/status", port=server.admin_port).json["releases"]
    return releases


def test_five_times_too_much_is_answered_or_refused_and_health_goes_on(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    salver.release("slow", SlowOracle, examples=EXAMPLES, registry=str(registry))
    health: Counter[int] = Counter()

    async def scenario(server: Server) -> list[Ended]:
        asked = []
        for number in range(REQUESTS):
            asked.append(asyncio.create_task(predict(server.port, number)))
            if number % 50 == 0:
                status, _, _ = await ask(server.port, b"GET /healthz/ready HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
                health[status] += 1
            await asyncio.sleep(1 / RATE)
        return await asyncio.gather(*asked)

    with Server(registry, "--workers", "1", "--cache", str(tmp_path / "cache"), log=tmp_path / "log") as server:
        ended = asyncio.run(scenario(server))
        while sum(release["open_requests"] for release in status(server)):
            time.sleep(0.05)
        again = server.post("/models/slow/predict", {"key": 7})
        metrics = server.get("/metrics", port=server.admin_port).body.decode()
    assert health == {200: REQUESTS // 50}
    assert [one.key for one in ended] == list(range(REQUESTS)), "every request ends once"
    answered = [one for one in ended if one.status == 200]
    refused = [one for one in ended if one.status == 503]
    assert all(one.value == {"prediction": answer(1, one.key)} for one in answered)
    assert len(answered) > 100, "work goes on"
    assert refused, "what is too much is refused"
    assert {one.value["code"] for one in refused} <= {"overloaded", "would-miss-deadline"}
    assert all(1 <= int(one.retry_after) <= 30 for one in refused)
    assert {one.status for one in ended} <= {200, 503, 504}
    assert again.json == {"prediction": answer(1, 7)}
    counted = sum(
        float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("salver_refused") and ("overloaded" in line or "would-miss" in line)
    )
    assert counted == len(refused), "each refusal is counted with its reason"
