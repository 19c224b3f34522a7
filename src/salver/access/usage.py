"""The shared memory of quotas: one block of cells per process that charges, owned by the supervisor, outliving them."""

from __future__ import annotations

import mmap

from salver.access import quota
from salver.access.quota import Limit, View

RESOURCES = ("requests", "bytes", "rows")
SLOTS = 1 << 14
CELL = 8
_SLOT_CELLS = len(RESOURCES) * quota.CELLS
BLOCK_CELLS = SLOTS * _SLOT_CELLS
BLOCK_BYTES = BLOCK_CELLS * CELL
"""Untouched pages of it take no memory."""


class Usage:
    """What every key has used, over all processes; this one is number `mine` of `writers`."""

    def __init__(self, descriptor: int, writers: int, mine: int) -> None:
        self._cells = memoryview(mmap.mmap(descriptor, writers * BLOCK_BYTES)).cast("B").cast("d")
        self._starts = [writer * BLOCK_CELLS for writer in range(writers)]
        self._mine = mine

    def wait(self, place: int, bound: Limit, cost: float, now: float) -> float:
        """Seconds until the bucket at `place` takes `cost` units; 0: now."""
        return quota.wait(quota.owed(self._views(place), bound.rate, now), bound, cost)

    def charge(self, place: int, bound: Limit, cost: float, now: float) -> None:
        """Charge `cost` units to the bucket at `place`."""
        view = quota.charge(self._views(place), self._mine, bound.rate, cost, now)
        at = self._starts[self._mine] + place
        # `seen` last: who reads in between counts the others' charges twice rather than never.
        self._cells[at + quota.CHARGED] = view.charged
        self._cells[at + quota.EMPTY_AT] = view.empty_at
        self._cells[at + quota.SEEN] = view.seen

    def _views(self, place: int) -> list[View]:
        cells = self._cells
        return [View(*cells[start + place : start + place + quota.CELLS]) for start in self._starts]


def place(slot: int, resource: str) -> int:
    """Where in a block the bucket of a slot's resource begins."""
    return slot * _SLOT_CELLS + RESOURCES.index(resource) * quota.CELLS
