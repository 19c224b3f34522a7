"""The facts that `list`, `show` and `history` print, as plain data."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, to_builtins

from salver.record import Provenance, Release
from salver.registry import Registry
from salver.release import Manifest
from salver.route import Route


class ModelFacts(Struct, frozen=True):
    """One model: its live release, how many it has, when the last was published and by whom."""

    name: str
    live: str | None
    releases: int
    published: str
    by: str


class ReleaseFacts(Struct, frozen=True):
    """One release: `live`, `was live` or '' as its state, and where it came from."""

    name: str
    state: str
    published: str
    by: str
    commit: str
    note: str
    id: str


class ReleaseDetails(Struct, frozen=True):
    """Everything known of one release."""

    name: str
    id: str
    state: str
    provenance: Provenance
    manifest: Manifest


def model_facts(store: Registry, model: str) -> ModelFacts:
    """The facts of one model."""
    releases = store.releases(model)
    route = store.current(model)
    last = releases[-1].provenance
    return ModelFacts(model, f"{model}@{route.live}" if route else None, len(releases), last.at, last.actor)


def release_facts(store: Registry, model: str) -> list[ReleaseFacts]:
    """The facts of all releases of a model, newest first."""
    history = store.history(model)
    return [
        ReleaseFacts(
            release.name, state_of(release, history), release.provenance.at, release.provenance.actor,
            commit_of(release.provenance), release.provenance.note, release.id,
        )
        for release in reversed(store.releases(model))
    ]  # fmt: skip


def state_of(release: Release, history: list[Route]) -> str:
    """Whether a release is live, or was."""
    if history and history[-1].live == release.number:
        return "live"
    return "was live" if any(route.live == release.number for route in history) else ""


def commit_of(provenance: Provenance) -> str:
    """The git commit, short, with a word where the working tree had changes."""
    dirty = " with changes" if provenance.git_dirty else ""
    return provenance.git_commit[:10] + dirty if provenance.git_commit else ""


def provenance_facts(provenance: Provenance) -> list[tuple[str, Any]]:
    """Who published a release, when and from what, as names and values."""
    by = f"{provenance.actor} on {provenance.host}" if provenance.host else provenance.actor
    return [
        ("published", f"{provenance.at} by {by}"),
        ("note", provenance.note),
        ("commit", commit_of(provenance)),
        ("script", provenance.script),
        ("salver", provenance.salver),
        ("proof", "not reproduced in the locked environment (--no-proof)" if provenance.unproven else ""),
    ]


def plain(value: Any) -> Any:
    """A struct as mappings and lists with every field, also those that have their default."""
    if isinstance(value, Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else to_builtins(value)
