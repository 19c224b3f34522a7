"""A release with more to do than it can, in simulated time: what is still answered, how late, and whose it is."""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import NamedTuple

import pytest

from salver.dispatch.admission import PERMITTED, WORTH
from salver.dispatch.batching import Batcher, Send, Slot
from salver.dispatch.call import Call, Limits
from salver.frames import Form

NS = 1_000_000_000
NATIVE = Form("native")
BODY = bytes(200)
USUAL = 0.8


class Cost(NamedTuple):
    """Seconds of a model call: for each call and for each request in it."""

    call: float
    request: float

    def capacity(self, limits: Limits, workers: int) -> float:
        """Requests a second, in full frames."""
        return workers * limits.batch_requests / (self.call + self.request * limits.batch_requests)


class Caller(NamedTuple):
    """Who asks: how many a second, within how many seconds each must be answered, and with what priority."""

    key: str
    rate: float
    patience: float = 10.0
    priority: int = 0


class Outcome:
    """What became of one caller's requests, asked after the warm-up; latencies in seconds; `done` in time."""

    def __init__(self) -> None:
        self.asked = 0
        self.shed = 0
        self.expired = 0
        self.late: list[float] = []
        self.done = 0
        self.longest_refusal = 0.0

    def p99(self) -> float:
        ordered = sorted(self.late)
        return ordered[int(0.99 * (len(ordered) - 1))]


class Simulation:
    """Callers who ask at random moments whether or not they are answered, and workers of a known cost."""

    def __init__(
        self, cost: Cost, callers: list[Caller], *, seed: int = 1, workers: int = 2, jitter: float = 0.1
    ) -> None:
        self.cost = cost
        self.jitter = jitter
        self.chance = random.Random(seed)
        self.limits = Limits(queue_requests=4 * workers * 64, busy=workers)
        self.batcher = Batcher(self.limits, retry=True)
        self.outcomes = {caller.key: Outcome() for caller in callers}
        self.callers = {caller.key: caller for caller in callers}
        self.events: list[tuple[int, int, str, Slot | None, list[Call]]] = []
        self.numbers = 0
        self.now = NS
        self.warm = NS
        for number in range(workers):
            self.batcher.join(f"w{number}")
        for caller in callers:
            self.later(self.chance.expovariate(caller.rate), caller.key)
        self.later(0.05, "sweep")

    def later(self, seconds: float, what: str, slot: Slot | None = None, calls: list[Call] | None = None) -> None:
        self.numbers += 1
        heappush(self.events, (self.now + int(seconds * NS), self.numbers, what, slot, calls or []))

    def run(self, seconds: float, warm: float = 0.0) -> None:
        """Let so much time pass; what is asked in the first `warm` seconds isn't counted."""
        self.warm = self.now + int(warm * NS)
        ends = self.now + int(seconds * NS)
        while self.events[0][0] < ends:
            self.now, _, what, slot, calls = heappop(self.events)
            if slot is not None:
                self.answer(slot, calls)
            elif what == "sweep":
                self.sweep()
            else:
                self.arrive(self.callers[what])
            while (send := self.batcher.next(self.now)) is not None:
                self.send(send)
            if what == "sweep":
                self.batcher.check()

    def arrive(self, caller: Caller) -> None:
        self.later(self.chance.expovariate(caller.rate), caller.key)
        self.ask(caller)

    def ask(self, caller: Caller) -> None:
        deadline = self.now + int(caller.patience * NS)
        self.numbers += 1
        call = Call(self.numbers, NATIVE, deadline, BODY, None, self.now, key=caller.key, priority=caller.priority)
        if self.now >= self.warm:
            self.outcomes[caller.key].asked += 1
        for ended, _ in self.batcher.queue.offer(call):
            outcome = self.outcomes[ended.key]
            if ended.started >= self.warm:
                outcome.shed += 1
                outcome.longest_refusal = max(outcome.longest_refusal, (self.now - ended.started) / NS)

    def send(self, send: Send) -> None:
        calls = [call for call in send.calls if call.deadline > self.now]
        seconds = self.cost.call + self.cost.request * len(calls)
        self.later(seconds * self.chance.uniform(1 - self.jitter, 1 + self.jitter), "answer", send.slot, send.calls)

    def answer(self, slot: Slot, calls: list[Call]) -> None:
        for call in self.batcher.answered(slot, [call.id for call in calls], self.now):
            if call is None:
                continue
            outcome = self.outcomes[call.key]
            outcome.done += call.deadline > self.now >= self.warm
            if call.started >= self.warm:
                if call.deadline > self.now:
                    outcome.late.append((self.now - call.started) / NS)
                else:
                    outcome.expired += 1

    def sweep(self) -> None:
        self.later(0.05, "sweep")
        for call, _ in self.batcher.expire(self.now):
            self.outcomes[call.key].expired += call.started >= self.warm


COSTS = {
    "fast": Cost(0.001, 0.00001),
    "by call": Cost(0.05, 0.0001),
    "by request": Cost(0.002, 0.002),
}


def load(cost: Cost, share: float, *, patience: float = 10.0, jitter: float = 0.1) -> Simulation:
    """One caller who asks that share of what two workers can do; without jitter they begin at once and keep step."""
    rate = share * cost.capacity(Limits(), 2)
    seconds = min(20.0, 15_000 / rate)
    simulation = Simulation(cost, [Caller("a", rate, patience)], jitter=jitter)
    if not jitter:
        for _ in range(4 * simulation.limits.batch_requests):
            simulation.ask(simulation.callers["a"])
    simulation.run(seconds, warm=seconds / 4)
    return simulation


@pytest.mark.parametrize("jitter", [0.0, 0.1])
@pytest.mark.parametrize("name", COSTS)
def test_five_times_too_much_costs_no_throughput_and_delays_little(name: str, jitter: float) -> None:
    cost = COSTS[name]
    full = cost.call + 64 * cost.request
    steady, over = load(cost, 0.8, jitter=jitter).outcomes["a"], load(cost, 5.0, jitter=jitter)
    outcome = over.outcomes["a"]
    seconds = (over.now - over.warm) / NS
    assert outcome.done / seconds >= 0.9 * cost.capacity(Limits(), 2)
    assert outcome.p99() <= 2 * steady.p99() + PERMITTED * full + 0.1
    assert not steady.shed, "nothing is refused at 80 % load"
    assert not outcome.expired, "who is let in is answered"
    assert outcome.longest_refusal == 0, "who is refused is refused at once"


@pytest.mark.parametrize("name", COSTS)
def test_who_has_little_time_is_refused_at_once_rather_than_answered_too_late(name: str) -> None:
    cost = COSTS[name]
    full = cost.call + 64 * cost.request
    over = load(cost, 5.0, patience=4.0 * full)
    outcome = over.outcomes["a"]
    seconds = (over.now - over.warm) / NS
    assert outcome.done / seconds >= 0.9 * cost.capacity(Limits(), 2)
    assert outcome.expired <= 0.02 * len(outcome.late)


@pytest.mark.parametrize("name", COSTS)
def test_a_queue_empties_and_refuses_nobody_once_the_load_has_dropped(name: str) -> None:
    cost = COSTS[name]
    simulation = load(cost, 5.0)
    simulation.callers["a"] = Caller("a", 0.8 * cost.capacity(Limits(), 2))
    simulation.run(min(2.0, 20_000 / simulation.callers["a"].rate))
    before = simulation.outcomes["a"].shed
    simulation.run(min(5.0, 20_000 / simulation.callers["a"].rate))
    assert simulation.outcomes["a"].shed == before


def normal_p99(cost: Cost, noisy: float, *, seed: int) -> float:
    """p99 of nine callers at 80 % of their share beside one who asks `noisy` times theirs; none of them is refused."""
    share = cost.capacity(Limits(), 2) / 10
    normal = [Caller(f"n{number}", USUAL * share) for number in range(9)]
    simulation = Simulation(cost, [*normal, Caller("noisy", noisy * share)], seed=seed)
    seconds = min(10.0, 600 / share)
    simulation.run(seconds, warm=seconds / 4)
    assert sum(simulation.outcomes[caller.key].shed for caller in normal) == 0
    done = sum(outcome.done for outcome in simulation.outcomes.values())
    offered = min(1.0, USUAL * 0.9 + 0.1 * noisy)
    assert done >= 0.85 * offered * 0.75 * seconds * cost.capacity(Limits(), 2), "small frames cost little"
    every = Outcome()
    for caller in normal:
        every.late += simulation.outcomes[caller.key].late
    return every.p99()


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("name", COSTS)
def test_a_noisy_key_neither_sheds_nor_delays_the_others(name: str, seed: int) -> None:
    cost = COSTS[name]
    paying = min(64.0, WORTH * cost.call / cost.request)
    alone, beside = normal_p99(cost, USUAL, seed=seed), normal_p99(cost, 50.0, seed=seed)
    assert beside <= 1.1 * alone + cost.call + cost.request * paying, "as before, or a frame of the size that pays"


def test_a_lower_priority_is_shed_first_and_waits_for_the_higher() -> None:
    cost = COSTS["by call"]
    capacity = cost.capacity(Limits(), 2)
    people, shadow = Caller("people", 0.5 * capacity), Caller("shadow", 3 * capacity, priority=-3)
    simulation = Simulation(cost, [people, shadow])
    simulation.run(4.0, warm=1.0)
    assert simulation.outcomes["people"].shed == 0
    assert simulation.outcomes["shadow"].shed > 0
    assert len(simulation.outcomes["shadow"].late) > 0, "what is left over is used"


def test_nothing_is_refused_for_its_deadline_before_anything_was_measured() -> None:
    batcher = Batcher(Limits(batch_requests=1, queue_requests=100), retry=True)
    batcher.join("w")
    for number in range(100):
        assert not batcher.queue.offer(Call(number, NATIVE, NS + 1, BODY, None, NS))


def test_one_slow_frame_does_not_refuse_short_deadlines_for_ever() -> None:
    simulation = Simulation(Cost(5.0, 0.0), [Caller("a", 50.0, 0.5)], workers=1)
    simulation.run(20.0)
    simulation.cost = Cost(0.01, 0.0)
    simulation.run(10.0)
    before = len(simulation.outcomes["a"].late)
    simulation.run(10.0)
    assert len(simulation.outcomes["a"].late) - before > 450
