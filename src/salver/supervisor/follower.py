"""`python -m salver.supervisor.follower …`: follows the registry, decides what is loaded and who is live.

It may die at any time: gateways keep their last table, workers belong to the keeper, and the keeper remembers the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from salver import metrics
from salver.access.terms import read_terms
from salver.dispatch.launch import cpu_budget, worker_command
from salver.errors import SalverError, error
from salver.gateway.table import Pressure, Table
from salver.limits import Limits
from salver.registry import Registry
from salver.route import Change, Route
from salver.storage.folder import FolderStorage
from salver.supervisor import memory, plan, reconcile, state
from salver.supervisor.announce import Voice
from salver.supervisor.deaths import Deaths
from salver.supervisor.gateways import Gateways
from salver.supervisor.grants import GrantsWatch
from salver.supervisor.inquiry import Inquiry
from salver.supervisor.link import LONGEST_LINE
from salver.supervisor.pressure import Watch, budget_of
from salver.supervisor.reconcile import Action, Fallback, Open, Publish, Start, Stop, Tell, refused
from salver.supervisor.releases import Releases
from salver.supervisor.state import Facts, Failure, Key, State
from salver.worker.lifeline import die_with_parent, go_on_unheard, ignore_stops

STOP_GRACE = 10.0
LOOK_FOR_MODELS = 2.0
PARALLEL_OPENS = 2
FIRST_READ = 2.0
_MARKS = {"-101": "{listen}", "-102": "{status}"}


class Follower:
    """One life of the follower."""

    def __init__(
        self, wanted: plan.Plan, releases: Releases, block: metrics.Block, keeper: asyncio.StreamWriter
    ) -> None:
        self._plan = wanted
        self._limits = msgspec.json.decode(wanted.limits, type=Limits)
        self._of_bodies = self._limits.for_workers()
        self._releases = releases
        self._cells = block.cells
        self._deaths = Deaths(block)
        self._keeper = keeper
        self._voice = Voice(wanted.json_logs)
        self._gateways = Gateways(self)
        self._state = State(
            wanted.gateways,
            load_timeout=wanted.load_timeout,
            drain_timeout=wanted.drain_timeout,
            loads_at_once=cpu_budget(),
        )
        self._inquiry = Inquiry(self._state, wanted.models, self.look_again)
        self._grants = GrantsWatch(read_terms(wanted.access), self._gateways.keep, self._voice.say)
        self._inquiry.access = lambda: self._grants.facts
        self._pressure = -1  # gateways may know a level from a follower before this one
        self._look = asyncio.Event()
        self._openers = ThreadPoolExecutor(PARALLEL_OPENS, thread_name_prefix="open")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled = False
        self._registry_is_down = False

    async def run(self, events: asyncio.StreamReader, control: socket.socket, status: socket.socket) -> None:
        """Follow until the keeper goes."""
        self._event(json.loads(await events.readline()))
        routes = asyncio.create_task(self._follow_routes())
        servers = [
            asyncio.create_task(self._gateways.serve(control)),
            asyncio.create_task(self._inquiry.serve(status)),
            asyncio.create_task(self._grants.run(self._plan.poll)),
        ]
        budget = budget_of(self._limits.memory, self._pids)
        if budget is not None:
            servers.append(asyncio.create_task(Watch(budget, self._state, self).run()))
        self._tasks.update((routes, *servers))
        for task in (routes, *servers):
            task.add_done_callback(_end_with)
        while line := await events.readline():
            self._event(json.loads(line))
            self.settle()

    def look_again(self) -> None:
        """Read the registry now."""
        self._look.set()

    # what happens

    def _event(self, event: dict[str, Any]) -> None:
        known = self._state
        match event["event"]:
            case "children":
                memory.recall(known, event["note"], time.monotonic())
                state.processes_known(known, event["children"], event["breakers"])
                for release, deaths in event["deaths"].items():
                    self._deaths.told(release, deaths)
                self._deaths.write(known.slots)
                known.draining = event["draining"]
                self._voice.address = event["card"]["http"]
                self._inquiry.introduced(event["card"], event["children"])
                for name in self._plan.models:
                    state.add_model(known, name)
            case "started":
                state.process_started(known, event)
                self._inquiry.started(event)
            case "status":
                state.process_said(known, event["name"], event["status"])
            case "exited":
                self._exited(event)
            case "breaker":
                state.breaker_moved(known, event["group"], event["open"])
                if event["open"]:
                    text = f"{event['group']} died too often; its workers start again only every 30 s"
                    self._voice.say("crashing", text, release=event["group"])
            case "deaths":
                self._deaths.told(event["group"], event["deaths"])
                self._deaths.write(known.slots)
            case "drain":
                known.draining = True

    def _exited(self, event: dict[str, Any]) -> None:
        process = self._state.processes.get(event["name"])
        if process is not None and process.ready and event["restart_in"] is not None:
            text = f"{process.name} died ({_how(event['code'])}); it starts again in {event['restart_in']:.1f} s"
            self._voice.say("died", text, worker=process.name, code=event["code"])
        state.process_ended(self._state, event["name"], event["code"], event["restart_in"], event["status"])

    def came(self, gateway: int) -> Table | None:
        """A gateway connected; it gets the newest table once there is one."""
        state.gateway_came(self._state, gateway)
        return self._state.table if self._state.table.version else None

    def went(self, gateway: int) -> None:
        """A gateway's connection ended."""
        state.gateway_went(self._state, gateway)
        self.settle()

    def acknowledged(self, gateway: int, version: int, swap_ms: float) -> None:
        """A gateway has made a table effective."""
        state.acknowledged(self._state, gateway, version)
        self._inquiry.swapped(swap_ms)
        self.settle()

    # memory

    def _pids(self) -> list[int | None]:
        return [*self._inquiry.pids(), *(process.pid for process in self._state.processes.values())]

    def pressed(self, level: int, share: float) -> None:
        """So much of the memory budget is in use, which means this level of pressure."""
        self._cells[metrics.GATEWAY_AT["salver_memory_used_ratio"]] = share
        if level != self._pressure:
            self._pressure = level
            self._gateways.keep(Pressure(level))

    def told(self, event: str, text: str) -> None:
        """Say one thing."""
        self._voice.say(event, text)

    # what follows from it

    def settle(self) -> None:
        """Decide and act until there is nothing left to do for now."""
        if not self._settled:
            return  # the routes were not read yet: whatever is there stays as it is
        for _ in range(100):
            actions = reconcile.settle(self._state, time.monotonic())
            for action in actions:
                self._do(action)
            if not actions:
                break
        self._inquiry.moved()

    def _do(self, action: Action) -> None:
        match action:
            case Open(model, number):
                self._spawn(self._open((model, number)))
            case Start(name, release, facts):
                self._start(name, release, facts)
            case Stop(name):
                self._order(op="stop", name=name, grace=STOP_GRACE)
            case Publish(table):
                # The keeper hears it first: what gateways know, a follower that comes after this one knows too.
                self._order(op="remember", note=memory.note(self._state))
                self._deaths.write(table.slots)
                self._gateways.publish(table)
            case Fallback():
                self._spawn(self._fall_back(action))
            case Tell():
                self._tell(action)

    def _tell(self, tell: Tell) -> None:
        self._voice.tell(tell)
        if tell.kind == "live":
            self._order(op="remember", note=memory.note(self._state))
            model = self._state.models[tell.release.rpartition("@")[0]]
            if model.route is not None and model.route.live == model.live:
                self._reader.submit(self._releases.remember, model.route)

    def _start(self, name: str, release: str, facts: Facts) -> None:
        flags = {"--any-environment": self._plan.any_environment, "--json-logs": self._plan.json_logs}
        options = tuple(flag for flag, wanted in flags.items() if wanted)
        folder = Path(facts.folder)
        command = worker_command(name, folder, facts.place, (-101, -102), threads=facts.threads, options=options)
        argv = [_MARKS.get(part, part) for part in command.argv]
        extra = {name: os.environ[name] for name in self._plan.environment if name in os.environ}
        self._order(op="start", name=name, group=release, argv=argv, env=command.env | extra | self._of_bodies)

    def _order(self, **order: Any) -> None:
        self._keeper.write(json.dumps(order).encode() + b"\n")

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        try:
            facts = await loop.run_in_executor(self._openers, self._releases.open, *key)
            state.opened(self._state, key, facts, time.monotonic())
        except Exception as raised:
            name = f"{key[0]}@{key[1]}"
            problem = raised if isinstance(raised, SalverError) else _unexpected(name, raised)
            failure = Failure(name, 0, problem.code, problem.message, problem.hint, problem.details)
            state.open_failed(self._state, key, failure, time.monotonic())
            model = self._state.models[key[0]]
            if key[1] in model.refused:
                self._voice.tell(refused(model, failure, key[1]))
        self.settle()

    async def _fall_back(self, fallback: Fallback) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        change = Change(fallback.live, "fallback", "automatic", now, fallback.why)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._reader, self._releases.fall_back, change, fallback.model, fallback.seq)
        except SalverError as problem:
            if problem.code != "lost-race":
                state.fallback_failed(self._state, fallback.model, time.monotonic())
                self._voice.say("fallback-failed", f"{fallback.model}: the fallback can't be recorded: {problem}")
        self.look_again()

    # routes

    async def _follow_routes(self) -> None:
        """Read the registry now and then, and at once when somebody says that it changed."""
        look_for_models = 0.0
        loop = asyncio.get_running_loop()
        while True:
            self._look.clear()
            started = time.monotonic()
            names = started >= look_for_models or self._registry_is_down
            read = loop.run_in_executor(self._reader, self._read, names)
            if not self._settled:
                await asyncio.wait([read], timeout=FIRST_READ)
                if not read.done():
                    await self._start_without_registry("it does not answer")
            self._take(await read)
            if names:
                look_for_models = started + LOOK_FOR_MODELS
            if not self._settled and self._registry_is_down:
                await self._start_without_registry("")
            if not self._settled:
                self._settled = True
                self._say_hello()
            self.settle()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), self._plan.poll)

    def _say_hello(self) -> None:
        """Say at the start what is still missing; what is there is said when it is live."""
        for name, model in sorted(self._state.models.items()):
            if model.route is None and model.live is None:
                text = f"{name} has no live release yet; it is served as soon as one is promoted"
                self._voice.say("waiting", f"{text} · hint: salver promote {name}@N", model=name)
        if not self._state.models and not self._registry_is_down:
            self._voice.say(
                "waiting", f"{self._plan.registry} has no live release yet; each is served once it is promoted"
            )

    def _read(self, names: bool) -> dict[str, list[Route]] | SalverError:
        """New routes by model (in a thread); an error as a value."""
        try:
            known = list(self._state.models)
            models = self._releases.models(known) if names else known
            return {model: self._releases.routes_after(model, self._newest(model)) for model in models}
        except SalverError as problem:
            return problem

    def _newest(self, model: str) -> int:
        known = self._state.models.get(model)
        return known.route.seq if known is not None and known.route is not None else 0

    def _take(self, read: dict[str, list[Route]] | SalverError) -> None:
        if isinstance(read, SalverError):
            if not self._registry_is_down:
                live = any(model.live is not None for model in self._state.models.values())
                then = "serving goes on" if live else "it is tried again"
                self._voice.say("registry-down", f"the registry can't be read; {then}: {read}")
            self._registry_is_down = True
            return
        if self._registry_is_down:
            self._voice.say("registry-up", "the registry can be read again")
        self._registry_is_down = False
        for model, routes in read.items():
            state.routes_came(self._state, model, routes)

    async def _start_without_registry(self, why: str) -> None:
        """Take what was in force when the registry could last be read."""
        for known in await asyncio.to_thread(self._releases.last_known):
            state.routes_came(self._state, known.route.model, [known.route])
        if why:
            self._voice.say("registry-down", f"the registry {self._plan.registry} can't be read: {why}")
        self._settled = True
        self.settle()


def _end_with(task: asyncio.Task[None]) -> None:
    """A part that must not end has ended: leave, and let the keeper start another follower."""
    if not task.cancelled() and task.exception() is not None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a part of the follower failed", "exception": task.exception(), "task": task}
        )
        os._exit(1)


def _unexpected(name: str, raised: Exception) -> SalverError:
    return error("internal", f"{name} can't be opened: {type(raised).__name__}: {raised}")


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"


async def follow(options: argparse.Namespace) -> None:
    """Follow until the keeper goes."""
    wanted = plan.read(options.plan_fd)
    releases = Releases(
        wanted, Registry(FolderStorage(Path(wanted.registry))), Path(options.folder), Voice(wanted.json_logs).say
    )
    events, keeper = await asyncio.open_unix_connection(
        sock=socket.socket(fileno=options.keeper_fd), limit=LONGEST_LINE
    )
    follower = Follower(wanted, releases, metrics.Block(options.metrics_fd), keeper)
    control, status = (socket.socket(fileno=number) for number in (options.control_fd, options.status_fd))
    await follower.run(events, control, status)


def main() -> int:
    """Run the follower; returns its exit code."""
    parser = argparse.ArgumentParser(prog="salver.supervisor.follower", description=__doc__)
    for name in ("--plan-fd", "--keeper-fd", "--control-fd", "--status-fd", "--metrics-fd"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--folder", required=True, help="a folder of this server alone")
    options = parser.parse_args()
    die_with_parent()
    ignore_stops()
    go_on_unheard()
    asyncio.run(follow(options))
    os._exit(0)  # threads may still wait for a registry that does not answer


if __name__ == "__main__":
    sys.exit(main())
