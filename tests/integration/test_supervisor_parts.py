"""Parts of the supervisor on real files and sockets, in this process."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from salver import metrics
from salver.access import file
from salver.access.keys import Key, digest, mint
from salver.access.terms import Grants, Terms
from salver.gateway.control import Control
from salver.gateway.table import Ack, Hello, Table, pack, unpack
from salver.supervisor.gateways import Gateways
from salver.supervisor.grants import GrantsWatch
from salver.supervisor.inquiry import MOST_WAITING, Inquiry
from salver.supervisor.listeners import bind, bind_unix, memory
from salver.supervisor.state import State

PATIENCE = 30.0
TABLE = Table(3, (), {}, (), {})


@contextmanager
def no_more_files() -> Iterator[None]:
    """This process can open no other file for a while."""
    free = os.dup(0)
    os.close(free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def end(task: asyncio.Task[None]) -> None:
    assert not task.done()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(holds: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


def test_a_keys_file_that_could_not_be_read_is_read_again_though_it_has_not_changed(tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    file.change(keys, lambda _: (Key("shop", digest(mint("shop").encode())),))
    published: list[Grants] = []
    said: list[str] = []

    def say(event: str, text: str, **fields: Any) -> None:
        said.append(f"{event} {text} {fields}".partition(" ")[0])

    watch = GrantsWatch(Terms(keys=str(keys)), published.append, say)

    async def follow() -> None:
        with no_more_files():
            task = asyncio.create_task(watch.run(0.01))
            await until(lambda: watch.facts["problems"])
        await until(lambda: published)
        await end(task)

    asyncio.run(follow())
    assert [key.name for key in published[0].keys] == ["shop"]
    assert said == ["access-problem", "access-restored"]


def test_a_keys_file_that_is_written_where_it_lies_is_read_when_it_is_done(tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    names = [f"shop{number}" for number in range(20)]
    file.change(keys, lambda _: tuple(Key(name, digest(mint(name).encode())) for name in names))
    published: list[Grants] = []
    watch = GrantsWatch(Terms(keys=str(keys)), published.append, lambda *_, **__: None)

    async def follow() -> None:
        task = asyncio.create_task(watch.run(0))
        await until(lambda: published)
        lines = keys.read_bytes().splitlines(keepends=True)[:-1]
        with keys.open("wb", buffering=0) as there:
            for line in lines:
                await asyncio.sleep(0)  # as does the watch: it looks between any two writes
                there.write(line)
        await until(lambda: len(published) > 1)
        await end(task)

    asyncio.run(follow())
    assert [[key.name for key in grants.keys] for grants in published] == [names, names[:-1]]


def test_clients_that_leave_while_they_wait_make_room_for_others(tmp_path: Path) -> None:
    inquiry = Inquiry(State(1), (), lambda: None)
    path = tmp_path / "status"

    async def ask(timeout: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(json.dumps({"op": "wait", "model": "churn", "seq": 1, "timeout": timeout}).encode() + b"\n")
        return reader, writer

    async def state() -> str:
        reader, writer = await ask(0.0)
        answer: dict[str, str] = json.loads(await reader.readline())
        writer.close()
        return answer["state"]

    async def talk() -> None:
        task = asyncio.create_task(inquiry.serve(bind_unix(path)))
        waiting = [await ask(600.0) for _ in range(MOST_WAITING)]
        async with asyncio.timeout(PATIENCE):
            while await state() != "busy":
                await asyncio.sleep(0.01)
            for _, writer in waiting:
                writer.close()
            while await state() != "timeout":
                await asyncio.sleep(0.01)
        await end(task)

    asyncio.run(talk())


def test_a_client_may_ask_again_before_it_has_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "status"
    inquiry = Inquiry(State(1), ("fraud",), lambda: None)

    async def talk() -> list[str]:
        task = asyncio.create_task(inquiry.serve(bind_unix(path)))
        reader, writer = await asyncio.open_unix_connection(path)
        for model, timeout in (("fraud", 0.1), ("churn", 1.0), ("fraud", 0.1)):
            writer.write(json.dumps({"op": "wait", "model": model, "seq": 1, "timeout": timeout}).encode() + b"\n")
        answers = [json.loads(await reader.readline())["state"] for _ in range(3)]
        writer.close()
        await end(task)
        return answers

    assert asyncio.run(talk()) == ["timeout", "not-served", "timeout"]


class Bug(Exception):
    """What no code expects."""


class Confused:
    """A follower that fails where a gateway acknowledges."""

    def __init__(self, problem: Exception) -> None:
        self.problem = problem
        self.heard: list[tuple[float, ...]] = []

    def came(self, gateway: int) -> Table | None:
        self.heard.append((gateway,))
        return TABLE

    def went(self, gateway: int) -> None:
        self.heard.append((gateway,))

    def acknowledged(self, gateway: int, version: int, swap_ms: float) -> None:
        self.heard.append((gateway, version, swap_ms))
        raise self.problem


@pytest.mark.parametrize("problem", [ValueError("x"), OSError("y"), Bug("z")])
def test_a_decision_that_fails_on_what_a_gateway_said_ends_the_follower(tmp_path: Path, problem: Exception) -> None:
    path = tmp_path / "control"
    gateways = Gateways(Confused(problem))

    async def talk() -> None:
        task = asyncio.create_task(gateways.serve(bind_unix(path)))
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(pack(Hello(0, 1)))
        assert unpack(await reader.readline()) == TABLE
        writer.write(pack(Ack(0, TABLE.version, 0.1)))
        try:
            async with asyncio.timeout(PATIENCE):
                await task
        finally:
            writer.close()

    with pytest.raises(type(problem), match=str(problem)):
        asyncio.run(talk())


def test_a_gateway_that_sends_nonsense_is_let_go_and_the_next_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "control"
    gateways = Gateways(Confused(Bug()))

    async def talk() -> None:
        task = asyncio.create_task(gateways.serve(bind_unix(path)))
        for nonsense in (b"no json\n", b'{"type": "hello"}\n', b"x" * (1 << 17)):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(nonsense)
            assert await reader.read() == b""
            writer.close()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(pack(Hello(0, 1)))
        assert unpack(await reader.readline()) == TABLE
        writer.close()
        await end(task)

    asyncio.run(talk())


@pytest.mark.parametrize("problem", [ValueError("x"), OSError("y"), Bug("z")])
def test_a_table_that_can_not_be_applied_ends_the_control_of_a_gateway(tmp_path: Path, problem: Exception) -> None:
    def fail(_: Table) -> None:
        raise problem

    async def talk() -> None:
        async with await asyncio.start_unix_server(publish, tmp_path / "control"), asyncio.timeout(PATIENCE):
            await Control(str(tmp_path / "control"), Hello(0, 1), fail).run()

    with pytest.raises(type(problem), match=str(problem)):
        uvloop.run(talk())


def test_a_gateway_whose_table_can_not_be_applied_ends_and_its_log_says_why(tmp_path: Path) -> None:
    wrong = Table(1, (), {"churn": 7}, ("churn",), {})  # what is live is not loaded
    block = memory("test", metrics.BLOCK_BYTES)
    ports = [bind("127.0.0.1", 0, what="a port", option="--port") for _ in range(2)]
    control = bind_unix(tmp_path / "control")
    control.settimeout(PATIENCE)
    numbers = [*(port.fileno() for port in ports), block]
    facts = zip(("--listen-fd", "--admin-fd", "--metrics-fds"), map(str, numbers), strict=True)
    command = [sys.executable, "-P", "-m", "salver.gateway", "--index", "0", "--control", str(tmp_path / "control")]
    with (tmp_path / "log").open("wb") as log:
        gateway = subprocess.Popen([*command, *(part for fact in facts for part in fact)], pass_fds=numbers, stderr=log)
    try:
        link, _ = control.accept()
        with link, link.makefile("rb") as lines:
            assert unpack(lines.readline()) == Hello(0, gateway.pid)
            link.sendall(pack(wrong))
            assert gateway.wait(PATIENCE) == 1
    finally:
        gateway.kill()
        gateway.wait()
        os.close(block)
        for listener in (*ports, control):
            listener.close()
    said = (tmp_path / "log").read_text()
    assert "the gateway can't follow its table" in said
    assert "KeyError: ('churn', 7)" in said


def test_a_follower_that_goes_at_any_point_is_found_again(tmp_path: Path) -> None:
    """It sends nothing, nonsense, half a table, or a table that is acknowledged when it has gone."""
    line = pack(TABLE)
    goodbyes = [b"", b"no json\n", line[:-9], line]
    taken: list[int] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert unpack(await reader.readline()) == Hello(0, 1)
        writer.write(goodbyes.pop(0) if goodbyes else line)
        if goodbyes:
            writer.transport.abort() if len(goodbyes) % 2 else writer.close()
            return
        assert unpack(await reader.readline()) == Ack(0, TABLE.version, 0.1)
        acknowledged.set()
        writer.close()

    async def talk() -> None:
        async with await asyncio.start_unix_server(hear, tmp_path / "control"):
            task = asyncio.create_task(control.run())
            async with asyncio.timeout(PATIENCE):
                await acknowledged.wait()
            await end(task)

    def take(table: Table) -> None:
        taken.append(table.version)
        control.acknowledge(table.version, 0.1)

    acknowledged = asyncio.Event()
    control = Control(str(tmp_path / "control"), Hello(0, 1), take)
    uvloop.run(talk())
    assert taken


async def publish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(pack(TABLE))
    await reader.read()
    writer.close()
