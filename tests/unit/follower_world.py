"""Everything around the follower's decisions, in memory: a registry, a keeper and gateways that do as they are told."""

from __future__ import annotations

from typing import Any

from salver.gateway.table import Loaded, Table
from salver.route import Route
from salver.signature import Column, Signature
from salver.supervisor import memory, state
from salver.supervisor.reconcile import Action, Fallback, Open, Publish, Start, Stop, Tell, settle
from salver.supervisor.state import Facts, Failure, State

MODEL = "churn"
SIGNATURE = Signature((Column("age", "float"),), (Column("churn", "float"),))


def facts(model: str, number: int, workers: int) -> Facts:
    loaded = Loaded(model, number, f"sha256:{model}{number}", "function", SIGNATURE, 64, "none", 2, ())
    return Facts(loaded, f"/cache/{model}/{number}", workers, 1)


class World:
    """One follower and its surroundings; nothing happens by itself."""

    def __init__(
        self,
        gateways: int = 1,
        workers: int = 2,
        load_timeout: float = 600.0,
        drain_timeout: float = 30.0,
        loads_at_once: int = 64,
    ) -> None:
        self.workers = workers
        self.limits = (load_timeout, drain_timeout, loads_at_once)
        self.now = 1000.0
        self.routes: dict[str, list[Route]] = {}
        self.children: dict[str, dict[str, Any]] = {}
        self.note: Any = None
        self.state = State(gateways, *self.limits)
        self.done: list[Action] = []
        self.tables: list[Table] = []
        for gateway in range(gateways):
            state.gateway_came(self.state, gateway)

    # what is seen

    @property
    def table(self) -> Table:
        return self.state.table

    @property
    def live(self) -> int | None:
        return self.table.live.get(MODEL)

    @property
    def loaded(self) -> list[int]:
        return [entry.number for entry in self.table.releases if entry.model == MODEL]

    @property
    def running(self) -> list[str]:
        return sorted(name for name, child in self.children.items() if not child["stopping"])

    def of(self, kind: type[Any]) -> list[Any]:
        return [action for action in self.done if isinstance(action, kind)]

    def told(self, kind: str) -> list[Tell]:
        return [tell for tell in self.of(Tell) if tell.kind == kind]

    # what happens

    def settle(self) -> list[Action]:
        done = []
        for _ in range(50):
            actions = settle(self.state, self.now)
            for action in actions:
                self._do(action)
            done += actions
            if not actions:
                self.done += done
                return done
        raise AssertionError(f"no end of deciding: {actions}")

    def _do(self, action: Action) -> None:
        if isinstance(action, Start):
            assert action.name not in self.children, f"{action.name} runs already"
            self.children[action.name] = {
                "name": action.name, "kind": "worker", "group": action.release, "pid": len(self.done) + 100,
                "address": f"/run/{action.name}", "status": {}, "restarts": 0, "stopping": False, "gone": False,
            }  # fmt: skip
            state.process_started(self.state, self.children[action.name])
        elif isinstance(action, Stop):
            self.children[action.name]["stopping"] = True
        elif isinstance(action, Publish):
            self.note = memory.note(self.state)
            self.tables.append(action.table)

    def route(self, live: int, action: str = "promote", model: str = MODEL) -> int:
        history = self.routes.setdefault(model, [])
        history.append(Route(model, len(history) + 1, live, "ann", "2025-01-01T00:00:00Z", action))
        state.routes_came(self.state, model, history[-1:])
        self.settle()
        return len(history)

    def opened(self, number: int, model: str = MODEL) -> None:
        state.opened(self.state, (model, number), facts(model, number, self.workers), self.now)
        self.settle()

    def open_failed(self, number: int, code: str, model: str = MODEL) -> None:
        failure = Failure(f"{model}@{number}", 0, code, f"{model}@{number} is broken")
        state.open_failed(self.state, (model, number), failure, self.now)
        self.settle()

    def ready(self, name: str) -> None:
        child = self.children[name]
        child["status"] = {"state": "ready", "load_ms": 5.0}
        state.process_said(self.state, name, child["status"])
        self.settle()

    def fails(self, name: str, code: str = "golden-mismatch", **more: Any) -> None:
        """A worker says why it can't serve, and ends."""
        child = self.children[name]
        child["status"] = {"state": "failed", "code": code, "message": f"{name} does not work", **more}
        state.process_said(self.state, name, child["status"])
        self.settle()

    def dies(self, name: str, restart_in: float | None = 0.1) -> None:
        child = self.children[name]
        if child["stopping"]:
            self.stopped(name)
            return
        child["pid"], child["gone"] = None, restart_in is None
        state.process_ended(self.state, name, 9, restart_in)
        self.settle()

    def starts_again(self, name: str) -> None:
        child = self.children[name]
        child["pid"], child["status"], child["restarts"] = 999, {}, child["restarts"] + 1
        state.process_started(self.state, child)
        self.settle()

    def stopped(self, name: str) -> None:
        """A worker that was told to end has ended."""
        assert self.children.pop(name)["stopping"]
        state.process_ended(self.state, name, 0, None)
        self.settle()

    def ack(self, version: int | None = None, gateway: int | None = None) -> None:
        for index in [gateway] if gateway is not None else list(self.state.acks):
            state.acknowledged(self.state, index, self.table.version if version is None else version)
        self.settle()

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def fallback_written(self) -> None:
        """The registry takes the newest fallback that was asked for, if the route is still the newest."""
        wanted: Fallback = self.of(Fallback)[-1]
        assert self.routes[wanted.model][-1].seq == wanted.seq
        self.route(wanted.live, "fallback", wanted.model)

    def names(self, number: int, model: str = MODEL) -> list[str]:
        return [f"{model}@{number}/{i}" for i in range(self.workers)]

    def load(self, number: int, model: str = MODEL) -> None:
        """Everything goes well until the release is proven."""
        self.opened(number, model)
        for name in self.names(number, model):
            self.ready(name)

    def serve(self, *numbers: int) -> None:
        """Promote these releases, one after the other, each to the end."""
        for number in numbers:
            self.route(number)
            if (MODEL, number) in self.state.opening:
                self.load(number)
            self.finish()

    def finish(self) -> None:
        """Gateways confirm and stopped workers end until nothing changes."""
        for _ in range(4):
            self.ack()
            for name in [name for name, child in self.children.items() if child["stopping"]]:
                self.stopped(name)

    def follower_restarts(self) -> None:
        """A new follower with the keeper's memory; gateways connect again, routes are read again."""
        connected = list(self.state.acks)
        self.state = State(self.state.expected_gateways, *self.limits)
        memory.recall(self.state, self.note, self.now)
        state.processes_known(self.state, self.children.values(), [])
        for gateway in connected:
            state.gateway_came(self.state, gateway)
        for model, history in self.routes.items():
            state.routes_came(self.state, model, history)
        self.settle()


__all__ = ["MODEL", "Fallback", "Open", "Publish", "Start", "Stop", "World", "facts"]
