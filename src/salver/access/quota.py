"""Quotas: what a key owes, and whether it may go on. Pure; seconds come from a monotonic clock.

A quota is a leaky bucket: each use adds its cost to what the key owes, and `rate` of it drains away a second. A use
is allowed while it fits below `capacity`. So no stretch of t seconds gets more than `rate * t + capacity`, and a cost
that is known only afterwards, as that of rows, is a debt that is paid off before the next use.

Several gateways share a bucket without a lock. Each writes three cells that are its own: all it has ever charged, when
the bucket runs empty as it saw it last, and what the others had charged by then. Each of these views, plus what the
others have charged since, is at least the truth; the least of them is taken. Who restarts goes on with the same cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

CHARGED, EMPTY_AT, SEEN = range(3)
CELLS = 3


class Limit(NamedTuple):
    """Units a second, and how many at once after a rest."""

    rate: float
    capacity: float


class View(NamedTuple):
    """One gateway's cells of a bucket: units it charged ever, second at which it is empty, units seen of others."""

    charged: float
    empty_at: float
    seen: float


def limit(rate: float, burst: float) -> Limit:
    """The limit of `rate` units a second with `burst` seconds' worth at once, at least one unit."""
    return Limit(rate, max(rate * burst, 1.0))


def owed(views: Sequence[View], rate: float, now: float) -> float:
    """The units that are not yet drained."""
    total = sum([view.charged for view in views])
    return min([max(0.0, view.empty_at - now) * rate + (total - view.charged - view.seen) for view in views])


def wait(owes: float, bound: Limit, cost: float) -> float:
    """Seconds until a use of `cost` units is allowed; 0: it is now.

    A cost over the whole capacity is allowed when nothing is owed, and paid off afterwards.
    """
    over = owes + min(cost, bound.capacity) - bound.capacity
    return over / bound.rate if over > 1e-9 * bound.capacity else 0.0


def charge(views: Sequence[View], mine: int, rate: float, cost: float, now: float) -> View:
    """The cells of gateway `mine` after it charged `cost` units."""
    total = sum([view.charged for view in views])
    own = views[mine].charged
    return View(own + cost, now + (owed(views, rate, now) + cost) / rate, total - own)
