"""How many workers of each release died, in a block of metrics that is the supervisor's own.

The keeper counts, since it outlives every follower; the follower writes, since it knows each release's slot.
"""

from __future__ import annotations

from collections.abc import Mapping

from salver import metrics


class Deaths:
    """The deaths of every release, as the keeper tells them, written to the cells of the slots."""

    def __init__(self, block: metrics.Block) -> None:
        self._block = block
        self._deaths: dict[str, int] = {}

    def told(self, release: str, deaths: int) -> None:
        """So many workers of this release have died."""
        self._deaths[release] = deaths

    def write(self, slots: Mapping[str, int]) -> None:
        """Write what is known; releases that share a slot are added up."""
        sums = dict.fromkeys(slots.values(), 0)
        for release, slot in slots.items():
            sums[slot] += self._deaths.get(release, 0)
        for slot, deaths in sums.items():
            self._block.cells[self._block.row(slot) + metrics.RELEASE_AT["salver_worker_deaths"]] = deaths
