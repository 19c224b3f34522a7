"""What to send now: the greedy batcher of one release, a state machine without clock, socket or chance.

Rule 1: while a worker is free, a request goes at once; while all are busy, requests gather, and the worker that frees
        takes all that wait, up to the caps.
Rule 2: a request that was in flight on a worker that died is retried alone: in a batch of its own, on a worker with
        nothing else in flight. Only a death while alone, after the worker said it started, counts against it.
Rule 3: every request ends exactly once: answered, failed, cancelled or expired. An answer for one that has ended, or
        that this connection was never asked, is dropped.
Rule 4: a worker's place is free again when it has answered, not when the caller has left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from salver.frames import Form


class Limits(Struct, frozen=True):
    """Caps of one release's batcher.

    `batch_requests` and `batch_bytes` bound one frame, `queue_requests` and `queue_bytes` all that wait. `frames` is
    how many frames one worker may have in flight, `busy` how many workers may be busy at once (the CPU budget: more
    would only cut the batches in pieces), `deaths` how many lonely deaths a request may cause.
    """

    batch_requests: int = 64
    batch_bytes: int = 16 << 20
    queue_requests: int = 512
    queue_bytes: int = 256 << 20
    frames: int = 1
    busy: int = 2
    deaths: int = 2


class Call(Struct, eq=False, gc=False):
    """One request on its way: what to ask, and for whom.

    `deadline` and `started` (when it was admitted) are monotonic nanoseconds; a deadline of 0 is none. `owner` is
    whatever the taker of the answers needs. `deaths` is -1 while it has lost no worker; from 0 on it is retried alone.
    """

    id: int
    form: Form
    deadline: int
    body: bytes
    owner: Any = None
    started: int = 0
    deaths: int = -1
    ended: bool = False


class Frame:
    """One batch in flight: the requests that are still unanswered.

    `left` says that nobody waits for some of them any more, `started` that the worker has begun with a lonely one.
    """

    __slots__ = ("alone", "calls", "left", "started")

    def __init__(self, calls: Iterable[Call], *, alone: bool) -> None:
        self.calls = {call.id: call for call in calls}
        self.alone = alone
        self.left = False
        self.started = False


class Slot:
    """One worker as the batcher sees it: the frames in flight there, oldest first."""

    __slots__ = ("frames", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.frames: list[Frame] = []

    def __repr__(self) -> str:
        return f"<Slot {self.name} in flight={[len(frame.calls) for frame in self.frames]}>"


class Send(NamedTuple):
    """Send these requests to that worker, as one frame."""

    slot: Slot
    calls: list[Call]
    alone: bool


class Failure(NamedTuple):
    """This request ends without an answer, for this reason (a code of `errors.CODES`)."""

    call: Call
    code: str


class Batcher:
    """The state of one release's requests. Every method only moves state and returns what must be done."""

    __slots__ = ("_alone", "_bytes", "_limits", "_retry", "_slots", "_waiting", "dropped")

    def __init__(self, limits: Limits, *, retry: bool) -> None:
        self._limits = limits
        self._retry = retry
        self._waiting: list[Call] = []
        self._alone: deque[Call] = deque()
        self._bytes = 0
        self._slots: list[Slot] = []
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Batcher waiting={len(self._waiting)} alone={len(self._alone)} slots={self._slots}>"

    @property
    def waiting(self) -> int:
        """How many requests wait to be sent."""
        return len(self._waiting) + len(self._alone)

    @property
    def running(self) -> int:
        """How many requests are in flight."""
        return sum(len(frame.calls) for slot in self._slots for frame in slot.frames)

    @property
    def slots(self) -> list[Slot]:
        """The workers that may be sent to."""
        return self._slots

    def offer(self, call: Call) -> bool:
        """Take a request in; False refuses it because too much waits."""
        limits, size = self._limits, self._bytes + len(call.body)
        if len(self._waiting) >= limits.queue_requests or size > limits.queue_bytes:
            return False
        self._waiting.append(call)
        self._bytes = size
        return True

    def join(self, name: str) -> Slot:
        """A proven worker can be sent to."""
        slot = Slot(name)
        self._slots.append(slot)
        return slot

    def next(self) -> Send | None:
        """The next frame to send, or None while nothing waits or no worker is free."""
        if self._alone:
            idle = self._idle()
            if idle is not None:
                return self._send(idle, [self._alone.popleft()], alone=True)
        if not self._waiting:
            return None
        slot = self._free()
        if slot is None:
            return None
        return self._send(slot, self._take(), alone=False)

    def started(self, slot: Slot, number: int) -> None:
        """The worker has begun to execute a lonely request."""
        for frame in slot.frames:
            if number in frame.calls:
                frame.started = True

    def answered(self, slot: Slot, numbers: Sequence[int]) -> list[Call | None]:
        """Answers to these requests arrived; returns for each whom to give it to, None where nobody waits for it."""
        if slot.frames and not slot.frames[0].left and list(slot.frames[0].calls) == numbers:
            return list(slot.frames.pop(0).calls.values())
        wanted: list[Call | None] = []
        for number in numbers:
            for frame in slot.frames:
                call = frame.calls.pop(number, None)
                if call is not None:
                    break
            else:
                self.dropped += 1
                wanted.append(None)
                continue
            if not frame.calls:
                slot.frames.remove(frame)
            wanted.append(None if call.ended else call)
            call.ended = True
        return wanted

    def leave(self, slot: Slot) -> list[Failure]:
        """A worker is gone: its requests will be retried alone, or have failed."""
        if slot in self._slots:
            self._slots.remove(slot)
        frames, slot.frames = slot.frames, []
        failures = []
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
        for slot in self._slots:
            for frame in slot.frames:
                if number in frame.calls:
                    frame.left = True
                    return slot
        if call in self._waiting:
            self._waiting.remove(call)
            self._bytes -= len(call.body)
        elif call in self._alone:
            self._alone.remove(call)
        return None

    def expire(self, now: int) -> list[Call]:
        """The requests whose deadline has passed; they have ended."""
        late = [call for call in self._open() if 0 < call.deadline <= now]
        for call in late:
            self.cancel(call)
        return late

    def close(self) -> list[Call]:
        """End every open request; returns them."""
        calls = list(self._open())
        for call in calls:
            self.cancel(call)
        return calls

    def check(self) -> None:
        """Raise AssertionError where an invariant is broken (for simulation and tests)."""
        places = [*self._waiting, *self._alone]
        assert not any(call.ended for call in places), "only open requests wait"
        assert self._bytes == sum(len(call.body) for call in self._waiting), "waiting bytes are counted"
        for slot in self._slots:
            assert len(slot.frames) <= self._limits.frames, "frames in flight are capped"
            assert all(frame.calls for frame in slot.frames), "a frame in flight has open requests"
            if any(frame.alone for frame in slot.frames):
                assert len(slot.frames) == len(slot.frames[0].calls) == 1, "lonely means lonely"
            places += [call for frame in slot.frames for call in frame.calls.values()]
        assert len({call.id for call in places}) == len(places), "no request is in two places"
        assert sum(1 for slot in self._slots if slot.frames) <= self._limits.busy, "no more workers busy than allowed"
        if self._waiting or self._alone:
            assert self._free() is None or (not self._waiting and self._idle() is None), "no lost wake-up"

    def _open(self) -> Iterator[Call]:
        places: Iterable[Iterable[Call]] = (
            self._waiting,
            self._alone,
            *(frame.calls.values() for slot in self._slots for frame in slot.frames),
        )
        return (call for place in places for call in place if not call.ended)

    def _take(self) -> list[Call]:
        """The requests of the next frame, oldest first, within the caps."""
        waiting, limits = self._waiting, self._limits
        if len(waiting) <= limits.batch_requests and self._bytes <= limits.batch_bytes:
            self._waiting = []
            self._bytes = 0
            return waiting
        count, size = 0, 0
        for call in waiting[: limits.batch_requests]:
            if count and size + len(call.body) > limits.batch_bytes:
                break
            count += 1
            size += len(call.body)
        taken = waiting[:count]
        del waiting[:count]
        self._bytes -= size
        return taken

    def _send(self, slot: Slot, calls: list[Call], *, alone: bool) -> Send:
        slot.frames.append(Frame(calls, alone=alone))
        return Send(slot, calls, alone)

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
