"""What to do as memory runs short: refuse large bodies, then everything; replace the worker that holds most.

    95 % of the budget → gateways refuse large bodies, and a worker is replaced, now and then one more;
                         where it belongs to a release that was only kept warm, that release goes
    98 %               → they answer only health and the admin port

The decisions are pure; `Watch` measures and has them done.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from salver.gateway.table import REFUSE_ALL, REFUSE_LARGE
from salver.limits import SCARCE_BODY
from salver.supervisor.cgroup import Held, groups
from salver.supervisor.reconcile import replaced
from salver.supervisor.state import State, all_releases

LEVELS = ((REFUSE_ALL, 0.98), (REFUSE_LARGE, 0.95))
"""The levels of pressure, and the share of the budget from which each holds."""
EASE = 0.02
"""How far the share must fall below that for the level to end; who holds less is not worth a replacement."""
LOOK = 0.5
"""Seconds between two measurements."""
PAUSE = 60.0
"""Seconds from one replacement to the next under the same pressure; each time twice as many."""
LONGEST_PAUSE = 3600.0
_REFUSED = {
    0: "every request is taken again",
    REFUSE_LARGE: f"bodies over {SCARCE_BODY >> 20} MiB are refused",
    REFUSE_ALL: "only health and the admin port answer",
}


class Budget(NamedTuple):
    """Where the budget comes from, in the words of the log, and what measures it; `read` says None for no budget."""

    name: str
    read: Callable[[], Held | None]


class Turn(NamedTuple):
    """When a worker may be replaced, on the monotonic clock, and the seconds from then to the next."""

    due: float = 0.0
    pause: float = PAUSE


def level_of(budget: int, used: int, last: int) -> int:
    """The level of pressure, after level `last`."""
    share = used / budget
    holds = (level for level, start in LEVELS if share >= start - (EASE if level <= last else 0.0))
    return next(holds, 0)


def turn_of(turn: Turn, level: int, now: float) -> tuple[bool, Turn]:
    """Whether a worker may be replaced now, and the turn after that.

    What was a different pressure before begins anew, but not within a pause.
    """
    if not level:
        return False, Turn(turn.due)
    if now < turn.due:
        return False, turn
    return True, Turn(now + turn.pause, min(LONGEST_PAUSE, 2 * turn.pause))


def heaviest(state: State, sizes: Mapping[str, int], least: float) -> str:
    """The proven worker that holds most, of those with `least` bytes or more; '' for none, or while one is replaced."""
    if state.draining or any(replaced(state, release) for release in all_releases(state)):
        return ""
    loaded = (release for release in all_releases(state) if release.phase == "loaded")
    names = [name for release in loaded for name in release.worker_names]
    worth = [name for name in names if sizes.get(name, 0) >= least and state.processes[name].ready]
    return max(worth, key=lambda name: sizes[name], default="")


def relieve(state: State, name: str) -> str:
    """Let another worker take the place of this one, and say so; a release that was only kept warm is let go.

    The other's number is one that the release has not.
    """
    release = next(release for release in all_releases(state) if name in release.worker_names)
    model, facts = state.models[release.model], release.facts
    if release.number != model.live:
        model.warm = None
        return f"{release.name}, which was kept warm, is let go"
    if facts is not None:
        indices = facts.indices or range(facts.workers)
        numbers = dict(zip(release.worker_names, indices, strict=True)) | {name: max(indices) + 1}
        release.facts = replace(facts, indices=tuple(numbers.values()))
    return f"salver.worker {name} is replaced"


def said(held: Held, name: str, level: int, done: str) -> str:
    """The line that tells people of it."""
    size = f"{held.limit / (1 << 20):.0f} MiB"
    text = f"memory: {100 * held.used // held.limit} % of {size} in use ({name}); {_REFUSED[level]}"
    return text + (f"; {done}" if done else "")


def private(pid: int | None) -> int:
    """Bytes of memory that a process shares with no other; 0 where the system does not say."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as facts:
            _, resident, shared = map(int, facts.read().split()[:3])
    except (OSError, ValueError):
        return 0
    return max(0, resident - shared) * os.sysconf("SC_PAGE_SIZE")


def budget_of(limit: int, pids: Callable[[], Iterable[int | None]]) -> Budget | None:
    """The budget: `limit` bytes for these processes, or where that is 0 what their control group allows, if it does."""
    if limit:
        return Budget("limits.memory", lambda: Held(limit, sum(map(private, pids()))))
    found = groups()
    return Budget("the control group", found.read) if found is not None and found.read() is not None else None


class Pressed(Protocol):
    """Who does what is decided."""

    def pressed(self, level: int, share: float) -> None:
        """So much of the budget is in use, and gateways should know this level of pressure."""
        ...

    def told(self, event: str, text: str) -> None:
        """Say one thing."""
        ...

    def settle(self) -> None:
        """Do what follows from the state."""
        ...


class Watch:
    """Looks at the memory in use while the server runs."""

    def __init__(self, budget: Budget, state: State, pressed: Pressed) -> None:
        self._budget = budget
        self._state = state
        self._pressed = pressed
        self._level = 0
        self._turn = Turn()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            held = self._budget.read()
            if held is not None:
                self.look(held, time.monotonic())
            await asyncio.sleep(LOOK)

    def look(self, held: Held, now: float) -> None:
        """Decide on what is held now."""
        level = level_of(held.limit, held.used, self._level)
        changed, self._level = level != self._level, level
        self._pressed.pressed(level, held.used / held.limit)
        done = self._relieve(held, now)
        if changed or done:
            self._pressed.told("memory", said(held, self._budget.name, level, done))
            self._pressed.settle()

    def _relieve(self, held: Held, now: float) -> str:
        """Have a worker replaced where it is time and helps; returns what is done, '' for nothing."""
        may, after = turn_of(self._turn, self._level, now)
        sizes = dict(self._sizes()) if may else {}
        worker = heaviest(self._state, sizes, EASE * held.limit)
        if may and not worker:
            return ""
        self._turn = after
        return relieve(self._state, worker) if worker else ""

    def _sizes(self) -> Iterator[tuple[str, int]]:
        for process in self._state.processes.values():
            yield process.name, private(process.pid)
