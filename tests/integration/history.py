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
    """One request: when it was sent and answered, its rows, its status (0: no answer), its release and answers."""

    sent: float
    done: float
    keys: tuple[int, ...]
    status: int
    release: str
    answers: tuple[Any, ...]


class Load:
    """Closed-loop clients on keep-alive connections; every request is remembered."""

    def __init__(self, port: int, *, clients: int, rows: Callable[[random.Random], int], seed: int = 1) -> None:
        self.port = port
        self.clients = clients
        self.rows = rows
        self.seed = seed
        self.events: list[Event] = []
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
                self.events.append(Event(now, now, (), 0, "", ()))
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
        keys = tuple(chance.randrange(1 << 30) for _ in range(self.rows(chance)))
        body = json.dumps([{"key": key, "act": ""} for key in keys]).encode()
        sent = time.monotonic()
        try:
            status, headers, answers = await asyncio.wait_for(_exchange(reader, writer, body), 30)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.events.append(Event(sent, time.monotonic(), keys, 0, "", ()))
            return False
        values = tuple(row.get("prediction") for row in answers) if status == 200 else ()
        self.events.append(Event(sent, time.monotonic(), keys, status, headers.get("x-salver-release", ""), values))
        return headers.get("connection") != "close"


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
) -> tuple[int, dict[str, str], Any]:
    writer.write(
        b"POST /models/oracle/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body) + body
    )
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
