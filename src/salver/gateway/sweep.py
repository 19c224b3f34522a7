"""The deadlines of all connections, without a timer for each: they are looked at in rounds, a few at a time.

Thousands of slow clients may pass their deadline in the same moment; the requests of others go on between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from salver.gateway.front import Front, Timed

ROUND: Final = 0.5
"""Seconds from the beginning of a round to that of the next, and so the most that a cut may be late."""
STEP: Final = 500_000
"""Nanoseconds after which a step ends, with the connection it is at."""
PAUSE: Final = 0.001
"""Seconds between two steps of a round."""


class Sweep:
    """Cuts off the connections of some listeners that are past a deadline; `clock` is in monotonic nanoseconds."""

    def __init__(self, fronts: Sequence[Front], clock: Callable[[], int]) -> None:
        self._fronts = fronts
        self._clock = clock
        self._left: list[tuple[Front, list[Timed]]] = []
        self._began = 0

    def step(self) -> float:
        """Look at some connections; the seconds until the next step."""
        now = self._clock()
        if not self._left:
            self._began = now
            self._left = [(front, list(front.connections)) for front in self._fronts]
        ends = now + STEP
        while self._left:
            front, waiting = self._left[-1]
            while waiting:
                connection = waiting.pop()
                if connection not in front.connections:
                    continue  # closed since the round began
                connection.check_time(now)
                now = self._clock()
                if now >= ends:
                    return PAUSE
            self._left.pop()
        return max(PAUSE, ROUND - (now - self._began) * 1e-9)
