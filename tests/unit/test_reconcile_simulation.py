"""The follower's decisions under seeded chance: every order of events keeps the promises of a deployment."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from salver.gateway.table import Table
from salver.supervisor import pressure, state
from salver.supervisor.reconcile import Fallback
from tests.unit.follower_world import MODEL, World

SEEDS = 150
STEPS = 120
BAD = frozenset({3, 6})
"""Releases that never reproduce their golden rows."""


class Run:
    """One simulated life of a server; each step is one random event, after which the promises are checked."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.gateways = self.chance.choice([1, 2])
        workers = self.chance.choice([1, 2, 3])
        self.world = World(self.gateways, workers, loads_at_once=self.chance.choice([1, 2, 64]))
        self.unsent: dict[int, list[int]] = {gateway: [] for gateway in range(self.gateways)}
        self.proven: set[str] = set()
        self.served = False
        self.tables_seen = 0
        self.died = False
        self.world.route(1, "first")

    def step(self) -> None:
        moves = [move for move in self.moves() if move is not None]
        before, self.died = self.answering(), False
        self.chance.choice(moves)()
        self.world.settle()
        assert self.answering() or self.died or not before, "the live release had a proven worker in the table"
        self.hear_tables()
        self.check()

    def moves(self) -> list[Callable[[], object] | None]:
        world, pick = self.world, self.chance.choice
        opening = [key[1] for key in world.state.opening]
        loading = [name for name, child in world.children.items() if child["pid"] and not child["status"]]
        up = [
            name for name, child in world.children.items() if child["pid"] and child["status"].get("state") == "ready"
        ]
        down = [name for name, child in world.children.items() if not child["pid"] and not child["gone"]]
        stopping = [name for name, child in world.children.items() if child["stopping"]]
        waiting = [gateway for gateway, versions in self.unsent.items() if versions]
        return [
            lambda: world.route(self.chance.randint(1, 7)),
            (lambda: world.opened(pick(opening))) if opening else None,
            (lambda: world.open_failed(pick(opening), pick(["corrupt", "storage-failed"]))) if opening else None,
            (lambda: self.load(pick(loading))) if loading else None,
            (lambda: self.load(pick(loading))) if loading else None,
            (lambda: self.die(pick(up))) if up else None,
            (lambda: self.start(pick(down))) if down else None,
            (lambda: self.stopped(pick(stopping))) if stopping else None,
            (lambda: self.confirm(pick(waiting))) if waiting else None,
            (lambda: self.confirm(pick(waiting))) if waiting else None,
            lambda: world.passes(self.chance.choice([0.1, 1.0, 5.0])),
            self.gateway_restarts,
            self.relieve,
            self.fallback,
            self.follower_restarts,
        ]

    def load(self, name: str) -> None:
        number = int(name.partition("@")[2].partition("/")[0])
        if number in BAD:
            self.world.fails(name)
            self.world.dies(name, restart_in=None) if name in self.world.children else None
        else:
            self.proven.add(name)
            self.world.ready(name)

    def answering(self) -> bool:
        """Whether a worker of the live release is proven and in the table."""
        world = self.world
        workers = [w for entry in world.table.releases if entry.number == world.live for w in entry.workers]
        return any(world.state.processes[worker.name].ready for worker in workers)

    def relieve(self) -> None:
        """Memory runs short."""
        known = self.world.state
        sizes = {name: self.chance.randint(1, 9) for name in known.processes}
        if name := pressure.heaviest(known, sizes, 3):
            pressure.relieve(known, name)

    def die(self, name: str) -> None:
        self.died = True
        self.proven.discard(name)
        self.world.dies(name)

    def start(self, name: str) -> None:
        if not self.world.children[name]["stopping"]:
            self.world.starts_again(name)

    def stopped(self, name: str) -> None:
        self.proven.discard(name)
        self.world.stopped(name)

    def confirm(self, gateway: int) -> None:
        if gateway in self.world.state.acks:
            self.world.ack(self.unsent[gateway].pop(0), gateway)

    def gateway_restarts(self) -> None:
        gateway = self.chance.randrange(self.gateways)
        state.gateway_went(self.world.state, gateway)
        state.gateway_came(self.world.state, gateway)
        self.unsent[gateway] = [self.world.table.version] if self.world.table.version else []

    def follower_restarts(self) -> None:
        self.world.follower_restarts()
        for gateway in self.unsent:
            self.unsent[gateway] = [self.world.table.version] if self.world.table.version else []

    def fallback(self) -> None:
        wanted = self.world.of(Fallback)
        if wanted and wanted[-1].seq == self.world.routes[MODEL][-1].seq:
            self.world.fallback_written()

    def hear_tables(self) -> None:
        for table in self.world.tables[self.tables_seen :]:
            for versions in self.unsent.values():
                versions.append(table.version)
            self.promises_of(table)
        self.tables_seen = len(self.world.tables)

    def promises_of(self, table: Table) -> None:
        """What must hold for every table that ever reaches a gateway."""
        loaded = {entry.number: entry for entry in table.releases}
        live = table.live.get(MODEL)
        assert live is not None or not self.served, "a model that was served has no live release"
        self.served = self.served or live is not None
        assert live is None or live in loaded, "the live release is not in the table"
        assert live not in BAD, "a release that does not reproduce its golden rows is live"
        for entry in loaded.values():
            assert entry.number not in BAD
            assert 1 <= len(entry.workers) <= self.world.workers + 1
        assert len(set(table.slots.values())) == len(loaded)

    def check(self) -> None:
        """What must hold at every moment."""
        world = self.world
        for entry in world.table.releases:
            for worker in entry.workers:
                assert not world.children[worker.name]["stopping"], f"{worker.name} ends while it is in the table"
        confirmed = [max(versions, default=0) for versions in world.state.acks.values()]
        for table in world.tables:
            if confirmed and table.version >= min(confirmed):
                self.usable(table)
        numbers = {name.partition("/")[0] for name in world.running}
        assert len(numbers) <= 7, f"too much is loaded at once: {numbers}"

    def usable(self, table: Table) -> None:
        """A table that a gateway may still act on: its live release keeps its workers."""
        live = table.live.get(MODEL)
        for entry in table.releases if table is self.world.tables[-1] else ():
            for worker in entry.workers if entry.number == live else ():
                assert worker.name in self.world.children


@pytest.mark.parametrize("block", range(3))
def test_no_order_of_events_breaks_a_promise(block: int) -> None:
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        run = Run(seed)
        for step in range(STEPS):
            try:
                run.step()
            except AssertionError as broken:
                raise AssertionError(f"seed {seed}, step {step}: {broken}") from broken


@pytest.mark.parametrize("block", range(3))
def test_when_nothing_more_goes_wrong_what_is_wanted_is_live_and_nothing_else_is_left(block: int) -> None:
    for seed in range(1000 + block * SEEDS, 1000 + (block + 1) * SEEDS):
        run = Run(seed)
        for _ in range(STEPS):
            run.step()
        world = run.world
        world.route(5)
        for _ in range(30):
            for gateway in run.unsent:
                world.ack(gateway=gateway) if gateway in world.state.acks else None
                run.unsent[gateway] = []
            for key in list(world.state.opening):
                world.opened(key[1])
            for name, child in list(world.children.items()):
                if child["stopping"]:
                    run.stopped(name)
                elif not child["pid"] and not child["gone"]:
                    run.start(name)
                elif child["pid"] and not child["status"]:
                    run.load(name)
            world.passes(15.0)
        assert world.live == 5, f"seed {seed}"
        model = world.state.models[MODEL]
        assert model.seq == world.routes[MODEL][-1].seq, f"seed {seed}"
        assert set(model.releases) <= {5, model.warm}, f"seed {seed}"
        assert len(world.running) == world.workers * (1 if model.warm is None else 2), f"seed {seed}"
        assert len(world.state.free_slots) == 256 - len(model.releases), f"seed {seed}: a slot is lost"
