"""From what is wanted and what is there to what should be done: pure, and the same whatever happened before.

The rules, in the order in which they bind:

    1. a live release stays live until another one is loaded and proven, or for ever
    2. a pointer moves only to a release all of whose workers reproduced its golden rows
    3. a release leaves the table first, and its workers end when every gateway has said that it let go of it
    4. what was live before stays warm until the next swap; it can come back without a load
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from salver.gateway.table import Loaded, Table, Worker
from salver.route import previous_live
from salver.supervisor.state import (
    LAST_SLOT,
    LONG_LOAD,
    Facts,
    Failure,
    Model,
    Process,
    Release,
    State,
    Swap,
    all_releases,
    failure_of,
    refuse,
)

MISSING_GATEWAY = 10.0
"""Seconds for which a gateway that isn't connected is waited for: it may be starting again."""


class Open(Struct, frozen=True):
    """Fetch and verify a release."""

    model: str
    number: int


class Start(Struct, frozen=True):
    """Start one worker of a release."""

    name: str
    release: str
    facts: Facts


class Stop(Struct, frozen=True):
    """End one worker."""

    name: str


class Publish(Struct, frozen=True):
    """Give every gateway this table."""

    table: Table


class Fallback(Struct, frozen=True):
    """Write the route that says that `live` goes on answering, if `seq` is still the newest."""

    model: str
    seq: int
    live: int
    why: str


class Tell(Struct, frozen=True):
    """Something a person wants to know: `live`, `refused`, `retrying`, or still `opening` or `starting`.

    `workers` are ready, `loading` more are on their way. `seconds` it took so far; None where it was warm.
    """

    kind: str
    release: str
    failure: Failure | None = None
    keeps: str = ""
    workers: int = 0
    loading: int = 0
    seconds: float | None = None


Action = Open | Start | Stop | Publish | Fallback | Tell


def settle(state: State, now: float) -> list[Action]:
    """Bring the state one step nearer to what is wanted; the actions are for the caller to do, in this order."""
    actions: list[Action] = []
    if not state.draining:
        for model in state.models.values():
            actions += _judge(state, model, now)
            actions += _approach(state, model, now)
            actions += _tell_of_slow(model, now)
            actions += _fall_back(model, now)
            _let_go(state, model, now)
    actions += _publish(state, now)
    actions += _confirm(state, now)
    if not state.draining:
        actions += _staff(state, now)
    return actions


def desired(model: Model, now: float) -> int | None:
    """The release that should be live: what the route says, or where that was refused, what stands in for it."""
    route = model.route
    if route is None:
        return model.live
    refusal = model.refused.get(route.live)
    if refusal is None or _due(refusal, now):
        return route.live
    if model.live is not None or not refusal.final:
        return model.live
    before = previous_live(model.history)
    if before is None or (before in model.refused and not _due(model.refused[before], now)):
        return None
    return before


def _due(refusal: Failure, now: float) -> bool:
    return refusal.retry_at is not None and refusal.retry_at <= now


def _judge(state: State, model: Model, now: float) -> Iterator[Action]:
    """Refuse a starting release that can't become live."""
    for release in list(model.releases.values()):
        failure = _fault(state, release, now) if release.phase == "starting" else None
        if failure is not None:
            refuse(state, release, failure, now)
            yield refused(model, failure, release.number)


def refused(model: Model, failure: Failure, number: int) -> Tell:
    """What to tell people when a release was refused."""
    kept = model.refused.get(number, failure)
    return Tell("refused" if kept.final else "retrying", kept.release, kept, _answering(model))


def _answering(model: Model) -> str:
    return "" if model.live is None else f"{model.name}@{model.live}"


def _fault(state: State, release: Release, now: float) -> Failure | None:
    processes = [state.processes[name] for name in release.worker_names if name in state.processes]
    if any(process.stopping for process in processes):
        return None  # these belong to an attempt before this one
    for process in processes:
        if process.status.get("state") == "failed":
            return failure_of(process.status, release.name)
    if release.name in state.breakers:
        how = next((process.last_exit for process in processes if process.last_exit is not None), None)
        return Failure(
            release.name,
            0,
            "start-failed",
            f"the workers of {release.name} die again and again while they load it (last exit code: {how})",
            "look at the worker's own output above; it may need more memory",
        )
    if now - release.since > state.load_timeout:
        waited = f"{release.name} was not ready {state.load_timeout:.0f} s after its workers started"
        return Failure(release.name, 0, "start-failed", waited, "its load() hangs or needs longer")
    return None


def _approach(state: State, model: Model, now: float) -> Iterator[Action]:
    """Open, start or make live what is desired, whichever comes next."""
    number = desired(model, now)
    if number is None:
        return
    key = (model.name, number)
    release = model.releases.get(number)
    if release is None:
        release = model.releases[number] = Release(model.name, number, "opening", now, wanted_at=now)
    if release.phase == "opening" and key not in state.opening:
        state.opening.add(key)
        yield Open(*key)
    workers = [state.processes[name] for name in release.worker_names if name in state.processes]
    ready = [worker.ready for worker in workers]
    was_warm = release.phase == "leaving" and bool(ready) and all(ready)
    if release.phase == "leaving":
        release.phase, release.since, release.wanted_at = "starting", now, now  # some of its workers may have ended
        release.told = 0.0
    seconds = None
    # While an older release answers, the new one waits for all of its workers; where none does, the first is enough.
    whole = len(workers) == len(release.worker_names) and not any(worker.stopping for worker in workers)
    enough = any(ready) if model.live is None else all(ready)
    if release.phase == "starting" and whole and enough:
        release.phase, release.left_at = "loaded", None
        seconds = None if was_warm else now - release.wanted_at
    if release.phase == "loaded":
        _swap(state, model, release, any(ready), seconds)


def _tell_of_slow(model: Model, now: float) -> Iterator[Action]:
    """Tell people what is not ready yet, each time that it has taken twice as long."""
    for release in model.releases.values():
        waited = now - release.wanted_at
        if release.phase in ("opening", "starting") and waited >= max(LONG_LOAD, 2 * release.told):
            release.told = waited
            yield Tell(release.phase, release.name, keeps=_answering(model), seconds=waited)


def _swap(state: State, model: Model, release: Release, proven: bool, seconds: float | None) -> None:
    """Make a loaded release live, or only note the newest route where it is live already."""
    route = model.route
    seq = route.seq if route is not None and route.live == release.number else model.seq
    if model.live != release.number and proven:
        if model.live is not None:
            model.warm = model.live
        model.live = release.number
        model.swap = Swap(state.table.version + 1, seq, seconds)
    elif model.live == release.number and seq > model.seq:
        model.swap = Swap(state.table.version, seq) if model.swap is None else replace(model.swap, seq=seq)


def _fall_back(model: Model, now: float) -> Iterator[Action]:
    """Where the route's release was refused for good, write down that the one that answers goes on to."""
    route = model.route
    refusal = model.refused.get(route.live) if route is not None else None
    if route is None or refusal is None or not refusal.final or model.live is None or model.live == route.live:
        return
    if model.swap is None and model.fallback_seq != route.seq and model.fallback_at <= now:
        model.fallback_seq = route.seq
        yield Fallback(model.name, route.seq, model.live, f"{refusal.code}: {refusal.message}")


def _let_go(state: State, model: Model, now: float) -> None:
    """Take what is neither live, warm nor wanted out of the table; what never was in it is dropped at once."""
    keep = (desired(model, now), model.live, model.warm)
    for release in list(model.releases.values()):
        if release.number in keep or release.phase == "leaving":
            continue
        if release.phase != "loaded" and release.left_at is not None:
            release.phase = "leaving"  # gateways may still have requests from before it was wanted again
        elif release.phase != "loaded":
            del model.releases[release.number]
        elif model.swap is None:
            release.phase, release.left_version, release.left_at = "leaving", state.table.version + 1, now


def _publish(state: State, now: float) -> Iterator[Action]:
    """Give the gateways a new table if anything in it has changed."""
    loaded = [_entry(state, release) for release in all_releases(state) if release.phase == "loaded"]
    for entry in loaded:
        if entry.release not in state.slots:
            state.slots[entry.release] = state.free_slots.popleft() if state.free_slots else LAST_SLOT
    table = Table(
        state.table.version,
        tuple(sorted(loaded, key=lambda entry: (entry.model, entry.number))),
        {model.name: model.live for model in state.models.values() if model.live is not None},
        tuple(sorted(state.models)),
        {entry.release: state.slots[entry.release] for entry in loaded},
        state.draining,
    )
    if table != state.table:
        state.table = replace(table, version=table.version + 1)
        state.published_at = now
        yield Publish(state.table)


def _entry(state: State, release: Release) -> Loaded:
    assert release.facts is not None, "a loaded release was opened"
    processes = [state.processes[name] for name in release.worker_names if name in state.processes]
    if not _is_proven(state, release):
        processes += [process for process in replaced(state, release) if not process.stopping]
    workers = tuple(Worker(process.name, process.address) for process in processes if process.address)
    return replace(release.facts.loaded, workers=workers)


def replaced(state: State, release: Release) -> list[Process]:
    """The workers of a release whose place another takes, and that have not ended yet.

    Where another one answers, such a worker leaves the table at once, and ends before its successor starts; else it
    goes on until that is proven.
    """
    names = set(release.worker_names)
    return [each for each in state.processes.values() if each.group == release.name and each.name not in names]


def _is_proven(state: State, release: Release) -> bool:
    """Whether one of the workers that a release should have is proven."""
    return any(state.processes[name].ready for name in release.worker_names if name in state.processes)


def _is_left(state: State, process: Process, now: float) -> bool:
    """Whether no gateway has a request any more on a worker whose place another takes."""
    if any(process.name == worker.name for entry in state.table.releases for worker in entry.workers):
        process.left_at = None
        return False
    if process.left_at is None:
        process.left_version, process.left_at = state.table.version, now
    return _nowhere(state, process.left_version, process.left_at, now)


def _confirm(state: State, now: float) -> Iterator[Action]:
    """Note what every gateway has confirmed: swaps that are in force, releases that nobody uses any more."""
    for model in state.models.values():
        swap = model.swap
        if swap is None or not _everywhere(state, swap.version, now):
            continue
        model.seq, model.swap = swap.seq, None
        route = model.route
        if model.failure is not None and route is not None and route.seq == swap.seq > model.failure.seq:
            model.failure = model.failure if route.action == "fallback" else None
        if model.live != model.announced and model.live is not None:
            model.announced = model.live
            release = model.releases[model.live]
            workers = [state.processes[name] for name in release.worker_names if name in state.processes]
            ready = sum(worker.ready for worker in workers)
            loading = len(release.worker_names) - ready
            yield Tell("live", release.name, workers=ready, loading=loading, seconds=swap.seconds)
    for release in list(all_releases(state)):
        if release.phase == "leaving" and _nowhere(state, release.left_version, release.left_at, now):
            del state.models[release.model].releases[release.number]
            slot = state.slots.pop(release.name)
            if slot not in state.slots.values():
                state.free_slots.append(slot)


def _everywhere(state: State, version: int, now: float) -> bool:
    """Whether all gateways there are have a table of at least this version in force."""
    if len(state.acks) < state.expected_gateways and now < state.published_at + MISSING_GATEWAY:
        return False
    return bool(state.acks) and all(max(versions, default=-1) >= version for versions in state.acks.values())


def _nowhere(state: State, version: int, since: float | None, now: float) -> bool:
    """Whether no gateway has a request any more on what table `version` left out, at `since`.

    Only the confirmation of the very table that left it out says so: a later table may be confirmed earlier.
    """
    if since is None or now >= since + state.drain_timeout + MISSING_GATEWAY:
        return True
    if len(state.acks) < state.expected_gateways:
        return False
    return all(version in versions for versions in state.acks.values())


def _staff(state: State, now: float) -> Iterator[Action]:
    """Start the workers that are missing and end those that nobody needs.

    No more load at once than the machine has cores, and first each release's first worker: twenty models that import
    their frameworks side by side would keep each other from answering. A load that takes long holds up no other.
    """
    needed = {
        name: release
        for release in all_releases(state)
        if release.phase in ("starting", "loaded")
        for name in release.worker_names
    }
    phases = {release.name: release.phase for release in all_releases(state)}
    for process in state.processes.values():
        phase = phases.get(process.group)
        failed = phase == "leaving" and process.status.get("state") == "failed"  # no gateway has a request there
        if process.stopping or process.name in needed or (phase in ("opening", "leaving") and not failed):
            continue
        if phase != "loaded" or _is_left(state, process, now):
            process.stopping = True
            yield Stop(process.name)
    room = state.loads_at_once - sum(process.is_loading(now) for process in state.processes.values())
    missing = [name for name in needed if name not in state.processes]
    for name in sorted(missing, key=lambda name: needed[name].worker_names.index(name)):
        release = needed[name]
        if release.facts is None or room <= 0 or (replaced(state, release) and _is_proven(state, release)):
            continue
        room -= 1
        release.since = now
        state.processes[name] = Process(name, release.name, asked_at=now)
        yield Start(name, release.name, release.facts)
