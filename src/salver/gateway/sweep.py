"""The deadlines of all connections, without a timer for each: they are looked at in rounds, a few at a time.

Thousands of slow clients may pass their deadline in the same moment. They are cut one after the other over the whole
round, so that what they do then comes spread as well, and the requests of others go on between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from salver.gateway.front import Front, Timed

ROUND: Final = 0.5
"""Seconds from the beginning of a round to that of the next, and so the most that a cut may be late."""
HASTE: Final = 0.02
"""The same while the server ends."""
AT_ONCE: Final = 50
"""Connections of a step, where their number does not ask for more than `STEPS`."""
STEPS: Final = 50
STEP: Final = 500_000
"""Nanoseconds after which a step ends, with the connection it is at."""
PAUSE: Final = 0.001
"""Seconds between two steps, at least."""


class Sweep:
    """Cuts off the connections of some listeners that are past a deadline; `clock` is in monotonic nanoseconds."""

    def __init__(self, fronts: Sequence[Front], clock: Callable[[], int]) -> None:
        self._fronts = fronts
        self._clock = clock
        self._left: list[tuple[Front, Timed]] = []
        self._began = 0
        self._steps = 0  # of this round, those that are done
        self._of = 1  # and how many it has, if none takes too long
        self.round = ROUND

    def step(self) -> float:
        """Look at some connections; the seconds until the next step."""
        now = self._clock()
        if not self._left:
            self._began, self._steps = now, 0
            self._left = [(front, connection) for front in self._fronts for connection in front.connections]
            self._of = max(1, min(STEPS, len(self._left) // AT_ONCE))
        ends = now + STEP
        keep = len(self._left) - -(-len(self._left) // max(1, self._of - self._steps))
        self._steps += 1
        while len(self._left) > keep:
            front, connection = self._left.pop()
            if connection in front.connections:  # it may have closed since the round began
                connection.check_time(now)
                now = self._clock()
                if now >= ends:
                    break
        if self._left and self._steps >= self._of:
            return PAUSE
        due = self._steps / self._of if self._left else 1.0
        return max(PAUSE, self.round * due - (now - self._began) * 1e-9)
