"""Load for a server: several connections that send rows one after another and hold each answer against the truth."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

TOLERANCE = 1e-9
PATIENCE = 60.0

Answers = Mapping[str, Sequence[Any]]
"""What a model itself answers: one list per output, with an entry per row."""


class Target(NamedTuple):
    """Where to send, and what is true: the rows, and per release (`credit@1`) what its model answers to each row."""

    host: str
    port: int
    model: str
    rows: Sequence[bytes]
    truth: Mapping[str, Answers]


class Tally:
    """What came of the requests so far."""

    def __init__(self) -> None:
        self.sent = 0
        self.by_release: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.began = 0.0
        self.ended = 0.0

    @property
    def failed(self) -> int:
        """How many requests got no answer, an error or a wrong answer."""
        return sum(self.failures.values())

    @property
    def per_second(self) -> float:
        """Requests per second, over all connections."""
        return self.sent / max(self.ended - self.began, 1e-9)

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the requests was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Load:
    """Sends in the background from `with` on: `connections` at once, each waiting for its answer."""

    def __init__(self, target: Target, *, connections: int = 8) -> None:
        self.tally = Tally()
        self._target = target
        self._connections = connections
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Load:
        self.tally.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self.tally.ended = time.monotonic()

    def wait_for(self, more: int, release: str | None = None) -> bool:
        """Wait until `more` further requests are answered (by `release`); False if that takes too long."""
        wanted = self._answered(release) + more
        ends = time.monotonic() + PATIENCE
        while self._answered(release) < wanted:
            if time.monotonic() > ends:
                return False
            time.sleep(0.005)
        return True

    def _answered(self, release: str | None) -> int:
        return self.tally.by_release[release] if release else self.tally.sent

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(index) for index in range(self._connections)))

    async def _client(self, start: int) -> None:
        connection: _Connection | None = None
        index = start
        while not self._stop.is_set():
            index = (index + self._connections) % len(self._target.rows)
            began = time.perf_counter()
            try:
                async with asyncio.timeout(PATIENCE):
                    connection = connection or await _Connection.open(self._target)
                    problem, release = self._judge(index, *await connection.post(self._target.rows[index]))
            except (OSError, EOFError, ValueError, TimeoutError) as broken:
                problem, release = f"connection: {type(broken).__name__}", ""
                if connection:
                    connection.close()
                connection = None
                await asyncio.sleep(0.01)
            self._count(problem, release, time.perf_counter() - began)
        if connection:
            connection.close()

    def _count(self, problem: str, release: str, seconds: float) -> None:
        tally = self.tally
        tally.sent += 1
        tally.seconds.append(seconds)
        if problem:
            tally.failures[problem] += 1
        else:
            tally.by_release[release] += 1

    def _judge(self, index: int, status: int, release: str, body: bytes) -> tuple[str, str]:
        if status != 200:
            return f"status {status}: {json.loads(body).get('code', '')}", release
        if release not in self._target.truth:
            return f"answered by {release or 'nobody'}", release
        answer = json.loads(body)
        for output, values in self._target.truth[release].items():
            if not equal(answer.get(output), values[index]):
                return f"wrong {output} from {release}", release
        return "", release


def equal(got: Any, expected: Any) -> bool:
    """Whether an answer is the expected one; numbers may differ as much as another batch size makes them."""
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(equal, got, expected))
    if isinstance(expected, float) and isinstance(got, int | float):
        return math.isclose(got, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(got == expected)


class _Connection:
    """One HTTP connection that is kept open."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._head = (
            f"POST /models/{target.model}/predict HTTP/1.1\r\nhost: {target.host}:{target.port}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode()

    @classmethod
    async def open(cls, target: Target) -> _Connection:
        return cls(target, *await asyncio.open_connection(target.host, target.port))

    async def post(self, body: bytes) -> tuple[int, str, bytes]:
        """Send one row; returns status, release and body."""
        self._writer.write(self._head + b"%d\r\n\r\n" % len(body) + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await self._reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers.get("x-salver-release", ""), content

    def close(self) -> None:
        self._writer.close()
