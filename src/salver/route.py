"""Who gets the traffic of a model: one numbered entry of an append-only list, and the pure moves on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from salver.errors import error

_RETREATS = ("rollback", "fallback")


class Canary(Struct, frozen=True):
    """A release that gets a share (0 to 1) of the traffic."""

    release: int
    share: float


class Route(Struct, frozen=True, omit_defaults=True):
    """Entry `seq` of a model's route list: the whole route, who wrote it, when (UTC, ISO 8601) and why.

    `live` is the number of the release that answers. `action` says which move made the entry: `first`, `promote`,
    `rollback` or `fallback` (written by a server, actor `automatic`). `evidence` is free-form.
    """

    model: str
    seq: int
    live: int
    actor: str
    at: str
    action: str
    why: str = ""
    canary: Canary | None = None
    shadow: tuple[int, ...] = ()
    evidence: dict[str, Any] = {}


class Change(Struct, frozen=True):
    """What the next entry of a route list is to say; its model and number come from the list."""

    live: int
    action: str
    actor: str
    at: str
    why: str = ""
    canary: Canary | None = None
    shadow: tuple[int, ...] = ()
    evidence: dict[str, Any] = {}


def next_route(model: str, current: Route | None, change: Change) -> Route:
    """The entry that follows `current`; creating it loses the race if somebody else's follows `current` already."""
    return Route(model=model, seq=current.seq + 1 if current else 1, **msgspec.structs.asdict(change))


def arms(route: Route) -> list[int]:
    """The numbers of all releases that a route sends traffic to: live, canary, shadows."""
    return [route.live, *([route.canary.release] if route.canary else []), *route.shadow]


def previous_live(history: Sequence[Route]) -> int | None:
    """The live release before the current one that differs from it, or None.

    A release that was itself left by a rollback or fallback is not a release to go back to.
    """
    if not history:
        return None
    current = history[-1].live
    left: set[int] = set()
    for later, earlier in zip(reversed(history), reversed(history[:-1]), strict=False):
        if later.action in _RETREATS:
            left.add(earlier.live)
        if earlier.live != current and earlier.live not in left:
            return earlier.live
    return None


def rollback_target(history: Sequence[Route], to: int | None = None) -> int:
    """The release a rollback goes to: `to` if it was ever live, else the previous distinct live release."""
    model = history[-1].model if history else "?"
    if not history:
        raise error("no-live-release", f"{model} was never live", hint="promote a release first")
    lived = sorted({route.live for route in history})
    if to is not None:
        if to not in lived:
            raise error(
                "nothing-to-roll-back",
                f"{model}@{to} was never live",
                hint=f"releases that were: {', '.join(map(str, lived))}",
            )
        return to
    target = previous_live(history)
    if target is None:
        current = history[-1].live
        others = [f"{model}@{number}" for number in lived if number != current]
        if others:
            raise error(
                "nothing-to-roll-back",
                f"nothing but {', '.join(others)} was live besides {model}@{current}, and that was rolled back",
                hint="use --to N to go there all the same",
            )
        raise error(
            "nothing-to-roll-back",
            f"{model}@{current} is the only release of {model} that was ever live",
            hint="promote another release first",
        )
    return target
