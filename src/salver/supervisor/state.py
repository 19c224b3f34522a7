"""What the follower knows: routes, releases, workers, acknowledgements. Facts only; `reconcile` decides.

Every function here takes in one thing that happened. None does I/O, none reads a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from salver.environments.place import Place
from salver.errors import CODES
from salver.gateway.table import Loaded, Table
from salver.route import Route

SLOTS = 256
LAST_SLOT = SLOTS - 1
"""What is loaded beyond all slots shares the last one: its counts are added up, which is better than none."""
KEPT_ACKS = 256
QUICK_TRIES = 3
QUICK_RETRY = 1.0
SLOW_RETRY = 30.0
TRANSIENT = frozenset({"storage-failed", "no-registry", "lost-race"})

Key = tuple[str, int]
Phase = Literal["opening", "starting", "loaded", "leaving"]


class Facts(Struct, frozen=True):
    """A release that is fetched and verified: what gateways have to know, where it lies and runs, how many workers.

    `indices` are the numbers in their names once one was replaced; before, they count from 0.
    """

    loaded: Loaded
    folder: str
    workers: int
    threads: int
    place: Place = Place()
    indices: tuple[int, ...] = ()


class Failure(Struct, frozen=True):
    """Why a release can't be live. `final` is false while it is tried again at once; `retry_at` is when (None: never).

    `retry_at` is a reading of the monotonic clock.
    """

    release: str
    seq: int
    code: str
    message: str
    hint: str = ""
    details: tuple[str, ...] = ()
    tries: int = 1
    final: bool = True
    retry_at: float | None = None


LONG_LOAD = 10.0


class Process(Struct):
    """One worker process as the keeper tells it. `gone` means that it will not start again by itself.

    Where another took its place, table `left_version` left it out at `left_at`, on the monotonic clock.
    """

    name: str
    group: str
    address: str = ""
    pid: int | None = None
    status: dict[str, Any] = {}
    restarts: int = 0
    stopping: bool = False
    gone: bool = False
    last_exit: int | None = None
    asked_at: float = -LONG_LOAD
    left_version: int = 0
    left_at: float | None = None

    def is_loading(self, now: float) -> bool:
        """Whether it was started lately and is neither proven nor refused yet."""
        return now - self.asked_at < LONG_LOAD and not (self.stopping or self.gone or self.status)

    @property
    def ready(self) -> bool:
        """Whether it has loaded its release and reproduced the golden rows, in its present life."""
        return self.pid is not None and not self.stopping and self.status.get("state") == "ready"


class Release(Struct):
    """One release that has, gets or had workers.

    On the monotonic clock, `since` is when its workers began to load, `wanted_at` when it was asked for, and `left_at`
    when table `left_version` left it out (None while it is in the table, or never was). People were last told after
    `told` seconds that it is not ready yet, never where that is 0.
    """

    model: str
    number: int
    phase: Phase
    since: float
    wanted_at: float = 0.0
    facts: Facts | None = None
    left_version: int = 0
    left_at: float | None = None
    told: float = 0.0

    @property
    def name(self) -> str:
        """The name people use: `churn@7`."""
        return f"{self.model}@{self.number}"

    @property
    def worker_names(self) -> list[str]:
        """The names of the workers it should have."""
        return [f"{self.name}/{i}" for i in self.facts.indices or range(self.facts.workers)] if self.facts else []


class Swap(Struct, frozen=True):
    """A live pointer that was moved in table `version` and is not acknowledged by every gateway yet.

    `seconds` is how long the release took to load; None where it was warm.
    """

    version: int
    seq: int
    seconds: float | None = None


class Model(Struct):
    """One model this server serves.

    `live` answers now and `warm` did before; `seq` is the newest route that is in force in every gateway.
    `refused` holds what was tried for the newest route and failed; `failure` the last failure, for people to see.
    """

    name: str
    history: list[Route] = []
    releases: dict[int, Release] = {}
    live: int | None = None
    warm: int | None = None
    seq: int = 0
    swap: Swap | None = None
    announced: int | None = None
    refused: dict[int, Failure] = {}
    failure: Failure | None = None
    fallback_at: float = 0.0
    fallback_seq: int = 0

    @property
    def route(self) -> Route | None:
        """The newest route."""
        return self.history[-1] if self.history else None


class State(Struct):
    """Everything the follower knows.

    `expected_gateways` is how many gateways should be there; `acks` holds the versions each connected one confirmed.
    `opening` are the releases that are being fetched right now, wanted or not. `loads_at_once` bounds how many workers
    load side by side.
    """

    expected_gateways: int
    load_timeout: float = 600.0
    drain_timeout: float = 30.0
    loads_at_once: int = 64
    models: dict[str, Model] = {}
    processes: dict[str, Process] = {}
    breakers: set[str] = field(default_factory=set)
    acks: dict[int, list[int]] = {}
    opening: set[Key] = field(default_factory=set)
    table: Table = Table(0, (), {}, (), {})
    published_at: float = 0.0
    slots: dict[str, int] = {}
    free_slots: deque[int] = field(default_factory=lambda: deque(range(SLOTS)))
    draining: bool = False


def all_releases(state: State) -> Iterator[Release]:
    """Every release that has, gets or had workers."""
    for model in state.models.values():
        yield from model.releases.values()


def find_release(state: State, key: Key) -> Release | None:
    """The release of this model and number, if anything is known of it."""
    model = state.models.get(key[0])
    return model.releases.get(key[1]) if model else None


def add_model(state: State, name: str) -> Model:
    """The model of this name; a new one is served from now on."""
    return state.models.setdefault(name, Model(name))


def routes_came(state: State, model: str, routes: Iterable[Route]) -> None:
    """New routes of a model were read, in order; each makes what failed for the one before worth another try."""
    known = add_model(state, model)
    for route in routes:
        if known.route is None or route.seq > known.route.seq:
            known.history.append(route)
            known.refused = {}
            known.fallback_at, known.fallback_seq = 0.0, 0


def opened(state: State, key: Key, facts: Facts, now: float) -> None:
    """A release was fetched and verified."""
    state.opening.discard(key)
    release = find_release(state, key)
    if release is not None and release.phase == "opening":
        release.facts, release.phase, release.since = facts, "starting", now


def open_failed(state: State, key: Key, failure: Failure, now: float) -> None:
    """A release could not be fetched or is not what it should be."""
    state.opening.discard(key)
    release = find_release(state, key)
    if release is not None and release.phase == "opening":
        refuse(state, release, failure, now)


def refuse(state: State, release: Release, failure: Failure, now: float) -> None:
    """Give up on a release that isn't live yet; what may pass by itself is tried again, first at once, then slowly."""
    model = state.models[release.model]
    tries = model.refused[release.number].tries + 1 if release.number in model.refused else 1
    transient = failure.code in TRANSIENT
    final = not transient or tries >= QUICK_TRIES
    wait = (SLOW_RETRY if final else QUICK_RETRY) if transient else None
    seq = model.route.seq if model.route else 0
    retry_at = None if wait is None else now + wait
    kept = replace(failure, release=release.name, seq=seq, tries=tries, final=final, retry_at=retry_at)
    model.refused[release.number] = kept
    model.failure = kept
    if release.left_at is None:
        del model.releases[release.number]
    else:
        release.phase = "leaving"  # gateways may still have requests from before it was wanted again


def failure_of(status: dict[str, Any], release: str) -> Failure:
    """The failure that a worker wrote on its status pipe; a worker is not trusted to write it well."""
    code = status.get("code")
    details = status.get("details")
    return Failure(
        release,
        0,
        code if isinstance(code, str) and code in CODES else "load-failed",
        str(status.get("message") or f"{release} failed to load and did not say why"),
        str(status.get("hint") or ""),
        tuple(map(str, details)) if isinstance(details, list) else (),
    )


def processes_known(state: State, children: Iterable[dict[str, Any]], breakers: Iterable[str]) -> None:
    """The keeper told everything it knows: once, when the follower starts."""
    state.processes = {
        child["name"]: Process(
            child["name"],
            child["group"],
            child["address"],
            child["pid"],
            child["status"],
            child["restarts"],
            child["stopping"],
            gone=child["gone"],
        )
        for child in children
        if child["kind"] == "worker"
    }
    state.breakers = set(breakers)


def process_started(state: State, child: dict[str, Any]) -> None:
    """A worker process runs, for the first time or again."""
    if child["kind"] == "worker":
        known = state.processes.setdefault(child["name"], Process(child["name"], child["group"]))
        known.address, known.pid, known.restarts = child["address"], child["pid"], child["restarts"]
        known.status, known.gone = {}, False


def process_said(state: State, name: str, status: dict[str, Any]) -> None:
    """A worker process wrote on its status pipe."""
    if name in state.processes:
        state.processes[name].status = status


def process_ended(
    state: State, name: str, code: int, restart_in: float | None, status: dict[str, Any] | None = None
) -> None:
    """A worker process has ended, with a `status` where the keeper has one; one that was told to is forgotten."""
    known = state.processes.get(name)
    if known is None:
        return
    if known.stopping:
        del state.processes[name]
        return
    known.pid, known.last_exit, known.gone = None, code, restart_in is None
    known.status = status or known.status


def breaker_moved(state: State, group: str, is_open: bool) -> None:
    """A release died too often, or has been well for a minute since."""
    (state.breakers.add if is_open else state.breakers.discard)(group)


def acknowledged(state: State, gateway: int, version: int) -> None:
    """A gateway has made a table effective."""
    versions = state.acks.setdefault(gateway, [])
    versions.append(version)
    del versions[:-KEPT_ACKS]


def gateway_came(state: State, gateway: int) -> None:
    """A gateway connected; it has confirmed nothing yet."""
    state.acks[gateway] = []


def gateway_went(state: State, gateway: int) -> None:
    """A gateway's connection ended."""
    state.acks.pop(gateway, None)


def fallback_failed(state: State, model: str, now: float) -> None:
    """The registry could not take an automatic fallback; try again later."""
    state.models[model].fallback_at = now + SLOW_RETRY
    state.models[model].fallback_seq = 0
