"""What to send now: the greedy batcher of one release, a state machine without clock, socket or chance.

Rule 1: while a worker is free, a request goes at once; while all are busy, requests gather, and the worker that frees
        takes all that wait, up to the caps.
Rule 2: a request that was in flight on a worker that died is retried alone: in a batch of its own, on a worker with
        nothing else in flight. Only a death while alone, after the worker said it started, counts against it.
Rule 3: every request ends exactly once: answered, failed, cancelled or expired. An answer for one that has ended, or
        that this connection was never asked, is dropped.
Rule 4: a worker's place is free again when it has answered, not when the caller has left.
Rule 5: an answer that comes in pieces holds no place: from its first piece on, its worker takes other requests too. It
        can't be asked again, so it fails with its worker; each piece renews its deadline.
Rule 6: what waits is in `queue`, which also says who is next and who may not come in; what is retried alone is not
        there, and never refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from salver.dispatch.admission import FIRST, LEARN_EVERY
from salver.dispatch.call import Call, Failure, Limits
from salver.dispatch.queue import Queue

__all__ = ["Batcher", "Call", "Failure", "Frame", "Limits", "Send", "Slot"]


class Frame:
    """One batch in flight: the requests that are still unanswered.

    `left` says that nobody waits for some of them any more, `started` that the worker has begun with a lonely one;
    `sent` is when it was, in nanoseconds, where its time is measured, and else 0; `bytes` is known only there.
    """

    __slots__ = ("alone", "bytes", "calls", "left", "sent", "started")

    def __init__(self, calls: Iterable[Call], *, alone: bool) -> None:
        self.calls = {call.id: call for call in calls}
        self.alone = alone
        self.bytes: int
        self.sent = 0
        self.left = False
        self.started = False


class Slot:
    """One worker as the batcher sees it: the frames in flight there, oldest first, and its streams.

    A stream is a request whose answer has begun to come in pieces, with the nanoseconds it is given for each.
    """

    __slots__ = ("frames", "name", "streams")

    def __init__(self, name: str) -> None:
        self.name = name
        self.frames: list[Frame] = []
        self.streams: dict[int, tuple[Call, int]] = {}

    def __repr__(self) -> str:
        return f"<Slot {self.name} in flight={[len(frame.calls) for frame in self.frames]}>"


class Send(NamedTuple):
    """Send these requests to that worker, as one frame."""

    slot: Slot
    calls: list[Call]
    alone: bool


class Batcher:
    """The state of one release's requests. Every method only moves state and returns what must be done."""

    __slots__ = ("_alone", "_learn_at", "_limits", "_retired", "_retry", "_slots", "_watched", "dropped", "queue")

    def __init__(self, limits: Limits, *, retry: bool) -> None:
        self._limits = limits
        self._retry = retry
        self.queue = Queue(limits, self._load)
        self._alone: deque[Call] = deque()
        self._slots: list[Slot] = []
        self._retired: list[Slot] = []  # those that answer what they have and get nothing more
        self._learn_at = 1
        self._watched = 0
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Batcher waiting={self.waiting} alone={len(self._alone)} slots={self._slots}>"

    @property
    def waiting(self) -> int:
        """How many requests wait to be sent."""
        return self.queue.count + len(self._alone)

    @property
    def wait(self) -> float:
        """Seconds that a request would wait now, behind all that does."""
        return self.queue.wait()

    @property
    def running(self) -> int:
        """How many requests are in flight."""
        return sum(len(slot.streams) + sum(len(frame.calls) for frame in slot.frames) for slot in self._everyone())

    @property
    def slots(self) -> list[Slot]:
        """The workers that may be sent to."""
        return self._slots

    def join(self, name: str) -> Slot:
        """A proven worker can be sent to."""
        slot = Slot(name)
        self._slots.append(slot)
        return slot

    def next(self, now: int = 0) -> Send | None:
        """The next frame to send at `now`, or None while nothing waits or no worker is free."""
        if self._alone:
            idle = self._idle()
            if idle is not None:
                return self._send(idle, [self._alone.popleft()], alone=True)
        queue = self.queue
        if not queue.waiting and queue.lanes is None:
            return None
        slot = self._free()
        if slot is None:
            return None
        if now < self._learn_at:
            return self._send(slot, queue.take(now), alone=False)
        send = self._send(slot, queue.take(now, watched=True), alone=False)
        self._measure(slot.frames[-1], now)
        return send

    def started(self, slot: Slot, number: int) -> None:
        """The worker has begun to execute a lonely request."""
        for frame in slot.frames:
            if number in frame.calls:
                frame.started = True

    def piece(self, slot: Slot, number: int, now: int) -> Call | None:
        """A part of an answer arrived; returns whom to give it to, None where nobody waits for it."""
        if number not in slot.streams:
            call = self._taken(slot, number, now)
            if call is None or call.ended:  # a worker that is told to stop says no more of it
                self.dropped += 1
                return None
            slot.streams[number] = call, call.deadline - (call.started or now) if call.deadline else 0
        call, allowed = slot.streams[number]
        if allowed:
            call.deadline = now + allowed
        return call

    def slot_of(self, call: Call) -> Slot | None:
        """The worker that streams the answer to a request."""
        return next((slot for slot in self._everyone() if call.id in slot.streams), None)

    def answered(self, slot: Slot, numbers: Sequence[int], now: int = 0) -> list[Call | None]:
        """Answers to these requests arrived; returns for each whom to give it to, None where nobody waits for it."""
        if slot.frames and not slot.frames[0].left and list(slot.frames[0].calls) == numbers:
            frame = slot.frames.pop(0)
            if frame.sent:
                self._learn(frame, now)
            return list(frame.calls.values())
        wanted: list[Call | None] = []
        for number in numbers:
            call = slot.streams.pop(number)[0] if number in slot.streams else self._taken(slot, number, now)
            if call is None:
                self.dropped += 1
                wanted.append(None)
                continue
            wanted.append(None if call.ended else call)
            call.ended = True
        return wanted

    def _taken(self, slot: Slot, number: int, now: int) -> Call | None:
        """Take a request out of the frame that it is in; the frame's place is free with the last of them."""
        for frame in slot.frames:
            call = frame.calls.pop(number, None)
            if call is not None:
                if not frame.calls:
                    slot.frames.remove(frame)
                    if frame.sent:
                        self._learn(frame, now)
                return call
        return None

    def retire(self, slot: Slot) -> None:
        """Send a worker nothing more; it still answers what it has."""
        if slot in self._slots:
            self._slots.remove(slot)
            self._retired.append(slot)

    def awaited(self, slot: Slot) -> bool:
        """Whether anybody waits for an answer of this worker."""
        return bool(slot.streams) or any(not call.ended for frame in slot.frames for call in frame.calls.values())

    def leave(self, slot: Slot) -> list[Failure]:
        """A worker is gone: its requests will be retried alone, or have failed."""
        for slots in (self._slots, self._retired):
            if slot in slots:
                slots.remove(slot)
        frames, slot.frames = slot.frames, []
        failures = [Failure(call, "answer-broken-off") for call, _ in slot.streams.values()]
        for call, _ in slot.streams.values():
            call.ended = True
        slot.streams.clear()
        for frame in frames:
            for call in frame.calls.values():
                if call.ended:
                    continue
                code = self._lost(call, blamed=frame.alone and frame.started)
                if code:
                    call.ended = True
                    failures.append(Failure(call, code))
                else:
                    self._alone.append(call)
        return failures

    def cancel(self, call: Call) -> Slot | None:
        """Nobody waits for this request any more; returns the worker that has it, to be told."""
        call.ended = True
        number = call.id
        for slot in self._everyone():
            if slot.streams.pop(number, None) is not None:
                return slot
            for frame in slot.frames:
                if number in frame.calls:
                    frame.left = True
                    return slot
        if call in self._alone:
            self._alone.remove(call)
        else:
            self.queue.remove(call)
        return None

    def expire(self, now: int) -> list[tuple[Call, Slot | None]]:
        """The requests whose deadline has passed, and the worker of each, to be told; they have ended."""
        return [(call, self.cancel(call)) for call in list(self._open()) if 0 < call.deadline <= now]

    def close(self) -> list[Call]:
        """End every open request; returns them."""
        calls = list(self._open())
        for call in calls:
            self.cancel(call)
        return calls

    def check(self) -> int:
        """Return how many requests are open; AssertionError where an invariant is broken (for simulation and tests)."""
        limits = self._limits
        self.queue.check()
        waiting = [*self.queue, *self._alone]
        assert not [call for call in waiting if call.ended], "only open requests wait"
        running: list[Call] = []
        busy = 0
        for slot in self._everyone():
            busy += bool(slot.frames) and slot in self._slots
            assert len(slot.frames) <= limits.frames, "frames in flight are capped"
            for frame in slot.frames:
                assert frame.calls, "a frame in flight has open requests"
                assert not frame.alone or len(slot.frames) == len(frame.calls) == 1, "lonely means lonely"
                running += frame.calls.values()
            running += [call for call, _ in slot.streams.values()]
            assert not [call for call, _ in slot.streams.values() if call.ended], "only open requests are streamed"
        ids = {call.id for call in waiting}
        ids.update([call.id for call in running])
        assert len(ids) == len(waiting) + len(running), "no request is in two places"
        assert busy <= limits.busy, "no more workers busy than allowed"
        if waiting:
            assert self._free() is None or (not self.queue.count and self._idle() is None), "no lost wake-up"
        return len(waiting) + len([call for call in running if not call.ended])

    def _open(self) -> Iterator[Call]:
        places: Iterable[Iterable[Call]] = (
            list(self.queue),
            self._alone,
            *(frame.calls.values() for slot in self._everyone() for frame in slot.frames),
            [call for slot in self._everyone() for call, _ in slot.streams.values()],
        )
        return (call for place in places for call in place if not call.ended)

    def _everyone(self) -> list[Slot]:
        return self._slots + self._retired if self._retired else self._slots

    def _send(self, slot: Slot, calls: list[Call], *, alone: bool) -> Send:
        slot.frames.append(Frame(calls, alone=alone))
        return Send(slot, calls, alone)

    def _measure(self, frame: Frame, now: int) -> None:
        """Watch how long this frame takes: the first ones, then one now and then is enough."""
        self._watched += 1
        self._learn_at = now + (LEARN_EVERY if self._watched >= FIRST else 0)
        frame.sent = now
        frame.bytes = sum([len(call.body) for call in frame.calls.values() if not 0 < call.deadline <= now])

    def _learn(self, frame: Frame, now: int) -> None:
        self.queue.learn(frame.bytes, (now - frame.sent) * 1e-9)

    def _load(self) -> tuple[int, bool]:
        """How many workers take frames at once, and whether all of them are busy."""
        return min(len(self._slots), self._limits.busy), self._free() is None

    def _lost(self, call: Call, *, blamed: bool) -> str:
        """The code that ends a request whose worker died, or '' where it is retried alone."""
        if not self._retry:
            return "worker-died"
        call.deaths = max(call.deaths, 0) + blamed
        return "poison-request" if call.deaths >= self._limits.deaths else ""

    def _idle(self) -> Slot | None:
        """A worker with nothing in flight, if one more may be busy."""
        idle = None
        busy = 0
        for slot in self._slots:
            if slot.frames:
                busy += 1
            elif idle is None:
                idle = slot
        return idle if busy < self._limits.busy else None

    def _free(self) -> Slot | None:
        """An idle worker, else the busy one with the fewest frames that may take one more and isn't lonely."""
        idle = self._idle()
        if idle is not None or self._limits.frames == 1:
            return idle
        room = [slot for slot in self._slots if 0 < len(slot.frames) < self._limits.frames and not slot.frames[0].alone]
        return min(room, key=lambda slot: len(slot.frames), default=None)
