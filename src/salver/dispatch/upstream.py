"""One connection to one worker: frames out, messages in, and a new try whenever it breaks."""

from __future__ import annotations

import asyncio
import time
from itertools import groupby
from operator import attrgetter
from typing import Protocol, cast

from salver.dispatch.batching import Slot
from salver.dispatch.call import Call
from salver.errors import SalverError
from salver.frames import Batch, Cancel, Hello, Message, More, Reader, pack

RETRY_FIRST = 0.02
RETRY_MOST = 1.0


class Listener(Protocol):
    """Who hears of an upstream: the dispatcher of its release."""

    def connected(self, upstream: Upstream, hello: Hello) -> None:
        """The worker is proven and can be sent to."""
        ...

    def received(self, upstream: Upstream, messages: list[Message]) -> None:
        """The worker said something."""
        ...

    def lost(self, upstream: Upstream) -> None:
        """The worker is gone."""
        ...


class Upstream(asyncio.Protocol):
    """Keeps a connection to the worker listening at `address` until closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, address: str, listener: Listener) -> None:
        self.name = name
        self.address = address
        self.slot: Slot | None = None
        self.generation = 0
        self._loop = loop
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._reader = Reader()
        self._closed = False
        self._delay = RETRY_FIRST
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to connect, and keep trying."""
        if not self._closed and self._task is None:
            self._task = self._loop.create_task(self._connect())

    def close(self) -> None:
        """Stop, and close the connection."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.close()

    def retire(self) -> None:
        """Keep the connection that there is, for the answers that are due, and make no other."""
        self._closed = True

    def send(self, calls: list[Call], *, alone: bool) -> None:
        """Send requests: one frame for each form among them, in one write."""
        form, now = calls[0].form, time.monotonic_ns()
        calls[0].sent = calls[-1].sent = now
        for call in calls:
            if call.form is not form or call.trace:
                data: bytes | bytearray = self._mixed(calls, now, alone=alone)
                break
        else:
            data = self._frame(calls, [], alone=alone)
        cast("asyncio.Transport", self._transport).write(data)

    def _mixed(self, calls: list[Call], now: int, *, alone: bool) -> bytes:
        """The frames of requests of several forms, or that somebody follows."""
        frames = []
        for _, group in groupby(calls, key=attrgetter("form")):
            alike = list(group)
            for call in alike:
                call.sent = now
            traces = [call.trace for call in alike]
            frames.append(self._frame(alike, traces if any(traces) else [], alone=alone))
        return b"".join(frames)

    def _frame(self, calls: list[Call], traces: list[str], *, alone: bool) -> bytearray:
        return pack(
            Batch(
                self.generation,
                calls[0].form,
                [call.id for call in calls],
                [call.deadline for call in calls],
                [call.body for call in calls],
                alone,
                traces,
            )
        )

    def more(self, number: int) -> None:
        """Tell the worker that one more piece of this answer can be taken."""
        if self._transport is not None:
            self._transport.write(pack(More(self.generation, number)))

    def cancel(self, numbers: list[int]) -> None:
        """Tell the worker that nobody waits for these any more."""
        if self._transport is not None:
            self._transport.write(pack(Cancel(self.generation, numbers)))

    async def _connect(self) -> None:
        while not self._closed:
            try:
                await self._loop.create_unix_connection(lambda: self, self.address)
            except OSError:
                await asyncio.sleep(self._delay)
                self._delay = min(self._delay * 2, RETRY_MOST)
            else:
                self._delay = RETRY_FIRST
                break
        self._task = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a new generation: nothing of an older connection counts any more."""
        self._transport = cast("asyncio.Transport", transport)
        self._reader = Reader()
        self.generation += 1

    def data_received(self, data: bytes) -> None:
        """Pass on what the worker said; a worker that speaks nonsense is cut off."""
        try:
            messages = self._reader.feed(data)
        except SalverError:
            cast("asyncio.Transport", self._transport).abort()
            return
        if self.slot is None and messages and isinstance(hello := messages[0], Hello):
            del messages[0]
            self._listener.connected(self, hello)
        if messages:
            self._listener.received(self, messages)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the dispatcher, then try again."""
        del exc
        self._transport = None
        self._listener.lost(self)
        self.open()
