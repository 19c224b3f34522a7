"""Callers who ask at random moments whether or not they were answered, over as many connections as that takes."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from tests.campaigns.checks import Quantiles, Verdict
from tests.integration.oracle import answer
from tests.integration.server import Server

LONGEST = 15.0
CLIENTS = 192
AT_ONCE = struct.pack("ii", 1, 0)


class Ask(NamedTuple):
    """A request: its row, who asks (a token), for how many ms (0: the default), and when it leaves, if it does.

    `leaves` is in seconds after it was sent; negative ones leave with the request half written. Who leaves rudely
    resets the connection, others close it.
    """

    key: int
    token: str = ""
    timeout_ms: int = 0
    leaves: float | None = None
    rude: bool = False

    def data(self) -> bytes:
        body = b'{"key": %d, "act": ""}' % self.key
        head = b"POST /models/oracle/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        if self.token:
            head += b"authorization: Bearer %b\r\n" % self.token.encode()
        if self.timeout_ms:
            head += b"x-request-timeout-ms: %d\r\n" % self.timeout_ms
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


class Ended(NamedTuple):
    """How a request ended: in monotonic seconds when it was due, sent and done; status 0 without an answer."""

    ask: Ask
    due: float
    sent: float
    done: float
    status: int
    right: bool
    retry_after: str


Take = Callable[[Ended], None]


class Line(asyncio.Protocol):
    """One connection, with one request at a time; goes back to the crowd's free ones after each answer."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._transport = cast("asyncio.Transport", None)
        self._received = b""
        self._asked: tuple[Ask, float, float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, ask: Ask, due: float) -> None:
        data = ask.data()
        self._asked = ask, due, time.monotonic()
        if ask.leaves is None:
            self._transport.write(data)
        elif ask.leaves < 0:
            self._transport.write(data[: len(data) // 2])
            self.leave()
        else:
            self._transport.write(data)
            asyncio.get_running_loop().call_later(ask.leaves, self.leave)

    def leave(self) -> None:
        """Go away without the answer, unless it has come."""
        if self._asked is not None:
            if self._asked[0].rude:
                sock: socket.socket = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            self._end(0, False, "")
            self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) < int(headers[b"content-length"]):
            return
        self._received = b""
        if self._asked is None:
            return
        status, key = int(head[9:12]), self._asked[0].key
        right = status != 200 or json.loads(body) == {"prediction": answer(1, key)}
        leaves = self._asked[0].leaves is not None
        self._end(status, right, headers.get(b"retry-after", b"").decode())
        if headers.get(b"connection") == b"close" or leaves:
            self._transport.close()
        else:
            self._crowd.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self in self._crowd.free:
            self._crowd.free.remove(self)
        if self._asked is not None:
            self._end(0, False, "")

    def _end(self, status: int, right: bool, retry_after: str) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            ask, due, sent = asked
            self._crowd.open -= 1
            self._crowd.take(Ended(ask, due, sent, time.monotonic(), status, right, retry_after))


class Crowd:
    """All who ask. `take` hears of every request that ends."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self.free: list[Line] = []
        self.open = 0
        self.take: Take = Tally().take
        self._port = port
        self._chance = chance
        self._keys = iter(range(1 << 40))
        self._connecting: set[asyncio.Task[None]] = set()

    async def prepare(self, lines: int) -> None:
        """Open so many connections."""
        for _ in range(lines):
            self.free.append(await self._connect())

    async def offer(self, rate: float, seconds: float, take: Take, make: Callable[[int], Ask] = Ask) -> None:
        """Ask so many times a second, whatever comes back; `make` makes a request with a key of its own."""
        self.take = take
        due = time.monotonic()
        ends = due + seconds
        while due < ends:
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            else:
                await asyncio.sleep(0)
            while due <= time.monotonic() and due < ends:
                self._send(make(next(self._keys)), due)
                due += self._chance.expovariate(rate)

    async def capacity(self, seconds: float, tokens: tuple[str, ...] = ("",), clients: int = CLIENTS) -> float:
        """Right answers a second to clients who ask again at once."""
        done = 0
        ends = time.monotonic() + seconds

        def again(ended: Ended) -> None:
            nonlocal done
            done += ended.status == 200 and ended.right
            if time.monotonic() < ends:
                self._send(ended.ask._replace(key=next(self._keys)), time.monotonic())

        self.take = again
        began = time.monotonic()
        for number in range(clients):
            self._send(Ask(next(self._keys), tokens[number % len(tokens)]), began)
        await asyncio.sleep(seconds)
        counted, took = done, time.monotonic() - began
        await self.quiet()
        return counted / took

    async def quiet(self) -> None:
        """Wait until every request has ended."""
        ends = time.monotonic() + LONGEST
        while self.open and time.monotonic() < ends:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        for line in list(self.free):
            line.close()

    def _send(self, ask: Ask, due: float) -> None:
        self.open += 1
        if self.free:
            self.free.pop().ask(ask, due)
        else:
            task = asyncio.get_running_loop().create_task(self._send_anew(ask, due))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _send_anew(self, ask: Ask, due: float) -> None:
        try:
            line = await self._connect()
        except OSError:
            now = time.monotonic()
            self.open -= 1
            self.take(Ended(ask, due, now, now, 0, False, ""))
        else:
            line.ask(ask, due)

    async def _connect(self) -> Line:
        _, line = await asyncio.get_running_loop().create_connection(lambda: Line(self), "127.0.0.1", self._port)
        return line


class Tally:
    """What came back to one kind of caller, in seconds."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = Quantiles()
        self.refused = Quantiles()
        self.late = Quantiles()
        self.expired = 0
        self.lost = 0
        self.faults = 0
        self.last_refusal = 0.0

    def take(self, ended: Ended) -> None:
        self.asked += 1
        self.late.add(max(0.0, ended.sent - ended.due))
        took = ended.done - ended.sent
        if ended.status == 200:
            self.answered.add(took)
            self.faults += not ended.right
        elif ended.status == 503:
            self.refused.add(took)
            self.last_refusal = max(self.last_refusal, ended.sent)
            self.faults += not ended.retry_after.isdigit()
        elif ended.status == 504:
            self.expired += 1
        elif ended.ask.leaves is None:
            self.lost += 1

    def says(self, what: str, verdict: Verdict) -> None:
        """What was asked and what came back."""
        verdict.says(
            what,
            f"{self.asked:,} asked, {self.answered.count:,} answered, {self.refused.count:,} refused,"
            f" {self.expired:,} expired",
        )

    def must(self, what: str, verdict: Verdict) -> None:
        """Nothing is wrong or lost."""
        verdict.must(f"wrong or lost, {what}", str(self.faults + self.lost), "0", not self.faults + self.lost)


def p99(quantiles: Quantiles) -> float:
    return quantiles.at(0.99)


def open_requests(server: Server) -> int:
    """Requests that the server has open."""
    releases = server.get("/status", port=server.admin_port).json["releases"]
    return sum(int(release["open_requests"]) for release in releases)
