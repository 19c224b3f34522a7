"""A load of clients that remember everything, and the checks of what they remember."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.integration.oracle import answer


class Event(NamedTuple):
    """One request: when it was sent and answered, its rows, its status (0: no answer), its release and answers.

    What failed has the code of its error in place of the answers.
    """

    sent: float
    done: float
    keys: tuple[int, ...]
    status: int
    release: str
    answers: tuple[Any, ...]


class Habits(NamedTuple):
    """How clients ask, beyond what they ask.

    `rate` is requests a second of all clients together (0: as fast as answers come), `v2` the share asked in the Open
    Inference Protocol, `hasty` the share that gives 1 ms of time, `rude` the share that leaves without its answer.
    """

    rate: float = 0.0
    v2: float = 0.0
    hasty: float = 0.0
    rude: float = 0.0


PLAIN = Habits()


class Load:
    """Closed-loop clients on keep-alive connections; every request is remembered, or given to `take`."""

    def __init__(
        self,
        port: int,
        *,
        clients: int,
        rows: Callable[[random.Random], int],
        seed: int = 1,
        habits: Habits = PLAIN,
        take: Callable[[Event], None] | None = None,
    ) -> None:
        self.port = port
        self.clients = clients
        self.rows = rows
        self.seed = seed
        self.habits = habits
        self.events: list[Event] = []
        self._take = take or self.events.append
        self._stop = False

    @property
    def answered_rows(self) -> int:
        return sum(len(event.keys) for event in self.events if event.status == 200)

    def stop(self) -> None:
        self._stop = True

    async def run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _client(self, number: int) -> None:
        chance = random.Random(self.seed * 1000 + number)
        while not self._stop:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                now = time.monotonic()
                self._take(Event(now, now, (), 0, "", ()))
                await asyncio.sleep(0.05)
                continue
            try:
                while not self._stop and await self._one(chance, reader, writer):
                    pass
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _one(self, chance: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Ask once; whether the connection can be used again."""
        habits = self.habits
        if habits.rate:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * self.clients / habits.rate)
        keys = tuple(chance.randrange(1 << 30) for _ in range(self.rows(chance)))
        v2, hasty, rude = (share > 0 and chance.random() < share for share in (habits.v2, habits.hasty, habits.rude))
        request = _v2(keys, hasty) if v2 else _native(keys, hasty)
        sent = time.monotonic()
        if rude:
            writer.write(request)
            return False
        try:
            status, headers, answers = await asyncio.wait_for(_exchange(reader, writer, request), 30)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self._take(Event(sent, time.monotonic(), keys, 0, "", ()))
            return False
        values = _values(answers, v2) if status == 200 else (answers.get("code") or answers.get("error"),)
        self._take(Event(sent, time.monotonic(), keys, status, headers.get("x-salver-release", ""), values))
        return headers.get("connection") != "close"


def _native(keys: tuple[int, ...], hasty: bool) -> bytes:
    return _request("/models/oracle/predict", [{"key": key, "act": ""} for key in keys], hasty)


def _v2(keys: tuple[int, ...], hasty: bool) -> bytes:
    count = len(keys)
    inputs = [
        {"name": "key", "datatype": "INT64", "shape": [count], "data": keys},
        {"name": "act", "datatype": "BYTES", "shape": [count], "data": [""] * count},
    ]
    return _request("/v2/models/oracle/infer", {"inputs": inputs}, hasty)


def _request(path: str, value: Any, hasty: bool) -> bytes:
    body = json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\n"
    return head.encode() + (b"x-request-timeout-ms: 1\r\n\r\n" if hasty else b"\r\n") + body


def _values(answers: Any, v2: bool) -> tuple[Any, ...]:
    return tuple(answers["outputs"][0]["data"]) if v2 else tuple(row.get("prediction") for row in answers)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, dict[str, str], Any]:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    content = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, json.loads(content)


def wrong_answers(events: list[Event], salts: dict[str, int]) -> list[Event]:
    """The events whose answers are not what the release they name computes for those very rows."""
    return [
        event
        for event in events
        if event.status == 200
        and (
            event.release not in salts
            or event.answers != tuple(answer(salts[event.release], key) for key in event.keys)
        )
    ]


def failures(events: list[Event]) -> list[Event]:
    """The events without a 200."""
    return [event for event in events if event.status != 200]
