"""What waits for a worker: who may come in, and who goes next.

Rule 1: while no more waits than one frame holds, neither callers nor order matter: the next frame takes all.
Rule 2: beyond that, and where several callers wait, `fairness` says who is next and whose request makes room.
Rule 3: beyond that, `admission` says whether a new request would wait too long.
Rule 4: where callers share, a frame is no larger than pays: who comes anew waits for the one that is being answered.
        What pays shows where frames differ in size; where they don't, one now and then is a quarter of that, but not
        while what waits is only a burst.
Rule 5: a refusal costs the same however large the body is.
Rule 6: while the wait is one that nobody minds, one closer look does for a quarter of a frame of requests of the same
        caller with no less time each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from salver.dispatch.admission import SHORT, SLOW, STANDING, Backlog, Pace, misses, too_long, wait
from salver.dispatch.call import Call, Failure, Limits
from salver.dispatch.fairness import Lanes


class Queue:
    """The requests of one release that wait. `load` says how many workers take frames at once, and if all are busy."""

    __slots__ = (
        "_alike",
        "_easy",
        "_limits",
        "_load",
        "_most",
        "_pace",
        "_same",
        "_stands",
        "_until",
        "bytes",
        "lanes",
        "waiting",
    )

    def __init__(self, limits: Limits, load: Callable[[], tuple[int, bool]]) -> None:
        self._limits = limits
        self._load = load
        self._pace = Pace()
        self.waiting: list[Call] = []  # empty while there are lanes
        self.lanes: Lanes[Call] | None = None  # there while several callers wait
        self._easy = min(limits.batch_requests, limits.queue_requests)  # so many may wait without a closer look
        self._same = 0  # so many of the first in `waiting` are known to be of one caller
        self._stands = 0  # since when there has been as much as went into a frame, or more; 0: not
        self._most = limits.queue_bytes
        self._alike: Call | None = None  # the last that a closer look let in, since the last frame was taken
        self._until = 0  # so many may wait before the next look at one like it
        self.bytes = 0

    def __iter__(self) -> Iterator[Call]:
        return iter(self.waiting if self.lanes is None else self.lanes)

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self.waiting) if self.lanes is None else self.lanes.count

    def offer(self, call: Call) -> Sequence[Failure]:
        """Take a request in; returns what ends now because too much waits: this one, or others for its sake."""
        waiting = self.waiting
        size = self.bytes + len(call.body)
        if len(waiting) >= self._easy or size > self._most:
            return self._crowded(call)
        waiting.append(call)
        self.bytes = size
        return ()

    def take(self, now: int, *, watched: bool = False) -> list[Call]:
        """The requests of the next frame, within the caps of one; `watched` says that its time is measured."""
        waiting, limits = self.waiting, self._limits
        self._alike = None
        if self.lanes is not None:
            probe = watched and now - self._stands > STANDING and self._pace.is_vague()
            return self._share(self.lanes, 4 if probe else 1, now)
        if len(waiting) <= limits.batch_requests and self.bytes <= limits.batch_bytes:
            self.waiting = []
            self.bytes = self._same = 0
            if len(waiting) < limits.batch_requests:
                self._stands = 0
            return waiting
        count, size = 0, 0
        for call in waiting[: limits.batch_requests]:
            if count and size + len(call.body) > limits.batch_bytes:
                break
            count += 1
            size += len(call.body)
        taken = waiting[:count]
        del waiting[:count]
        self.bytes -= size
        self._same = max(0, self._same - count)
        self._stands = self._stands or now
        return taken

    def remove(self, call: Call) -> None:
        """It waits no more, if it did."""
        if self.lanes is not None:
            if call in self.lanes:
                self._drop(call, self.lanes)
                self._merge()
        elif call in self.waiting:
            self.waiting.remove(call)
            self.bytes -= len(call.body)
            self._same = 0

    def learn(self, size: int, seconds: float) -> None:
        """A frame of so many bytes took so many seconds."""
        self._pace.learn(size, seconds)
        self._set_easy()

    def wait(self) -> float:
        """Seconds that a request would wait now, behind all that does."""
        backlog = self._backlog()
        return wait(backlog, self._pace) if backlog.parallel else 0.0

    def check(self) -> None:
        """Raise AssertionError where an invariant is broken (for simulation and tests)."""
        lanes = self.lanes
        assert self.bytes == sum([len(call.body) for call in self]), "waiting bytes are counted"
        assert self.count <= self._limits.queue_requests, "waiting requests are capped"
        assert self.bytes <= self._limits.queue_bytes, "waiting bytes are capped"
        if lanes is None:
            assert len({call.key for call in self.waiting[: self._same]}) <= 1, "one caller"
        else:
            assert not self.waiting, "either one queue or a lane for each caller"
            assert self.count == len(list(lanes)) > 0, "lanes are counted, and in use"

    def _crowded(self, call: Call) -> Sequence[Failure]:
        """Take a request in, if it may wait, where that needs a closer look."""
        if self._alike is not None and self._is_like(call, self._alike):
            self._push(call)
            return ()
        lanes = self._split(call)
        late = short = False
        if call.started:
            backlog = self._backlog()
            if backlog.parallel:
                share = 1.0 if lanes is None else lanes.ahead(call)
                if call.deadline and misses(backlog, self._pace, call.deadline - call.started, share):
                    return (Failure(call, "would-miss-deadline"),)
                late = too_long(backlog, self._pace, call.started - self._since(call))
                if late and lanes is not None:
                    _, late = lanes.last(call)
                short = lanes is None and wait(backlog, self._pace) <= SHORT
        if not late and self._fits(call):
            self._push(call)
            if short:
                self._alike, self._until = call, len(self.waiting) + self._limits.batch_requests // 4
            return ()
        if lanes is None:
            return (Failure(call, "overloaded"),)
        return self._make_room(call, lanes, len(call.body) if late else 0)

    def _is_like(self, call: Call, other: Call) -> bool:
        """Whether what a closer look found of the other holds for this one too."""
        return (
            len(self.waiting) < self._until
            and call.key == other.key
            and call.priority == other.priority
            and (not call.deadline or call.deadline - call.started >= other.deadline - other.started > 0)
            and self._fits(call)
        )

    def _make_room(self, call: Call, lanes: Lanes[Call], least: int) -> list[Failure]:
        """End what would be served last, at least so many bytes as far as it comes after this one, until this one fits.

        Nothing ends for one that would not get in even so.
        """
        failures: list[Failure] = []
        left = self.bytes - least
        spare = self._limits.queue_bytes - len(call.body)
        needed = max(least, self.bytes - spare)
        if spare < 0 or (lanes.ahead(call) and lanes.behind(call, needed) < needed):
            self._merge()
            return [Failure(call, "overloaded")]
        while not failures or self.bytes > left or not self._fits(call):
            other, beyond = lanes.last(call)
            if not beyond and self._fits(call):
                break
            if other is call:
                if failures and self._fits(call):
                    break
                self._merge()
                return [*failures, Failure(call, "overloaded")]
            self._drop(other, lanes)
            other.ended = True
            failures.append(Failure(other, "overloaded"))
        self._push(call)
        return failures

    def _share(self, lanes: Lanes[Call], parts: int, now: int) -> list[Call]:
        """A frame no larger than pays, or one of so many parts of it."""
        limits = self._limits
        size = min(limits.batch_bytes, self._pace.worth())
        taken = lanes.take(max(1, limits.batch_requests // parts), size / parts, now)
        self.bytes = lanes.bytes
        self._merge()
        return taken

    def _since(self, call: Call) -> int:
        """Since when the queue has not been empty."""
        return self._stands or (self.waiting[0].started if self.waiting else call.started)

    def _fits(self, call: Call) -> bool:
        limits = self._limits
        return self.count < limits.queue_requests and self.bytes + len(call.body) <= limits.queue_bytes

    def _push(self, call: Call) -> None:
        if self.lanes is None:
            self.waiting.append(call)
        else:
            self.lanes.push(call)
        self.bytes += len(call.body)

    def _drop(self, call: Call, lanes: Lanes[Call]) -> None:
        lanes.remove(call)
        self.bytes -= len(call.body)

    def _split(self, call: Call) -> Lanes[Call] | None:
        """A lane for each caller, from the moment that more than one waits."""
        waiting = self.waiting
        if self.lanes is None and waiting:
            key, priority = call.key, call.priority
            news = waiting[max(0, self._same - 1) :]
            if all(other.key == key and other.priority == priority for other in news):
                self._same = len(waiting)
            else:
                self.lanes = Lanes(waiting)
                self._stands = self._stands or waiting[0].started
                self.waiting = []
                self._easy = 0
        return self.lanes

    def _merge(self) -> None:
        """Back to one queue, where nothing waits any more."""
        if self.lanes is not None and not self.lanes.count:
            self.lanes = None
            self._same = self._stands = 0
            self._set_easy()

    def _set_easy(self) -> None:
        """A frame's worth may wait without a closer look, but only one request behind a frame that takes long."""
        limits = self._limits
        if self.lanes is None:
            slow = self._pace.seconds(0) > SLOW
            self._easy = min(1 if slow else limits.batch_requests, limits.queue_requests)

    def _backlog(self) -> Backlog:
        limits = self._limits
        frames = max(self.count / limits.batch_requests, self.bytes / limits.batch_bytes)
        return Backlog(frames, self.bytes, *self._load())
