"""What the keeper remembers for the follower, so that a new follower goes on where the last one stopped."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
from msgspec import Struct

from salver.gateway.table import Table
from salver.supervisor.state import SLOTS, Facts, Model, Release, State, all_releases


class Served(Struct, frozen=True):
    """One model: what is live and warm, and the newest route in force."""

    live: int | None
    warm: int | None
    seq: int


class Note(Struct, frozen=True):
    """The last table, the facts of every release in it and of those that left it, and what it means for each model."""

    table: Table
    facts: tuple[Facts, ...]
    leaving: tuple[Facts, ...]
    models: dict[str, Served]
    slots: dict[str, int]


def note(state: State) -> Any:
    """The note of this state, as plain JSON values."""
    loaded, leaving = (
        tuple(release.facts for release in all_releases(state) if release.facts and release.phase == phase)
        for phase in ("loaded", "leaving")
    )
    models = {model.name: Served(model.live, model.warm, model.seq) for model in state.models.values()}
    return msgspec.to_builtins(Note(state.table, loaded, leaving, models, state.slots))


def recall(state: State, remembered: Any, now: float) -> None:
    """Take up a note, if there is one; routes are not part of it, they are read again.

    A gateway that connects again confirms its table at once, though it may still have requests on a release that left
    it: such a release keeps its workers for as long as requests may take.
    """
    if remembered is None:
        return
    known = msgspec.convert(remembered, Note)
    state.table = known.table
    state.published_at = now
    for name, served in known.models.items():
        state.models[name] = Model(name, live=served.live, warm=served.warm, seq=served.seq, announced=served.live)
    for facts in known.facts:
        _add(state, Release(facts.loaded.model, facts.loaded.number, "loaded", now, now, facts))
    for facts in known.leaving:
        _add(state, Release(facts.loaded.model, facts.loaded.number, "leaving", now, now, facts, left_at=now))
    names = {facts.loaded.release for facts in (*known.facts, *known.leaving)}
    state.slots = {name: slot for name, slot in known.slots.items() if name in names}
    state.free_slots = deque(slot for slot in range(SLOTS) if slot not in set(state.slots.values()))


def _add(state: State, release: Release) -> None:
    state.models[release.model].releases[release.number] = release
