"""The thin shell around the batcher: moves frames between one release's requests and its workers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from salver.dispatch.admission import retry_after
from salver.dispatch.batching import Batcher, Slot
from salver.dispatch.call import Call, Failure, Limits
from salver.dispatch.quarantine import Quarantine
from salver.dispatch.upstream import Upstream
from salver.frames import Answers, Counted, Hello, Message, Piece, Started

SWEEP = 0.05
PARTING = 0.01
TURNS = 4


class Taker(Protocol):
    """Who takes the answers of one release's requests. Every request ends in one call of one of these."""

    def answered(self, answers: Answers, columns: list[Call | None], replies: list[Call | None], now: int) -> None:
        """One model call's answers arrived, and whom each belongs to: for `answers.bodies` and `answers.replies`.

        None stands where nobody waits any more. `now` is in monotonic nanoseconds.
        """
        ...

    def pieced(self, call: Call, piece: Piece, now: int) -> None:
        """A part of the answer to a streamed request arrived; `Dispatcher.more` asks for one more."""
        ...

    def counted(self, counted: Counted) -> None:
        """What was odd in requests whose answers have arrived."""
        ...

    def failed(self, call: Call, code: str) -> None:
        """No worker answered, for this reason (a code of `errors.CODES`)."""
        ...


class Dispatcher:
    """Sends one release's requests to its workers, and hands the answers to the taker.

    `submit` never blocks and makes no task: requests that arrive while the loop reads are sent together when it has
    read all. Only workers of the release with `release_id` are used, where it is given. `on_change` hears of every
    worker that comes or goes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        taker: Taker,
        *,
        retry: bool,
        release_id: str = "",
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self.batcher = Batcher(limits, retry=retry)
        self._queue = self.batcher.queue
        self._loop = loop
        self._release_id = release_id
        self._taker = taker
        self._on_change = on_change
        self._upstreams: dict[str, Upstream] = {}
        self._by_slot: dict[str, Upstream] = {}
        self._gathering = False
        self._most = limits.batch_requests
        self._sweeping: asyncio.TimerHandle | None = None
        self._quarantine = Quarantine(os.urandom(32))
        self._parting: set[Upstream] = set()

    @property
    def ready(self) -> int:
        """How many proven workers are connected."""
        return len(self.batcher.slots)

    @property
    def open_requests(self) -> int:
        """How many requests wait or are in flight."""
        return self.batcher.waiting + self.batcher.running

    def set_workers(self, addresses: Mapping[str, str]) -> None:
        """Connect to these workers (name → unix socket path) and let go of all others, once they have answered."""
        for name in [name for name, up in self._upstreams.items() if addresses.get(name) != up.address]:
            self._part(self._upstreams.pop(name))
        for name, address in addresses.items():
            if name not in self._upstreams:
                upstream = self._upstreams[name] = Upstream(self._loop, name, address, self)
                upstream.open()

    def submit(self, call: Call) -> str:
        """Take a request; returns '' or the code that refuses it (the taker then hears nothing more of it)."""
        if self._quarantine.bodies and self._quarantine.holds(call.body, time.monotonic_ns()):
            return "poison-request"
        failures = self._queue.offer(call)
        if failures and (code := self._shed(failures, call)):
            return code
        if not self._gathering:
            self._gather()
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(SWEEP, self._sweep)
        return ""

    def retry_after(self, chance: float) -> int:
        """Whole seconds after which a refused caller may try again; `chance` (0 to 1) spreads callers."""
        return retry_after(self.batcher.wait, chance)

    def more(self, call: Call) -> None:
        """The taker of a streamed answer can take one more piece."""
        slot = self.batcher.slot_of(call)
        if slot is not None:
            self._by_slot[slot.name].more(call.id)

    def cancel(self, call: Call) -> None:
        """Nobody waits any more: drop the request wherever it is."""
        self._tell(call, self.batcher.cancel(call))

    async def drained(self) -> None:
        """Return when no request is open."""
        while self.open_requests:
            await asyncio.sleep(0.005)

    async def parted(self) -> None:
        """Return when every worker that was let go of has answered."""
        while self._parting:
            await asyncio.sleep(PARTING)

    def close(self) -> None:
        """Fail what is open and let go of every worker."""
        for call in self.batcher.close():
            self._taker.failed(call, "draining")
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
        """Hand on the answers, then send what gathered meanwhile."""
        slot = upstream.slot
        if slot is None:
            return
        batcher = self.batcher
        for message in messages:
            if isinstance(message, Answers):
                if message.generation != upstream.generation:
                    batcher.dropped += len(message.ids) + len(message.replies)
                    continue
                now = time.monotonic_ns()
                columns = batcher.answered(slot, message.ids, now)
                ids = [reply.id for reply in message.replies]
                replies = batcher.answered(slot, ids, now) if ids else []
                self._taker.answered(message, columns, replies, now)
            elif isinstance(message, Piece):
                now = time.monotonic_ns()
                call = batcher.piece(slot, message.id, now) if message.generation == upstream.generation else None
                if call is not None:
                    self._taker.pieced(call, message, now)
            elif isinstance(message, Started):
                batcher.started(slot, message.id)
            elif isinstance(message, Counted):
                self._taker.counted(message)
        if batcher.waiting and not self._gathering:
            self._gather()

    def lost(self, upstream: Upstream) -> None:
        """A worker is gone: retry its requests alone, fail those that may not be retried."""
        slot, upstream.slot = upstream.slot, None
        if slot is None:
            return
        if self._by_slot.get(upstream.name) is upstream:
            del self._by_slot[upstream.name]
        for call, code in self.batcher.leave(slot):
            self._fail(Failure(call, code))
        self._changed()
        self._flush()

    def _part(self, upstream: Upstream) -> None:
        """Let go of a worker: once another can be sent to, where one is to come, and nobody waits for its answers."""
        slot = upstream.slot
        last = slot is not None and self.batcher.slots == [slot] and bool(self._upstreams)
        if slot is not None and not last:
            self.batcher.retire(slot)
            upstream.retire()
        if slot is None or not (last or self.batcher.awaited(slot)):
            self._parting.discard(upstream)
            upstream.close()
            return
        self._parting.add(upstream)
        self._loop.call_later(PARTING, self._part, upstream)

    def _gather(self) -> None:
        """Let requests that arrive together share a frame: send when a turn of the loop has brought no more."""
        self._gathering = True
        self._loop.call_soon(self._turn, 1, self.batcher.waiting)

    def _turn(self, number: int, before: int) -> None:
        waiting = self.batcher.waiting
        if number < TURNS and before < waiting < self._most:
            self._loop.call_soon(self._turn, number + 1, waiting)
            return
        self._gathering = False
        self._flush()

    def _flush(self) -> None:
        now = time.monotonic_ns()
        while (send := self.batcher.next(now)) is not None:
            self._by_slot[send.slot.name].send(send.calls, alone=send.alone)

    def _sweep(self) -> None:
        try:
            for call, slot in self.batcher.expire(time.monotonic_ns()):
                self._tell(call, slot)
                self._taker.failed(call, "deadline-exceeded")  # what comes next may be submitted in this call
        finally:
            self._sweeping = self._loop.call_later(SWEEP, self._sweep) if self.open_requests else None

    def _tell(self, call: Call, slot: Slot | None) -> None:
        """Tell the worker that has a request that nobody waits for it any more."""
        if slot is not None:
            self._by_slot[slot.name].cancel([call.id])

    def _shed(self, failures: Sequence[Failure], call: Call) -> str:
        """End the others that made room for a request; returns the code that refuses the request itself, or ''."""
        code = ""
        for failure in failures:
            if failure.call is call:
                code = failure.code
            else:
                self._taker.failed(failure.call, failure.code)
        return code

    def _fail(self, failure: Failure) -> None:
        if failure.code == "poison-request":
            self._quarantine.add(failure.call.body, time.monotonic_ns())
        self._taker.failed(failure.call, failure.code)

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()
