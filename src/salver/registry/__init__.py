"""The registry: where releases, routes and policies live. Nothing in it ever changes; things are only added."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from salver.errors import SalverError, error
from salver.record import Policy, Provenance, Release
from salver.registry import content, evidence, releases, verify
from salver.registry.cache import Known, ReleaseCache
from salver.registry.layout import MODELS
from salver.registry.location import locate
from salver.registry.numbered import NumberedList
from salver.registry.references import (
    LATEST,
    LIVE,
    ambiguous,
    no_live_release,
    no_such_id,
    no_such_model,
    no_such_release,
    parse_reference,
)
from salver.registry.releases import Published
from salver.registry.sealed import T
from salver.registry.verify import Problem, Report
from salver.release import MANIFEST, File, Manifest, check_name, parse_manifest
from salver.route import Route, arms
from salver.storage import Storage

__all__ = ["Known", "Problem", "Published", "Registry", "ReleaseCache", "Report", "locate"]


class Registry:
    """Releases, routes, policies and evidence in one storage; holds no state of its own.

    Reads raise `no-registry` where nothing was ever published, `no-such-model` and `no-such-release` with what there
    is instead, `corrupt` naming the damaged object, and `storage-failed`.
    """

    def __init__(self, storage: Storage) -> None:
        self.place = storage.place
        self._storage = storage

    def publish(self, folder: Path, manifest: Manifest, provenance: Provenance) -> Published:
        """Store the release that lies in `folder`; the same content again is the same release."""
        return releases.publish(self._storage, folder, manifest, provenance)

    def models(self) -> list[str]:
        """The names of all models that have a release, sorted."""
        return releases.models(self._storage)

    def releases(self, model: str) -> list[Release]:
        """All releases of a model, by number."""
        found = self._releases(model).all()
        if not found:
            raise self._no_model(model)
        return found

    def find(self, reference: str) -> Release:
        """The release that `churn` (the live one), `churn@7`, `churn@latest` or the beginning of an id names."""
        wanted = parse_reference(reference)
        if isinstance(wanted.which, int):
            return self._numbered(wanted.model, wanted.which)
        if wanted.which == LIVE:
            return self._live(wanted.model)
        if wanted.which == LATEST:
            return self._newest(wanted.model)
        return self._by_id(reference, wanted.model, wanted.which)

    def manifest(self, release: Release) -> Manifest:
        """The manifest of a release, checked against its id."""
        return parse_manifest(self.manifest_data(release), where=f"{MANIFEST} of {release.name} in {self.place}")

    def manifest_data(self, release: Release) -> bytes:
        """The canonical bytes of that manifest, checked too."""
        return content.manifest_data(self._storage, release)

    def stream(self, release: Release, file: File) -> Iterator[bytes]:
        """One file of a release in pieces; raises `corrupt` at the end unless it is what the manifest says."""
        return content.stream(self._storage, file, f"{file.path} of {release.name}")

    def history(self, model: str) -> list[Route]:
        """Every route the model ever had, oldest first; empty when it never had one."""
        found = self._routes(model).all()
        if not found:
            self._check_model(model)
        return found

    def current(self, model: str) -> Route | None:
        """The route in force, or None when the model never had one."""
        found = self._routes(model).last()
        if found is None:
            self._check_model(model)
        return found

    def routes_after(self, model: str, seq: int) -> list[Route]:
        """The routes that follow `seq`; asks only for the next number, so it is cheap to call often."""
        return self._routes(model).after(seq)

    def append_route(self, route: Route) -> None:
        """Put a route in force; `lost-race` when another took its number: read `current` again and decide anew."""
        for number in arms(route):
            self._numbered(route.model, number)
        _append(self._routes(route.model), route.seq, route, f"the route of {route.model}")

    def policy(self, model: str) -> Policy | None:
        """The policy in force, or None when the model never had one."""
        return self._policies(model).last()

    def append_policy(self, policy: Policy) -> None:
        """Put a policy in force; `lost-race` when another took its number."""
        _append(self._policies(policy.model), policy.seq, policy, f"the policy of {policy.model}")

    def put_evidence(self, model: str, of: str, name: str, data: bytes) -> None:
        """Keep evidence on a release (by its id) or an event (any plain name); it never changes afterwards."""
        evidence.put_evidence(self._storage, check_name(model), of, name, data)

    def evidence(self, model: str, of: str) -> dict[str, bytes]:
        """All evidence on a release or event, by name."""
        return evidence.evidence(self._storage, check_name(model), of)

    def verify(self, model: str | None = None, progress: Callable[[str], None] | None = None) -> Report:
        """Read and check everything again, or all of one model; `progress` is told each object before it is read."""
        if model is None:
            releases.check_registry(self._storage)
        else:
            self._check_model(model)
        return verify.verify(self._storage, model, progress)

    def _releases(self, model: str) -> NumberedList[Release]:
        return releases.release_list(self._storage, check_name(model))

    def _routes(self, model: str) -> NumberedList[Route]:
        return NumberedList(self._storage, f"{MODELS}{check_name(model)}/routes/", Route)

    def _policies(self, model: str) -> NumberedList[Policy]:
        return NumberedList(self._storage, f"{MODELS}{check_name(model)}/policy/", Policy)

    def _check_model(self, model: str) -> list[int]:
        numbers = self._releases(model).numbers()
        if not numbers:
            raise self._no_model(model)
        return numbers

    def _no_model(self, model: str) -> SalverError:
        return no_such_model(model, self.models(), self.place)

    def _numbered(self, model: str, number: int) -> Release:
        found = self._releases(model).get(number)
        if found is None:
            raise no_such_release(f"{model}@{number}", model, self._check_model(model))
        return found

    def _newest(self, model: str) -> Release:
        return self._numbered(model, self._check_model(model)[-1])

    def _live(self, model: str) -> Release:
        route = self.current(model)
        if route is None:
            raise no_live_release(model, self._check_model(model))
        return self._numbered(model, route.live)

    def _by_id(self, reference: str, model: str, start: str) -> Release:
        among = [model] if model else self.models()
        found = [release for name in among for release in self.releases(name) if release.id.startswith(start)]
        if not found:
            raise no_such_id(reference, among, self.place)
        if len({release.id for release in found}) > 1:
            raise ambiguous(reference, [f"{release.name} ({release.id[:19]}…)" for release in found])
        return found[0]


def _append(entries: NumberedList[T], number: int, record: T, what: str) -> None:
    gap = number < 1 or (number > 1 and entries.get(number - 1) is None)
    if gap or not entries.append(number, record):
        state = f"there is no number {number - 1} before it" if gap else "somebody else has changed it"
        raise error("lost-race", f"{what} can't get number {number}: {state}", hint="look at it again and decide anew")
