"""The follower's view of the registry: routes as they come, and releases fetched and verified. All of it may block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path

from salver import lock
from salver.dispatch.launch import cpu_budget
from salver.environments.build import hold, is_built
from salver.environments.choose import choose
from salver.environments.place import Place
from salver.errors import SalverError
from salver.gateway.table import Loaded
from salver.record import Release
from salver.registry import Known, Registry, ReleaseCache
from salver.release import LOCK, MANIFEST, Manifest, parse_manifest
from salver.route import Change, Route, next_route
from salver.supervisor.plan import Plan
from salver.supervisor.state import Facts, Key


class Releases:
    """What one server reads of one registry, and what its machine keeps of it."""

    def __init__(self, plan: Plan, registry: Registry, scratch: Path, say: Callable[[str, str], None]) -> None:
        self._plan = plan
        self._say = say
        self._registry = registry
        self._scratch = scratch
        self._places: dict[str, Place] = {}
        self._cache = ReleaseCache(Path(plan.cache))
        self._records: dict[Key, Release] = {}

    def models(self, known: Collection[str]) -> list[str]:
        """The models to serve: those of the plan, else all that have a route; `known` ones have one."""
        if self._plan.models:
            return list(self._plan.models)
        return [name for name in self._registry.models() if name in known or self._registry.current(name) is not None]

    def routes_after(self, model: str, seq: int) -> list[Route]:
        """The routes that follow number `seq`."""
        return self._registry.routes_after(model, seq)

    def last_known(self) -> list[Known]:
        """What was in force when the registry could last be read, for a start without it."""
        address = self._plan.registry
        recalled = [self._cache.recall(address, name) for name in self._plan.models or self._cache.remembered(address)]
        known = [each for each in recalled if each is not None]
        self._records.update({(record.model, record.number): record for each in known for record in each.releases})
        return known

    def remember(self, route: Route) -> None:
        """Keep a route that is in force, with its release; where that fails only a start without registry is lost."""
        record = self._records.get((route.model, route.live))
        if record is not None:
            with contextlib.suppress(SalverError):
                self._cache.remember(self._plan.registry, Known(route, (record,)))

    def open(self, model: str, number: int) -> Facts:
        """Fetch and verify one release, and find its environment; raises what registry, cache and builder raise."""
        record = self._records.get((model, number))
        if record is None:
            record = self._records[model, number] = self._registry.find(f"{model}@{number}")
        folder = self._cache.open(self._registry, record)
        manifest = parse_manifest((folder / MANIFEST).read_bytes(), where=record.name)
        return facts(self._plan, record, manifest, folder, self._place(record.name, manifest, folder))

    def _place(self, name: str, manifest: Manifest, folder: Path) -> Place:
        """Where the release's workers run; an environment that was built stays for as long as this server does."""
        if self._plan.any_environment:
            return Place()
        text = (folder / LOCK).read_text(encoding="utf-8")
        python, cache = manifest.python, Path(self._plan.cache)
        place = self._places.get(manifest.lock)
        if place is None or lock.check(text, python, place.path):
            if lock.check(text, python) and not is_built(text, python, cache):
                self._say("building", f"{name}: its environment of {len(lock.pins(text))} packages is built now")
            place = choose(text, python, what=name, cache=cache, scratch=self._scratch)
            self._places[manifest.lock] = place
            hold(place)
        return place

    def fall_back(self, change: Change, model: str, seq: int) -> None:
        """Put an automatic fallback in force after route `seq`; `lost-race` where that is no longer the newest."""
        current = self._registry.current(model)
        if current is not None and current.seq == seq:
            self._registry.append_route(next_route(model, current, change))


def facts(plan: Plan, record: Release, manifest: Manifest, folder: Path, place: Place) -> Facts:
    """What a verified release means for this server: how many workers, and what gateways must know."""
    budget = cpu_budget()
    workers = manifest.serving.workers or plan.workers
    loaded = Loaded(
        model=record.model,
        number=record.number,
        id=record.id,
        framework=manifest.framework,
        signature=manifest.signature,
        max_batch=manifest.serving.rows_per_call,
        side_effects=manifest.side_effects,
        concurrency=min(workers, budget),
        workers=(),
        published=record.provenance.at,
    )
    return Facts(loaded, str(folder), workers, manifest.serving.threads or max(1, budget // workers), place)
