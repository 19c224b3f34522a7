"""When a child that died may start again, and when a release has died too often. Pure: time and chance are arguments.

A death from outside (killed though it works) or one that the worker had announced as a risk (a request that runs alone
because it may have killed a worker before) is nobody's fault and is not counted; after some health the child starts
again at once.
"""

from __future__ import annotations

import signal
from typing import NamedTuple

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
HEALTHY = 60.0
OUTSIDE_AFTER = 1.0
WINDOW = 60.0
MOST_DEATHS = 5
_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)


class Death(NamedTuple):
    """One death: when, how long the child had been ready (None: never), by which signal (0: it exited), and how.

    `worked` says that it had been ready in this life or one before; `alone` that it was executing a suspected request
    alone; `refused` that it said itself that it can't serve.
    """

    at: float
    ready_for: float | None
    signal: int = 0
    worked: bool = False
    alone: bool = False
    refused: bool = False

    @property
    def from_outside(self) -> bool:
        """Whether something else killed a child that works. While it never worked, it may need too much memory."""
        return self.signal in _OUTSIDE and self.worked


class Breaker(NamedTuple):
    """The deaths of one release in the last minute, and since when it only restarts slowly (None: it doesn't)."""

    deaths: tuple[float, ...] = ()
    opened: float | None = None


def next_delay(failures: int, death: Death, opened: bool, chance: float) -> tuple[int, float]:
    """The new count of failures in a row, and the seconds to wait before the child starts again.

    `chance` is uniform in [0, 1): a wait is between half and all of its step, so that children don't start in step.
    """
    healthy = death.ready_for is not None and death.ready_for >= OUTSIDE_AFTER
    if death.alone or (death.from_outside and healthy):
        return 0, FIRST_DELAY * (0.5 + chance / 2)
    if death.ready_for is not None and death.ready_for >= HEALTHY:
        failures = 0
    step = LONGEST_DELAY if opened or death.refused else min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures, 20))
    return failures + 1, step * (0.5 + chance / 2)


def count(breaker: Breaker, death: Death) -> Breaker:
    """The breaker after a death.

    A death while alone shows that the one before it had the same cause, a request: that one is taken back.
    """
    if death.alone:
        return breaker._replace(deaths=breaker.deaths[:-1])
    if death.from_outside:
        return breaker
    deaths = (*(at for at in breaker.deaths if death.at - at < WINDOW), death.at)
    opened = breaker.opened if breaker.opened is not None or len(deaths) < MOST_DEATHS else death.at
    return Breaker(deaths[-MOST_DEATHS:], opened)


def healed(breaker: Breaker, ready_for: float) -> Breaker:
    """The breaker while a worker of the release has been ready for so long."""
    return Breaker() if breaker.opened is not None and ready_for >= HEALTHY else breaker
