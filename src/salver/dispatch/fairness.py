"""Whose turn it is when more waits than one frame holds: a queue per caller, served in turn by bytes.

Rule 1: a higher priority goes first, and is refused last.
Rule 2: callers of one priority get equal shares of the cost (bytes, and a little for each request), whoever asks more.
        Each caller has a tag that grows by what was served to it; the lowest tag is next. A caller that comes anew
        goes on at its own last tag, but no further back than a few requests behind the one that was served last: who
        asks less than their share may do so in bursts, and nobody saves up more than that.
Rule 3: where room must be made, the request goes that would be served last: the newest of the caller who has asked the
        most beyond their share. Only where there is no room at all does that hit one who has asked no more than it:
        that is one whose request would be served before what others were served lately.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

COST = 256
"""What a request costs beside its bytes, in bytes."""
BURST = 32
"""So many requests like its first may a caller who was away have served before the others' next."""
REMEMBERED = 1024
LATELY = 100_000_000
"""Nanoseconds, at least: what was served in them, and in one frame, says who asks beyond their share."""


class Queued(Protocol):
    """What can wait here: bytes of a caller, with a priority."""

    @property
    def body(self) -> bytes:
        """What is sent."""
        ...

    @property
    def key(self) -> str:
        """Whose it is."""
        ...

    @property
    def priority(self) -> int:
        """A higher one goes first."""
        ...


Item = TypeVar("Item", bound=Queued)


def cost(item: Queued) -> int:
    """What serving it counts, in bytes."""
    return len(item.body) + COST


class Lane(Generic[Item]):
    """What waits of one caller, oldest first."""

    __slots__ = ("cost", "items", "key", "priority", "tag")

    def __init__(self, key: str, priority: int, tag: int) -> None:
        self.key = key
        self.priority = priority
        self.tag = tag
        self.cost = 0
        self.items: deque[Item] = deque()

    @property
    def end(self) -> int:
        """Its tag when all that waits will have been served."""
        return self.tag + self.cost

    def __lt__(self, other: Lane[Item]) -> bool:
        """Whether it is served before the other."""
        return (-self.priority, self.tag) < (-other.priority, other.tag)


class Lanes(Generic[Item]):
    """Everything that waits, by caller and priority."""

    __slots__ = ("_before", "_heap", "_lanes", "_lately", "_past", "_since", "_tags", "bytes", "count")

    def __init__(self, items: Iterable[Item]) -> None:
        self._lanes: dict[tuple[int, str], Lane[Item]] = {}
        self._heap: list[Lane[Item]] = []  # may hold lanes that are empty, and then none of `_lanes`
        self._past: dict[tuple[int, str], int] = {}  # the tags of lanes that ran empty
        self._tags: dict[int, int] = {}  # the highest that was served, of each priority
        self._lately: dict[int, int] = {}  # the same, since `_since`
        self._before: dict[int, int] = {}  # and in the time of `LATELY` or more before
        self._since = 0
        self.count = 0
        self.bytes = 0
        for item in items:
            self.push(item)

    def __iter__(self) -> Iterator[Item]:
        return (item for lane in self._lanes.values() for item in lane.items)

    def __contains__(self, item: Item) -> bool:
        lane = self._lanes.get((item.priority, item.key))
        return lane is not None and item in lane.items

    def push(self, item: Item) -> None:
        """Let it wait behind its caller's others."""
        lane = self._lanes.get((item.priority, item.key))
        if lane is None:
            lane = self._lanes[item.priority, item.key] = Lane(item.key, item.priority, self._start(item))
            self._past.pop((item.priority, item.key), None)
            heappush(self._heap, lane)
        lane.items.append(item)
        lane.cost += cost(item)
        self.count += 1
        self.bytes += len(item.body)

    def take(self, most: int, most_bytes: float, now: int = 0) -> list[Item]:
        """The next items, at most so many and so many bytes, but at least one."""
        if now - self._since > LATELY:
            self._before, self._lately, self._since = self._lately, {}, now
        taken: list[Item] = []
        size = 0
        while self.count and len(taken) < most:
            lane = self._heap[0]
            if not lane.items:
                heappop(self._heap)
                continue
            item = lane.items[0]
            if taken and size + len(item.body) > most_bytes:
                break
            heappop(self._heap)
            self._tags[lane.priority] = max(lane.tag, self._tags.get(lane.priority, 0))
            self._lately[lane.priority] = max(lane.tag, self._lately.get(lane.priority, 0))
            lane.tag += cost(item)
            lane.items.popleft()
            self._left(lane, item)
            if lane.items:
                heappush(self._heap, lane)
            taken.append(item)
            size += len(item.body)
        return taken

    def remove(self, item: Item) -> None:
        """It waits no more."""
        lane = self._lanes[item.priority, item.key]
        lane.items.remove(item)
        self._left(lane, item)
        if len(self._heap) > 2 * len(self._lanes) + 16:
            self._heap = [each for each in self._heap if each.items]
            heapify(self._heap)

    def ahead(self, item: Item) -> float:
        """The share of what waits that will be served before it."""
        total = before = 0
        end = self._start(item) + cost(item)
        for lane in self._lanes.values():
            total += lane.cost
            if lane.priority > item.priority:
                before += lane.cost
            elif lane.priority == item.priority:
                before += min(lane.cost, max(0, end - lane.tag))
        return before / total if total else 0.0

    def behind(self, item: Item, enough: int) -> int:
        """The bytes of what would be served after it, of which no more than `enough` need to be counted."""
        end, size = self._start(item) + cost(item), 0
        for lane in self._lanes.values():
            at = lane.end
            for other in reversed(lane.items):
                if size >= enough or (-lane.priority, at) <= (-item.priority, end):
                    break
                at -= cost(other)
                size += len(other.body)
        return size

    def last(self, item: Item) -> tuple[Item, bool]:
        """What would be served last, `item` among it; and whether its caller has asked beyond their share."""
        start = self._start(item)
        last = max(self._lanes.values(), key=lambda lane: (-lane.priority, lane.end), default=None)
        if last is not None and (-last.priority, last.end) > (-item.priority, start + cost(item)):
            item = last.items[-1]
            start = last.end - cost(item)
        return item, start >= max(self._lately.get(item.priority, 0), self._before.get(item.priority, 0))

    def _start(self, item: Item) -> int:
        """The tag at which it would be served, behind its caller's others."""
        own = self._lanes.get((item.priority, item.key))
        if own is not None:
            return own.end
        return max(self._past.get((item.priority, item.key), 0), self._tags.get(item.priority, 0) - BURST * cost(item))

    def _left(self, lane: Lane[Item], item: Item) -> None:
        lane.cost -= cost(item)
        self.count -= 1
        self.bytes -= len(item.body)
        if not lane.items:
            del self._lanes[lane.priority, lane.key]
            if len(self._past) >= REMEMBERED:
                del self._past[next(iter(self._past))]
            self._past[lane.priority, lane.key] = lane.tag
