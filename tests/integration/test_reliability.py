"""What may break while requests run, and what callers see of it: nothing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from salver.registry import Registry
from salver.rollout.move import Intent, promote
from salver.storage.folder import FolderStorage
from tests.integration.history import Load, failures, wrong_answers
from tests.integration.oracle import answer
from tests.integration.server import Server

PREDICT = "/models/oracle/predict"
SALTS = {"oracle@1": 1, "oracle@2": 2}
Start = Callable[..., Server]


def proven_workers(server: Server) -> int:
    releases = server.get("/status", port=server.admin_port).json["releases"]
    return sum(release["connected"] for release in releases)


def mixed(chance: random.Random) -> int:
    return chance.choice((1, 1, 8, 32, 64))


def test_killing_workers_loses_no_request_and_changes_no_answer(start: Start) -> None:
    server = start()
    chance = random.Random(5)
    kills = 0

    async def scenario() -> Load:
        nonlocal kills
        load = Load(server.port, clients=16, rows=mixed)
        running = asyncio.create_task(load.run())
        ends = time.monotonic() + 150
        while (kills < 20 or load.answered_rows < 60_000) and time.monotonic() < ends:
            await asyncio.sleep(1.2)
            workers = server.workers("oracle@1")
            if kills < 20 and await asyncio.to_thread(proven_workers, server) == 2:
                os.kill(chance.choice(workers), signal.SIGKILL)
                kills += 1
        load.stop()
        await running
        return load

    load = asyncio.run(scenario())
    assert kills == 20
    assert load.answered_rows >= 60_000
    assert not failures(load.events)
    assert not wrong_answers(load.events, SALTS)


def test_switching_releases_under_load_fails_nothing_and_every_answer_is_of_a_routed_release(
    start: Start, registry: Path
) -> None:
    server = start()
    store = Registry(FolderStorage(registry))

    async def scenario() -> tuple[Load, list[tuple[float, float, str]]]:
        load = Load(server.port, clients=8, rows=lambda chance: chance.choice((1, 1, 4)))
        running = asyncio.create_task(load.run())
        switches = []
        target = 1
        for _ in range(20):
            target = 3 - target
            began = time.monotonic()
            promote(store, "oracle", target, Intent("test", "2026-01-01T00:00:00Z"))
            while (await asyncio.to_thread(server.get, "/models")).json["models"][0]["live"] != f"oracle@{target}":
                await asyncio.sleep(0.01)
            switches.append((began, time.monotonic(), f"oracle@{target}"))
            await asyncio.sleep(0.1)
        load.stop()
        await running
        return load, switches

    load, switches = asyncio.run(scenario())
    assert not failures(load.events)
    assert not wrong_answers(load.events, SALTS)
    assert {event.release for event in load.events} == set(SALTS)
    for event in load.events:
        allowed = {"oracle@1"} if event.sent < switches[0][1] else set()
        for number, (began, done, release) in enumerate(switches):
            until = switches[number + 1][1] if number + 1 < len(switches) else float("inf")
            if event.done >= began and event.sent <= until:
                allowed.add(release)
            del done
        assert event.release in allowed


def test_a_raising_row_fails_alone_in_a_batch_of_64(server: Server) -> None:
    chance = random.Random(3)
    for poisoned in (1, 2, 8):
        for _ in range(20):
            bad = set(chance.sample(range(64), poisoned))
            rows = [{"key": key, "act": "raise" if key in bad else ""} for key in range(64)]
            got = server.post(PREDICT, rows)
            assert got.status == 200
            for key, row in enumerate(got.json):
                if key in bad:
                    assert row["error"]["code"] == "model-error"
                else:
                    assert row == {"prediction": answer(1, key)}


def test_a_row_that_kills_its_worker_is_refused_after_two_deaths_and_hurts_nobody_else(start: Start) -> None:
    server = start()
    poison = {"key": 13, "act": "exit"}

    async def scenario() -> tuple[int, str, Load]:
        load = Load(server.port, clients=8, rows=lambda _: 1)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(0.5)
        before = set(server.workers("oracle@1"))
        got = await asyncio.to_thread(server.post, PREDICT, poison)
        code = got.json["code"]
        await asyncio.sleep(0.2)
        after = set(server.workers("oracle@1"))
        load.stop()
        await running
        return len(before - after), code, load

    deaths, code, load = asyncio.run(scenario())
    assert code == "poison-request"
    assert deaths <= 2
    assert not failures(load.events)
    assert not wrong_answers(load.events, SALTS)
    workers = set(server.workers("oracle@1"))
    began = time.monotonic()
    assert server.post(PREDICT, poison).json["code"] == "poison-request"
    assert time.monotonic() - began < 1, "a refused body reached a worker"
    assert workers <= set(server.workers("oracle@1"))


def test_too_much_at_once_is_refused_at_once_with_when_to_come_back(start: Start) -> None:
    server = start("--workers", "1")

    async def one() -> tuple[int, bytes]:
        body = b'{"key": 1, "act": "sleep"}'
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\nx-request-timeout-ms: 3000\r\ncontent-length: %d\r\n\r\n%b"
            % (PREDICT.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), head

    async def scenario() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(one() for _ in range(400)))

    answers = asyncio.run(scenario())
    refused = [head for status, head in answers if status == 503]
    assert refused
    assert all(b"retry-after: " in head for head in refused)
    assert {status for status, _ in answers} <= {200, 503, 504}
    assert server.post(PREDICT, {"key": 7, "act": ""}).status == 200


def test_no_process_outlives_a_keeper_that_is_killed(start: Start) -> None:
    server = start()
    children = [*server.workers(), *server.gateways()]
    assert len(children) == 3
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    ends = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
