"""Every call to the disk × every way it can fail: a release is visible whole or not at all, and a retry converges."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from salver.errors import SalverError
from salver.record import Policy, Release
from salver.registry import Known, Registry, ReleaseCache
from salver.route import Change, Route, next_route
from salver.storage.folder import FolderStorage
from salver.storage.memory import MemoryStorage
from tests.integration.sample_releases import PROVENANCE, build
from tests.integration.simulated_disk import KINDS, Crash, Fault, SimulatedDisk

ROOT = Path("/srv/registry")
State = tuple[object, ...]


class Command(NamedTuple):
    """Something a person or server does, the disk before it, and what the next process can see of it."""

    name: str
    before: SimulatedDisk
    run: Callable[[SimulatedDisk], None]
    state: Callable[[SimulatedDisk], State]


def empty_disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.mkdir(ROOT.parent)
    disk.sync_folder(ROOT.parent.parent)
    return disk.restarted()


def registry_on(disk: SimulatedDisk) -> Registry:
    return Registry(FolderStorage(ROOT, disk, clock=lambda: 0.0))


def registry_state(disk: SimulatedDisk) -> State:
    """What the registry shows, after reading every byte of it."""
    registry = registry_on(disk)
    try:
        models = registry.models()
        report = registry.verify()
    except SalverError as problem:
        if problem.code != "no-registry":
            raise
        return ()
    assert report.clean, report.problems
    state: list[object] = []
    for model in models:
        releases = registry.releases(model)
        for release in releases:
            for file in registry.manifest(release).files:
                assert sum(map(len, registry.stream(release, file))) == file.size
        policy = registry.policy(model)
        state.append(
            (
                model,
                tuple((release.number, release.id) for release in releases),
                tuple((route.seq, route.live) for route in registry.history(model)),
                policy.rules if policy else None,
                tuple(registry.evidence(model, releases[0].id)),
            )
        )
    return tuple(state)


def promote(registry: Registry, number: int) -> None:
    current = registry.current("churn")
    if current is None or current.live != number:
        registry.append_route(
            next_route("churn", registry.current("churn"), Change(number, "promote", "tester", "2025-01-02T00:00:00Z"))
        )


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Command]:
    """The commands by name; each starts from a disk on which everything before it is durable or merely done."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    first, second = build(one, "first"), build(two, "second")
    with_one = empty_disk()
    registry_on(with_one).publish(one, first, PROVENANCE)
    promote(registry_on(with_one), 1)
    with_two = with_one.restarted()
    registry_on(with_two).publish(two, second, PROVENANCE)
    memory = Registry(MemoryStorage())
    release = memory.publish(one, first, PROVENANCE).release
    cached = empty_disk()
    ReleaseCache(ROOT, cached).open(memory, release)
    damaged = cached.restarted()
    next(file for path, file in damaged.files().items() if path.endswith("model.bin")).data[7] ^= 1
    policy = Policy("churn", 1, {"accuracy": 0.9}, "tester", "2025-01-02T00:00:00Z")

    def set_policy(disk: SimulatedDisk) -> None:
        if registry_on(disk).policy("churn") is None:
            registry_on(disk).append_policy(policy)

    listed = [
        Command("publish-first", empty_disk(), lambda d: _publish(d, one, first), registry_state),
        Command("publish-second", with_one, lambda d: _publish(d, two, second), registry_state),
        Command("publish-again", with_two, lambda d: _publish(d, two, second), registry_state),
        Command("append-route", with_two, lambda d: promote(registry_on(d), 2), registry_state),
        Command("append-policy", with_one, set_policy, registry_state),
        Command(
            "put-evidence",
            with_one,
            lambda d: registry_on(d).put_evidence("churn", release.id, "verdict", b"passed"),
            registry_state,
        ),
        _cache_command("cache-insert", empty_disk(), memory, release),
        _cache_command("cache-replace", damaged, memory, release),
        _remember_command(cached, release),
    ]
    return {command.name: command for command in listed}


def _publish(disk: SimulatedDisk, folder: Path, manifest: object) -> None:
    registry_on(disk).publish(folder, manifest, PROVENANCE)  # type: ignore[arg-type]


def _cache_command(name: str, before: SimulatedDisk, source: Registry, release: Release) -> Command:
    def state(disk: SimulatedDisk) -> State:
        try:
            folder = ReleaseCache(ROOT, disk).open(None, release)
        except SalverError as problem:
            if problem.code not in ("no-such-release", "corrupt"):
                raise
            return ()
        return (folder, *(bytes(file.data) for path, file in sorted(disk.files().items()) if str(folder) in path))

    return Command(name, before, lambda disk: str(ReleaseCache(ROOT, disk).open(source, release)) and None, state)


def _remember_command(before: SimulatedDisk, release: Release) -> Command:
    old, new = (
        Known(Route("churn", seq, 1, "tester", "2025-01-02T00:00:00Z", "promote"), (release,)) for seq in (1, 2)
    )
    disk = before.restarted()
    ReleaseCache(ROOT, disk).remember("/reg", old)

    def state(disk: SimulatedDisk) -> State:
        known = ReleaseCache(ROOT, disk).recall("/reg", "churn")
        assert known is not None  # the old one is never lost
        return (known.route.seq,)

    return Command("cache-remember", disk, lambda disk: ReleaseCache(ROOT, disk).remember("/reg", new), state)


NAMES = (
    "publish-first", "publish-second", "publish-again", "append-route", "append-policy", "put-evidence",
    "cache-insert", "cache-replace", "cache-remember",
)  # fmt: skip


def attempt(command: Command, fault: Fault | None) -> tuple[SimulatedDisk, bool]:
    """Run a command with one fault; the disk it leaves and whether it was acknowledged."""
    disk = command.before.restarted()
    disk.fault = fault
    try:
        command.run(disk)
    except Crash:
        return disk, False
    except SalverError as problem:
        if problem.code != "storage-failed" or str(ROOT) not in problem.message:
            raise
        return disk, False
    return disk, True


def check(command: Command, disk: SimulatedDisk, acknowledged: bool, before: State, after: State) -> None:
    """Before or after, nothing between; and doing it again leads to `after`."""
    seen = command.state(disk)
    assert seen == after if acknowledged else seen in (before, after)
    command.run(disk)
    assert command.state(disk) == after


def faults(calls: list[str]) -> Iterator[Fault]:
    """Every way in which each call can fail; only a write can be short or torn."""
    for at, call in enumerate(calls):
        for kind in KINDS:
            if call.startswith("write ") or kind not in ("short", "torn"):
                yield Fault(at, kind)


def moments(calls: list[str]) -> Iterator[int]:
    """The calls before which a power loss can differ from one before the call before: what follows each change."""
    changed = True
    for at, call in enumerate(calls):
        if changed:
            yield at
        changed = not call.startswith(("scan", "is_folder", "exists", "reader", "close", "lock"))
    yield len(calls)


def states(command: Command) -> tuple[State, State, list[str]]:
    before = command.state(command.before.restarted())
    disk, acknowledged = attempt(command, None)
    assert acknowledged
    return before, command.state(disk.restarted()), disk.calls


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_at_any_call_leaves_all_or_nothing_and_a_retry_converges(
    commands: dict[str, Command], name: str
) -> None:
    command = commands[name]
    before, after, calls = states(command)
    for fault in faults(calls):
        disk, acknowledged = attempt(command, fault)
        try:
            check(command, disk.restarted(), acknowledged, before, after)
        except BaseException as problem:
            problem.add_note(f"{name}: {fault.kind} at call {fault.at}: {disk.calls[fault.at]}")
            raise


@pytest.mark.parametrize("name", NAMES)
def test_a_power_loss_at_any_call_leaves_all_or_nothing_and_what_was_acknowledged_stays(
    commands: dict[str, Command], name: str
) -> None:
    command = commands[name]
    before, after, calls = states(command)
    for at in moments(calls):
        disk, acknowledged = attempt(command, Fault(at, "crash-before"))
        for fates in outcomes(len(disk.pending), seed=at):
            try:
                check(command, disk.after_power_loss(fates.__getitem__), acknowledged, before, after)
            except BaseException as problem:
                call = disk.calls[at] if at < len(calls) else "the end"
                problem.add_note(f"{name}: power lost before call {at}: {call}; pending: {fates}")
                raise


@pytest.mark.parametrize("name", ["publish-first", "publish-second", "put-evidence"])
def test_what_is_acknowledged_over_the_remains_of_a_crash_survives_a_power_loss(
    commands: dict[str, Command], name: str
) -> None:
    command = commands[name]
    _, after, calls = states(command)
    for at in moments(calls):
        disk = attempt(command, Fault(at, "crash-before"))[0].restarted()
        command.run(disk)
        for fates in (["lost"] * len(disk.pending), ["torn"] * len(disk.pending)):
            seen = command.state(disk.after_power_loss(fates.__getitem__))
            assert seen == after, f"{name}: killed before call {at}, done again, then power lost ({fates[:1]})"


def outcomes(pending: int, seed: int, most: int = 12) -> Iterator[list[str]]:
    """Which pending changes survive: every combination of few, else the extremes and a seeded sample."""
    if 2**pending <= most:
        for combination in product(("kept", "lost"), repeat=pending):
            yield list(combination)
        return
    yield ["lost"] * pending
    yield ["kept"] * pending
    chance = random.Random(seed)
    for _ in range(most - 2):
        yield chance.choices(("kept", "lost", "torn"), k=pending)


def test_the_simulated_disk_would_show_a_missing_sync() -> None:
    class Forgetful(SimulatedDisk):
        def sync_folder(self, folder: Path) -> None:
            self._call(f"sync_folder {folder}", lambda: None)

    disk = Forgetful()
    disk.mkdir(ROOT.parent)
    registry_on(disk).put_evidence("churn", "run", "verdict", b"passed")
    assert disk.after_power_loss(lambda _: "lost").files() == {}
