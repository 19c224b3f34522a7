"""The batcher under a seeded scheduler: every request ends once, nothing waits beside a free worker, caps hold.

Time is in steps of a millisecond; many worlds have several callers and priorities, and short deadlines. Some answers
come in pieces. A tenth of the worlds is checked after every step, the others now and then.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import NamedTuple

import pytest

from salver.dispatch.batching import Batcher, Send, Slot
from salver.dispatch.call import Call, Limits
from salver.frames import Form

SEEDS = 20_000
STEPS = 40
CHECK_EVERY = 8
MS = 1_000_000
NATIVE = Form("native")


class Worker(NamedTuple):
    """A worker: its place, the requests it was sent, and those whose answers have begun to come in pieces."""

    slot: Slot
    waiting: list[Call]
    streaming: list[Call]


class World:
    """A batcher, its simulated workers, and what became of each request."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.limits = Limits(
            batch_requests=self.chance.choice((1, 2, 4, 8)),
            batch_bytes=self.chance.choice((10, 50, 1000)),
            queue_requests=self.chance.choice((3, 10, 50)),
            queue_bytes=self.chance.choice((60, 1000)),
            frames=self.chance.choice((1, 2)),
            busy=self.chance.choice((1, 2, 3)),
        )
        self.retry = self.chance.random() < 0.8
        self.batcher = Batcher(self.limits, retry=self.retry)
        self.at_workers: dict[str, Worker] = {}
        self.retired: set[str] = set()
        self.ends: Counter[int] = Counter()
        self.offered: dict[int, Call] = {}
        self.refused: set[int] = set()
        self.keys = self.chance.choice(("a", "a", "ab", "aabcd"))
        self.priorities = self.chance.choice(((0,), (0,), (0, -1)))
        self.time = MS
        self.steps = 0
        self.check_every = 1 if seed % 10 == 1 else CHECK_EVERY
        self.acts = [
            *[self.arrive] * 3,
            *[self.answer] * 2,
            self.join,
            self.die,
            self.retire,
            self.leave,
            self.tick,
            *[self.piece] * self.chance.choice((0, 2)),
        ]

    def run(self) -> None:
        for _ in range(STEPS):
            self.step()
        self.finish()

    def step(self) -> None:
        self.time += MS
        self.chance.choice(self.acts)()
        self.settle()

    def settle(self) -> None:
        """Send what can be sent; then every request is in one place: it waits, runs, has ended or was refused."""
        while (send := self.batcher.next(self.time)) is not None:
            self.deliver(send)
        self.steps += 1
        if self.steps % self.check_every == 0:
            self.check()

    def check(self) -> None:
        assert len(self.offered) == self.batcher.check() + len(self.ends), "every request is open or has ended"

    def arrive(self) -> None:
        number = len(self.offered)
        body = b"x" * self.chance.randint(1, 30)
        chance = self.chance
        key, priority = chance.choice(self.keys), chance.choice(self.priorities)
        deadline = self.time + chance.choice((5, 40, 10_000)) * MS
        call = Call(number, NATIVE, deadline, body, None, self.time, key=key, priority=priority)
        self.offered[number] = call
        for ended, code in self.batcher.queue.offer(call):
            assert code == "overloaded" or (code == "would-miss-deadline" and ended is call)
            assert ended.priority <= priority, "a higher priority makes no room for a lower"
            self.ends[ended.id] += 1
            self.refused.add(ended.id)

    def deliver(self, send: Send) -> None:
        assert len(send.calls) <= self.limits.batch_requests
        assert len(send.calls) == 1 or sum(len(call.body) for call in send.calls) <= self.limits.batch_bytes
        slot, waiting, _ = self.at_workers[send.slot.name]
        assert slot is send.slot
        assert slot.name not in self.retired, "a worker that is let go of gets nothing more"
        if send.alone:
            assert len(send.calls) == 1
            assert not waiting, "a lonely request shares its worker"
        waiting += send.calls

    def answer(self) -> None:
        busy = [worker for worker in self.at_workers.values() if worker.waiting or worker.streaming]
        if not busy:
            return
        slot, waiting, streaming = self.chance.choice(busy)
        asked = streaming if streaming and (not waiting or self.chance.random() < 0.3) else waiting
        if self.chance.random() < 0.5:
            self.chance.shuffle(asked)
        most = self.chance.choice((1, len(asked), self.chance.randint(1, len(asked))))
        calls, asked[:] = asked[:most], asked[most:]
        for call, wanted in zip(
            calls, self.batcher.answered(slot, [call.id for call in calls], self.time), strict=True
        ):
            assert wanted is (None if call.id in self.ends else call), "an answer goes to who still waits"
            self.ends[call.id] += wanted is call
        assert self.batcher.answered(slot, [10**9]) == [None], "an answer nobody asked for is dropped"

    def piece(self) -> None:
        """A worker answers in pieces: the first one of a request that it was sent, or one more."""
        busy = [worker for worker in self.at_workers.values() if worker.waiting or worker.streaming]
        if not busy:
            return
        slot, waiting, streaming = self.chance.choice(busy)
        if waiting and (not streaming or self.chance.random() < 0.5):
            streaming.append(waiting.pop(self.chance.randrange(len(waiting))))
            call = streaming[-1]
        else:
            call = self.chance.choice(streaming)
        before = call.deadline
        wanted = self.batcher.piece(slot, call.id, self.time)
        if call.id in self.ends:
            assert wanted is None, "a piece for one that has ended is dropped"
        else:
            assert wanted is call
            assert self.time < call.deadline >= before, "a piece renews the deadline"
        assert self.batcher.piece(slot, 10**9, self.time) is None, "a piece nobody asked for is dropped"

    def join(self) -> None:
        if len(self.at_workers) < 3:
            name = f"w{self.time}"
            self.at_workers[name] = Worker(self.batcher.join(name), [], [])

    def retire(self) -> None:
        """Let go of a worker; one that nobody waits for any more is gone."""
        if self.at_workers:
            name = self.chance.choice(sorted(self.at_workers))
            slot, waiting, streaming = self.at_workers[name]
            self.retired.add(name)
            self.batcher.retire(slot)
            awaited = any(call.id not in self.ends for call in (*waiting, *streaming))
            assert self.batcher.awaited(slot) == awaited
            if not awaited:
                del self.at_workers[name]
                assert self.batcher.leave(slot) == [], "nothing is lost with it"

    def die(self) -> None:
        if not self.at_workers:
            return
        name = self.chance.choice(sorted(self.at_workers))
        slot, waiting, streaming = self.at_workers.pop(name)
        if waiting and self.chance.random() < 0.5:
            self.batcher.started(slot, waiting[0].id)
        for call, code in self.batcher.leave(slot):
            lost = "poison-request" if self.retry else "worker-died"
            assert code == ("answer-broken-off" if call in streaming else lost)
            self.ends[call.id] += 1

    def leave(self) -> None:
        open_calls = [call for number, call in self.offered.items() if number not in self.ends]
        if open_calls:
            call = self.chance.choice(open_calls)
            self.batcher.cancel(call)
            self.ends[call.id] += 1

    def tick(self) -> None:
        self.time += self.chance.randint(1, 20) * MS
        at_workers = {call.id: w.slot for w in self.at_workers.values() for call in (*w.waiting, *w.streaming)}
        for call, slot in self.batcher.expire(self.time):
            assert call.deadline <= self.time
            assert slot is at_workers.get(call.id), "its worker is told"
            self.ends[call.id] += 1

    def finish(self) -> None:
        """Let everything run out on one healthy worker."""
        if not self.batcher.slots:
            self.at_workers["last"] = Worker(self.batcher.join("last"), [], [])
        for _ in range(10_000):
            self.settle()
            if not any(worker.waiting or worker.streaming for worker in self.at_workers.values()):
                break
            self.answer()
        self.check()
        assert not self.batcher.waiting
        assert not self.batcher.running
        for number in self.offered:
            assert self.ends[number] == 1, f"request {number}"


@pytest.mark.parametrize("block", range(8))
def test_every_request_ends_exactly_once_whatever_workers_and_callers_do(block: int) -> None:
    for seed in range(block * SEEDS // 8, (block + 1) * SEEDS // 8):
        world = World(seed)
        try:
            world.run()
        except AssertionError as broken:
            raise AssertionError(f"seed {seed}: {broken}") from broken


def test_the_simulation_notices_a_batcher_that_loses_a_wake_up() -> None:
    class Sleepy(Batcher):
        def next(self, now: int = 0) -> Send | None:
            return None if self.waiting == 1 else super().next(now)

    noticed = []
    for seed in (1, 11, 21, 31):  # whose worlds are checked after every step
        world = World(seed)
        world.batcher = Sleepy(world.limits, retry=True)
        assert world.check_every == 1
        try:
            world.run()
        except AssertionError as broken:
            noticed.append(str(broken).startswith("no lost wake-up"))
    assert noticed
    assert all(noticed)
