"""Promote and roll back: read the newest route, decide, create the next one. Nobody is overwritten unseen."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from salver.errors import SalverError, error
from salver.record import Release
from salver.route import Change, Route, next_route, rollback_target


class Routes(Protocol):
    """The part of a registry that a move needs."""

    def find(self, reference: str) -> Release:
        """The release of this name; raises `no-such-release` or `no-such-model`."""

    def history(self, model: str) -> list[Route]:
        """Every route the model ever had, oldest first."""

    def append_route(self, route: Route) -> None:
        """Put a route in force; raises `lost-race` where its number is taken."""


class Intent(NamedTuple):
    """Who wants the move, when (UTC, ISO 8601) and why.

    `seen` is the number of the route that the decision was made on: a move that comes after another one is refused.
    None decides on whatever is in force when the move is made.
    """

    actor: str
    at: str
    why: str = ""
    seen: int | None = None


def promote(registry: Routes, model: str, number: int, intent: Intent) -> Route:
    """Make a release live; the route that says so, which is the old one where the release is live already.

    Raises `no-such-release` with what there is instead, and `lost-race` naming who changed the route meanwhile.
    """
    registry.find(f"{model}@{number}")
    history = registry.history(model)
    _check_seen(model, history, intent)
    return _move(registry, model, history, Change(number, "promote", intent.actor, intent.at, intent.why))


def rollback(registry: Routes, model: str, intent: Intent, to: int | None = None) -> Route:
    """Go back to the previous distinct live release, or to `to`, which must have been live before.

    Raises `no-live-release`, `nothing-to-roll-back` and `lost-race`.
    """
    history = registry.history(model)
    if not history:
        raise error("no-live-release", f"{model} was never live", hint=f"salver promote {model}@N makes a release live")
    _check_seen(model, history, intent)
    target = rollback_target(history, to)
    return _move(registry, model, history, Change(target, "rollback", intent.actor, intent.at, intent.why))


def _move(registry: Routes, model: str, history: list[Route], change: Change) -> Route:
    current = history[-1] if history else None
    if current is not None and current.live == change.live and current.canary is None and not current.shadow:
        return current
    route = next_route(model, current, change)
    try:
        registry.append_route(route)
    except SalverError as problem:
        if problem.code != "lost-race":
            raise
        newest = registry.history(model)
        if not newest or newest[-1].seq < route.seq:
            raise
        if newest[-1].live == change.live:
            return newest[-1]
        raise _lost(newest[-1]) from None
    return route


def _check_seen(model: str, history: list[Route], intent: Intent) -> None:
    newest = history[-1].seq if history else 0
    if intent.seen is not None and intent.seen != newest:
        if history and newest > intent.seen:
            raise _lost(history[-1])
        raise error("lost-race", f"{model} has no route {intent.seen}; the newest is {newest}", hint="look again")


def _lost(winner: Route) -> SalverError:
    return error(
        "lost-race",
        f"{winner.model} was changed meanwhile: {winner.actor} made {winner.model}@{winner.live} live"
        f" ({winner.action}, route {winner.seq}, {winner.at})",
        hint="look at it again and decide anew",
    )
