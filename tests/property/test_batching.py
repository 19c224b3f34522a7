"""The batcher under a seeded scheduler: every request ends once, nothing waits beside a free worker, caps hold."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from salver.dispatch.batching import Batcher, Call, Limits, Send, Slot
from salver.frames import Form

SEEDS = 20_000
STEPS = 60


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
        self.at_workers: dict[str, tuple[Slot, list[Call]]] = {}
        self.ends: Counter[int] = Counter()
        self.offered: dict[int, Call] = {}
        self.refused: set[int] = set()
        self.time = 0

    def run(self) -> None:
        for _ in range(STEPS):
            self.step()
        self.finish()

    def step(self) -> None:
        self.time += 1
        act = self.chance.choice(
            (
                self.arrive,
                self.arrive,
                self.arrive,
                self.answer,
                self.answer,
                self.join,
                self.die,
                self.leave,
                self.tick,
            )
        )
        act()
        while (send := self.batcher.next()) is not None:
            self.deliver(send)
        self.batcher.check()

    def arrive(self) -> None:
        number = len(self.offered)
        body = b"x" * self.chance.randint(1, 30)
        call = Call(number, Form("native"), self.time + self.chance.choice((5, 40, 10_000)), body)
        self.offered[number] = call
        if not self.batcher.offer(call):
            self.refused.add(number)

    def deliver(self, send: Send) -> None:
        assert len(send.calls) <= self.limits.batch_requests
        assert len(send.calls) == 1 or sum(len(call.body) for call in send.calls) <= self.limits.batch_bytes
        slot, waiting = self.at_workers[send.slot.name]
        assert slot is send.slot
        if send.alone:
            assert len(send.calls) == 1
            assert not waiting, "a lonely request shares its worker"
        waiting += send.calls

    def answer(self) -> None:
        busy = [name for name, (_, waiting) in self.at_workers.items() if waiting]
        if not busy:
            return
        slot, waiting = self.at_workers[self.chance.choice(busy)]
        if self.chance.random() < 0.5:
            self.chance.shuffle(waiting)
        most = self.chance.choice((1, len(waiting), self.chance.randint(1, len(waiting))))
        calls, waiting[:] = waiting[:most], waiting[most:]
        for call, wanted in zip(calls, self.batcher.answered(slot, [call.id for call in calls]), strict=True):
            assert wanted in (call, None)
            self.ends[call.id] += wanted is call
        assert self.batcher.answered(slot, [10**9]) == [None], "an answer nobody asked for is dropped"

    def join(self) -> None:
        if len(self.at_workers) < 3:
            name = f"w{self.time}"
            self.at_workers[name] = (self.batcher.join(name), [])

    def die(self) -> None:
        if not self.at_workers:
            return
        name = self.chance.choice(sorted(self.at_workers))
        slot, waiting = self.at_workers.pop(name)
        if waiting and self.chance.random() < 0.5:
            self.batcher.started(slot, waiting[0].id)
        for call, code in self.batcher.leave(slot):
            assert code == ("poison-request" if self.retry else "worker-died")
            self.ends[call.id] += 1

    def leave(self) -> None:
        open_calls = [
            call for number, call in self.offered.items() if number not in self.refused and not self.ends[number]
        ]
        if open_calls:
            call = self.chance.choice(open_calls)
            self.batcher.cancel(call)
            self.ends[call.id] += 1

    def tick(self) -> None:
        self.time += self.chance.randint(1, 20)
        for call in self.batcher.expire(self.time):
            assert call.deadline <= self.time
            self.ends[call.id] += 1

    def finish(self) -> None:
        """Let everything run out on one healthy worker."""
        if not self.at_workers:
            self.join()
        for _ in range(10_000):
            while (send := self.batcher.next()) is not None:
                self.deliver(send)
            self.batcher.check()
            if not any(waiting for _, waiting in self.at_workers.values()):
                break
            self.answer()
        assert not self.batcher.waiting
        assert not self.batcher.running
        for number in self.offered:
            assert self.ends[number] == (0 if number in self.refused else 1), f"request {number}"


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
        def next(self) -> Send | None:
            return None if self.waiting == 1 else super().next()

    world = World(1)
    world.batcher = Sleepy(world.limits, retry=True)
    with pytest.raises(AssertionError, match="no lost wake-up"):
        world.run()
