"""Gives memory that large bodies took back to the system, where the C library keeps it: glibc on Linux."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

LARGE = 1 << 20
PAUSE = 1.0


def _trimmer() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim if sys.platform == "linux" else None
    except (OSError, AttributeError):  # another C library
        return None


class Heap:
    """What a loop asks between two turns: at most once a second, and only where something large came, memory goes back.

    `trim` gives back what is free; `clock` is in seconds.
    """

    def __init__(self, trim: Callable[[int], int] | None, clock: Callable[[], float]) -> None:
        self.swollen = False
        self._trim = trim
        self._clock = clock
        self._due = 0.0

    def took(self, size: int) -> None:
        """So many bytes have come."""
        if size > LARGE:
            self.swollen = True

    def give_back(self) -> None:
        """Give back what is free now; does nothing where nothing large came, or within a second of the last time."""
        if not self.swollen or self._trim is None:
            return
        now = self._clock()
        if now >= self._due:
            self._trim(0)
            self.swollen = False
            self._due = now + PAUSE


HEAP = Heap(_trimmer(), time.monotonic)
"""The one of this process."""
