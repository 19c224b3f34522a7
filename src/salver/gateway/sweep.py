"""The deadlines of all connections, without a timer for each: a few of those that are due are looked at together.

Thousands of slow clients may pass their deadline in the same moment. They are cut one after the other over the whole
round, so that what they do then comes spread as well, and the requests of others go on between two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

ROUND: Final = 0.25
"""Seconds from the beginning of a round to that of the next; a cut may be late by two of them."""
HASTE: Final = 0.02
"""The same while the server ends: then each round is that of all connections."""
RATE: Final = 100
"""Steps a second, at most: each looks at one connection, or at as many as that takes."""
TURN: Final = 50_000
"""Nanoseconds after which a step lets others have their turn, with the connection it is at, and goes on behind them."""
PAUSE: Final = 0.001
"""Seconds between two steps, at least."""
_ROUND_NS: Final = int(ROUND * 1e9)


class Timed(Protocol):
    """A connection, as far as the sweep needs to know it."""

    def check_time(self, now: int) -> int:
        """Cut the connection off where it is past a deadline; the moment from which it wants to be looked at again.

        Both are in monotonic nanoseconds.
        """
        ...


class Sweep:
    """Looks at connections when they are due; `clock` is in monotonic nanoseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._rounds: dict[int, set[Timed]] = {}  # by their number: the time divided by that of a round
        self._round_of: dict[Timed, int] = {}
        self._left: list[Timed] = []  # of this round
        self._began = 0
        self._steps = 0  # of this round, those that are done
        self._of = 1  # and how many it has
        self._keep = 0  # how many connections the step leaves to later ones
        self.round = ROUND

    def watch(self, connection: Timed, due: int) -> None:
        """Look at a connection in the first round that begins after `due`, and not before."""
        self.forget(connection)
        number = self._round_of[connection] = due // _ROUND_NS + 1
        self._rounds.setdefault(number, set()).add(connection)

    def forget(self, connection: Timed) -> None:
        """It has closed."""
        number = self._round_of.pop(connection, None)
        if number in self._rounds:
            self._rounds[number].discard(connection)

    def step(self) -> float:
        """Look at some connections; the seconds until the next time, 0 to let others have their turn."""
        now = self._clock()
        if not self._left:
            self._began, self._left = self._due(now)
            self._of = max(1, min(int(self.round * RATE), len(self._left)))
            self._steps, self._keep = 0, len(self._left)
        if len(self._left) <= self._keep:
            self._keep = len(self._left) - -(-len(self._left) // max(1, self._of - self._steps))
            self._steps += 1
        ends = now + TURN
        while len(self._left) > self._keep and now < ends:
            connection = self._left.pop()
            if connection in self._round_of:  # it may have closed since the round began
                due = connection.check_time(now)
                now = self._clock()
                if connection in self._round_of:
                    self.watch(connection, due)
        if len(self._left) > self._keep:
            return 0.0
        share = self._steps / self._of if self._left else 1.0
        return max(PAUSE, self.round * share - (now - self._began) * 1e-9)

    def _due(self, now: int) -> tuple[int, list[Timed]]:
        """When the round began that is now, and its connections."""
        if self.round == HASTE:
            return now, list(self._round_of)
        last = now // _ROUND_NS
        due = [each for number in sorted(self._rounds) if number <= last for each in self._rounds.pop(number)]
        return last * _ROUND_NS, due
