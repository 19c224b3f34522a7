"""`salver.release`, step by step: build the folder, prove it, put it into the registry, route the first release."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from salver.errors import SalverError
from salver.publish.building import Built, build
from salver.publish.provenance import gather
from salver.publish.request import Outcome, ReleaseRequest, require_usable
from salver.publish.staging import Staged
from salver.record import Release
from salver.registry import Registry
from salver.release import check_name
from salver.route import Change, next_route


class Remake(Protocol):
    """Makes another release from a proven one: an accelerated one."""

    def check(self, staged: Staged) -> None:
        """Raise what forbids it, before the release is proven."""

    def remake(self, built: Built, folder: Path) -> Built:
        """Make the other release in the empty `folder`."""


def release_model(request: ReleaseRequest, registry: Registry, remake: Remake | None = None) -> Outcome:
    """Turn a model object into a published release.

    The same model, code, packages and examples give the same release again, with `created` false. The first release of
    a model goes live by itself; later ones wait to be promoted. Nothing is published unless a clean process reproduced
    every golden row. `remake` turns what was proven into what is published.
    """
    check_name(request.name)
    require_usable(request)
    at = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="salver-release-") as temporary:
        built = build(request, _folder(temporary, "built"), remake.check if remake is not None else None)
        if remake is not None:
            built = remake.remake(built, _folder(temporary, "remade"))
        provenance = gather(request, at)
        published = registry.publish(built.folder, built.manifest, provenance)
    went_live = _go_live(registry, published.release)
    return _outcome(built, published.release, published.created, went_live)


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder


def _go_live(registry: Registry, release: Release) -> bool:
    """Route the first release of a model; where somebody else's route is first, it stays."""
    if registry.current(release.model) is not None:
        return False
    change = Change(
        live=release.number,
        action="first",
        actor=release.provenance.actor,
        at=release.provenance.at,
        why="the first release of a model goes live by itself",
    )
    try:
        registry.append_route(next_route(release.model, None, change))
    except SalverError as problem:
        if problem.code != "lost-race":
            raise
        return False
    return True


def _outcome(built: Built, release: Release, created: bool, went_live: bool) -> Outcome:
    manifest = built.manifest
    return Outcome(
        release=release,
        created=created,
        went_live=went_live,
        framework=manifest.framework,
        determinism=manifest.determinism,
        golden_rows=manifest.golden_rows,
        files=len(manifest.files),
        size=built.size,
        unsafe=manifest.unsafe,
        remarks=built.remarks,
    )
