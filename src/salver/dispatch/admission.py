"""How long a new request will wait, learnt from the frames that were answered, and whether that is too long.

    seconds of a frame  =  a  +  b · bytes        fitted to the last frames, each counting 0.9 of the next

Rule 1: what has not been seen is assumed to be fast: while nothing was measured, nothing is refused.
Rule 2: a request that would end after its deadline is refused at once, not when the deadline has passed.
Rule 3: a queue may fill for a moment. Once it has stood for 100 ms, a new request may only join it where it would
        wait for one frame at most, or so short that nobody minds; that keeps every worker busy with full frames, the
        wait short, and what must be worked off small once the load has dropped.
"""

from __future__ import annotations

from typing import NamedTuple

STANDING = 100_000_000
PERMITTED = 1.0
SHORT = 0.05
"""Seconds of waiting that nobody minds: thousands of callers may ask a fast model in turns."""
DEVIATIONS = 2.0
FIRST = 8
LEARN_EVERY = 20_000_000
SLOW = 0.005
LONGEST_RETRY = 30
WORTH = 9.0
"""A frame in which the rows take so many times what a call costs by itself loses a tenth against the largest."""
VARIED = 0.05
"""The variance of frame sizes, by their mean squared, from which on it shows what a call costs by itself."""


class Line:
    """A straight line through the last frames, each counting `keep` of the next; `loose` flattens what is uncertain."""

    __slots__ = ("_keep", "_loose", "_sums", "fixed", "per_byte", "variety")

    def __init__(self, keep: float, loose: float) -> None:
        self._keep = keep
        self._loose = loose
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)  # weights, bytes, bytes², seconds, bytes · seconds
        self.fixed = 0.0
        self.per_byte = 0.0
        self.variety = 0.0

    def learn(self, size: int, seconds: float) -> None:
        """A frame of so many bytes was answered after so many seconds."""
        keep = self._keep
        n, x, xx, y, xy = self._sums
        n, x, xx = keep * n + 1.0, keep * x + size, keep * xx + size * size
        y, xy = keep * y + seconds, keep * xy + size * seconds
        self._sums = (n, x, xx, y, xy)
        mean, usual = x / n, y / n
        spread = max(0.0, xx / n - mean * mean)
        slope = max(0.0, (xy / n - mean * usual) / (spread + self._loose * mean * mean + 1.0))
        self.variety = spread / (mean * mean + 1.0)
        self.fixed = usual - slope * mean
        if self.fixed < 0.0:
            self.fixed, slope = 0.0, usual / mean
        self.per_byte = slope


class Pace:
    """How long frames take, by the last ones, how far they are off that, and what a call costs, by many."""

    __slots__ = ("_deviation", "_last", "_long")

    def __init__(self) -> None:
        self._last = Line(0.9, 0.01)
        self._long = Line(0.99, 0.001)
        self._deviation: float | None = None

    def learn(self, size: int, seconds: float) -> None:
        """A frame of so many bytes was answered after so many seconds."""
        if self._deviation is None:
            self._deviation = 0.0
        else:
            self._deviation += (abs(seconds - self.seconds(size)) - self._deviation) / 8
        self._last.learn(size, seconds)
        self._long.learn(size, seconds)

    def seconds(self, size: float) -> float:
        """How long a frame of so many bytes takes; 0 while nothing is known."""
        return self._last.fixed + self._last.per_byte * size

    def worth(self) -> float:
        """The bytes beyond which a larger frame is hardly any cheaper for each request; infinite while unknown."""
        line = self._long
        return WORTH * line.fixed / line.per_byte if line.per_byte else float("inf")

    def is_vague(self) -> bool:
        """Whether the frames were too much alike to tell what a call costs by itself."""
        return self._long.variety < VARIED

    def at_most(self, size: float) -> float:
        """How long nearly every frame of so many bytes takes."""
        return self.seconds(size) + DEVIATIONS * (self._deviation or 0.0)


class Backlog(NamedTuple):
    """What is ahead of a new request: full frames (a broken number), workers that take them, whether all are busy."""

    frames: float
    bytes: int
    parallel: int
    busy: bool

    @property
    def frame_bytes(self) -> float:
        """The bytes of each frame."""
        return self.bytes / max(1.0, self.frames)


def wait(backlog: Backlog, pace: Pace) -> float:
    """Seconds until all of it has been sent."""
    ahead = int(backlog.frames) + 0.5 * backlog.busy
    return ahead * pace.seconds(backlog.frame_bytes) / backlog.parallel


def too_long(backlog: Backlog, pace: Pace, stood: int) -> bool:
    """Whether the queue, which has not been empty for `stood` nanoseconds, may not grow."""
    return stood > STANDING and wait(backlog, pace) > max(PERMITTED * pace.seconds(backlog.frame_bytes), SHORT)


def misses(backlog: Backlog, pace: Pace, left: int, share: float) -> bool:
    """Whether a request with `left` nanoseconds to its deadline would miss it behind this share of the backlog.

    The workers may all have begun just now.
    """
    rounds = int(backlog.frames * share) // backlog.parallel + backlog.busy
    return rounds * pace.seconds(backlog.frame_bytes) + pace.at_most(backlog.frame_bytes) > left * 1e-9


def retry_after(seconds: float, chance: float) -> int:
    """Whole seconds after which to ask again where the wait is `seconds` now; `chance` (0 to 1) spreads callers."""
    most = min(LONGEST_RETRY, max(2, int(2 * seconds) + 1))
    return 1 + int(chance * most) if chance < 1.0 else most
