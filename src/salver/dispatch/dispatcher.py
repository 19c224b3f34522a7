"""The thin shell around the batcher: moves frames between one release's requests and its workers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping

from salver.dispatch.batching import Batcher, Call, Failure, Limits
from salver.dispatch.quarantine import Quarantine
from salver.dispatch.upstream import Upstream
from salver.frames import Answers, Hello, Message, Reply, Started

SWEEP = 0.05
OnAnswers = Callable[[Answers, list[tuple[Call, Reply]], int], None]


class Dispatcher:
    """Sends one release's requests to its workers and the answers back to their owners.

    `submit` never blocks and makes no task: requests that arrive while the loop reads are sent together when it has
    read all. Only workers of the release with `release_id` are used, where it is given. `on_answers` hears of every
    model call, for metrics; `on_change` of every worker that comes or goes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        *,
        retry: bool,
        release_id: str = "",
        on_answers: OnAnswers | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self.batcher = Batcher(limits, retry=retry)
        self._loop = loop
        self._release_id = release_id
        self._on_answers = on_answers
        self._on_change = on_change
        self._upstreams: dict[str, Upstream] = {}
        self._by_slot: dict[str, Upstream] = {}
        self._flushing = False
        self._sweeping: asyncio.TimerHandle | None = None
        self._quarantine = Quarantine(os.urandom(32))

    @property
    def ready(self) -> int:
        """How many proven workers are connected."""
        return len(self.batcher.slots)

    @property
    def open_requests(self) -> int:
        """How many requests wait or are in flight."""
        return self.batcher.waiting + self.batcher.running

    def set_workers(self, addresses: Mapping[str, str]) -> None:
        """Connect to these workers (name → unix socket path) and let go of all others."""
        for name in [name for name, up in self._upstreams.items() if addresses.get(name) != up.address]:
            self._upstreams.pop(name).close()
        for name, address in addresses.items():
            if name not in self._upstreams:
                upstream = self._upstreams[name] = Upstream(self._loop, name, address, self)
                upstream.open()

    def submit(self, call: Call) -> str:
        """Take a request; returns '' or the code that refuses it (its owner then hears nothing more)."""
        if len(self._quarantine) and self._quarantine.holds(call.ask.body, time.monotonic_ns()):
            return "poison-request"
        if not self.batcher.offer(call):
            return "overloaded"
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP, self._sweep)
        return ""

    def cancel(self, call: Call) -> None:
        """The owner has left: drop the request wherever it is."""
        slot = self.batcher.cancel(call)
        if slot is not None:
            self._by_slot[slot.name].cancel([call.ask.id])

    async def drained(self) -> None:
        """Return when no request is open."""
        while self.open_requests:
            await asyncio.sleep(0.005)

    def close(self) -> None:
        """Fail what is open and let go of every worker."""
        for call in self.batcher.close():
            call.owner.failed(call, "draining")
        self.set_workers({})
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def connected(self, upstream: Upstream, hello: Hello) -> None:
        """A worker is proven: it may be sent to, if it holds the release that it should."""
        if self._release_id and hello.id != self._release_id:
            upstream.close()
            return
        upstream.slot = self.batcher.join(upstream.name)
        self._by_slot[upstream.name] = upstream
        self._changed()
        self._flush()

    def received(self, upstream: Upstream, messages: list[Message]) -> None:
        """Hand the answers to their owners, then send what gathered meanwhile."""
        slot = upstream.slot
        if slot is None:
            return
        batcher = self.batcher
        for message in messages:
            if isinstance(message, Answers):
                if message.generation != upstream.generation:
                    batcher.dropped += len(message.replies)
                    continue
                now = time.monotonic_ns()
                answered = batcher.answered(slot, message.replies)
                for call, reply in answered:
                    call.owner.answered(call, reply, now)
                if self._on_answers is not None:
                    self._on_answers(message, answered, now)
            elif isinstance(message, Started):
                batcher.started(slot, message.id)
        if batcher.waiting and not self._flushing:
            self._flushing = True
            # Callers answer at once, so one more turn of the loop lets their next requests share this frame.
            self._loop.call_soon(self._flush_next_turn)

    def lost(self, upstream: Upstream) -> None:
        """A worker is gone: retry its requests alone, fail those that may not be retried."""
        slot, upstream.slot = upstream.slot, None
        if slot is None:
            return
        self._by_slot.pop(upstream.name, None)
        for call, code in self.batcher.leave(slot):
            self._fail(Failure(call, code))
        self._changed()
        self._flush()

    def _flush_next_turn(self) -> None:
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while (send := self.batcher.next()) is not None:
            self._by_slot[send.slot.name].send(send.calls, alone=send.alone)

    def _sweep(self) -> None:
        self._sweeping = None
        for call in self.batcher.expire(time.monotonic_ns()):
            call.owner.failed(call, "deadline-exceeded")
        if self.open_requests:
            self._sweeping = self._loop.call_later(SWEEP, self._sweep)

    def _fail(self, failure: Failure) -> None:
        if failure.code == "poison-request":
            self._quarantine.add(failure.call.ask.body, time.monotonic_ns())
        failure.call.owner.failed(failure.call, failure.code)

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()
