"""Answers what other processes of this user ask a running server: its state, and when a route is in force."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from salver.supervisor.state import Model, Process, Release, State, all_releases

LONGEST_LINE = 1 << 16
LONGEST_WAIT = 3600.0
MOST_WAITING = 256


class Inquiry:
    """The server behind the status socket: one JSON object a line in, one out."""

    def __init__(self, state: State, models: tuple[str, ...], look_again: Callable[[], None]) -> None:
        self._state = state
        self._models = models
        self._look_again = look_again
        self._card: dict[str, Any] = {}
        self._others: dict[str, dict[str, Any]] = {}
        self._waiting: dict[asyncio.Future[dict[str, Any]], tuple[str, int]] = {}
        self._swap_ms = 0.0
        self.access: Callable[[], dict[str, Any]] | None = None

    async def serve(self, listener: socket.socket) -> None:
        """Answer until cancelled."""
        server = await asyncio.start_unix_server(self._talk, sock=listener, limit=LONGEST_LINE)
        async with server:
            await server.serve_forever()

    def introduced(self, card: dict[str, Any], children: list[dict[str, Any]]) -> None:
        """The keeper said what server this is and which processes it has."""
        self._card = card
        for child in children:
            self.started(child)

    def started(self, child: dict[str, Any]) -> None:
        """A process of the server started."""
        if child["kind"] != "worker":
            self._others[child["name"]] = {name: child[name] for name in ("name", "pid", "restarts")}

    def pids(self) -> list[int]:
        """The processes of the server that are no workers."""
        return [self._card["pid"], *(each["pid"] for each in self._others.values() if each["pid"] is not None)]

    def swapped(self, swap_ms: float) -> None:
        """A gateway said how long its last swap took."""
        self._swap_ms = swap_ms

    def moved(self) -> None:
        """Something changed: answer those whose wait is over."""
        for future, (model, seq) in list(self._waiting.items()):
            answer = outcome(self._state, model, seq)
            if answer is not None and not future.done():
                future.set_result(answer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await _next(reader)
            while line:
                line = await self._talk_of(line, reader, writer)
        finally:
            writer.close()

    async def _talk_of(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Answer one line and return the next; a client that leaves meanwhile does not wait any longer."""
        answer = asyncio.create_task(self._answer(line))
        following = asyncio.create_task(_next(reader))
        try:
            await asyncio.wait((answer, following), return_when=asyncio.FIRST_COMPLETED)
            if answer.done() or following.result():
                writer.write(json.dumps(await answer).encode() + b"\n")
                with contextlib.suppress(OSError):
                    await writer.drain()
            return await following
        finally:
            answer.cancel()
            following.cancel()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            question = json.loads(line)
            op = question["op"]
            if op == "nudge":
                self._look_again()
                return {"ok": True}
            if op == "status":
                facts = {"swap_ms": self._swap_ms, "processes": list(self._others.values())}
                access = {"access": self.access()} if self.access is not None else {}
                return self._card | facts | access | describe(self._state)
            if op == "wait":
                return await self._wait(question["model"], int(question["seq"]), float(question["timeout"]))
        except (ValueError, TypeError, KeyError, RecursionError) as problem:
            return {"ok": False, "state": "bad-question", "message": f"{type(problem).__name__}: {problem}"}
        return {"ok": False, "state": "bad-question", "message": f"no such question: {op!r}"}

    async def _wait(self, model: str, seq: int, timeout: float) -> dict[str, Any]:
        if self._models and model not in self._models:
            return {"ok": True, "state": "not-served"}
        answer = outcome(self._state, model, seq)
        if answer is not None:
            return answer
        if len(self._waiting) >= MOST_WAITING:
            return {"ok": False, "state": "busy"}
        self._look_again()
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[future] = model, seq
        try:
            async with asyncio.timeout(min(timeout, LONGEST_WAIT)):
                return await future
        except TimeoutError:
            return {"ok": False, "state": "timeout"}
        finally:
            del self._waiting[future]


async def _next(reader: asyncio.StreamReader) -> bytes:
    """The next line; nothing where the client has gone, or sends what is too long for one."""
    with contextlib.suppress(OSError, ValueError):
        return await reader.readline()
    return b""


def outcome(state: State, name: str, seq: int) -> dict[str, Any] | None:
    """What became of route `seq` of a model: `effective`, `refused`, `superseded`, or None while that is open."""
    model = state.models.get(name)
    if model is None:
        return None
    failure = model.failure
    if failure is not None and failure.final and failure.seq == seq:
        return {"ok": False, "state": "refused", "live": model.live, "failure": msgspec.to_builtins(failure)}
    if model.seq < seq:
        return None
    routes = {route.seq: route for route in model.history}
    asked, newest = routes.get(seq), routes.get(model.seq)
    if asked is not None and newest is not None and asked.live != newest.live:
        return {"ok": False, "state": "superseded", "live": model.live, "route": msgspec.to_builtins(newest)}
    return {"ok": True, "state": "effective", "live": model.live, "seq": model.seq}


def describe(state: State) -> dict[str, Any]:
    """The whole state as JSON values."""
    return {
        "follower": os.getpid(),
        "draining": state.draining,
        "table": state.table.version,
        "gateways": [{"index": index, "table": max(acks, default=0)} for index, acks in sorted(state.acks.items())],
        "models": [_describe_model(state, model) for _, model in sorted(state.models.items())],
        "releases": [_describe_release(state, release) for release in sorted(all_releases(state), key=_number)],
    }


def _describe_model(state: State, model: Model) -> dict[str, Any]:
    route = model.route
    return {
        "model": model.name,
        "state": standing(state, model),
        "live": model.live,
        "warm": model.warm,
        "seq": model.seq,
        "routed": route.live if route else None,
        "routed_seq": route.seq if route else 0,
        "failure": msgspec.to_builtins(model.failure),
    }


def standing(state: State, model: Model) -> str:
    """One word: `ready`, `loading`, `refused` (another release serves on), `failed`, `crashing` or `unrouted`."""
    route = model.route
    if route is None and model.live is None:
        return "unrouted"
    refusal = model.refused.get(route.live) if route else None
    if refusal is not None and refusal.final:
        return "refused" if model.live is not None else "failed"
    if model.live is None or model.swap is not None or (route and route.live != model.live):
        return "loading"
    release = model.releases.get(model.live)
    workers = (process for process in state.processes.values() if release and process.group == release.name)
    return "ready" if any(process.ready for process in workers) else "crashing"


def _describe_release(state: State, release: Release) -> dict[str, Any]:
    model = state.models[release.model]
    return {
        "release": release.name,
        "phase": release.phase,
        "live": release.number == model.live,
        "warm": release.number == model.warm,
        "crashing": release.name in state.breakers,
        "workers": [
            _describe_process(process) for process in state.processes.values() if process.group == release.name
        ],
    }


def _number(release: Release) -> tuple[str, int]:
    return release.model, release.number


def _describe_process(process: Process) -> dict[str, Any]:
    word = "stopping" if process.stopping else process.status.get("state", "loading" if process.pid else "down")
    return {
        "name": process.name,
        "pid": process.pid,
        "state": word if process.pid or word == "failed" else "down",
        "restarts": process.restarts,
        "rss": _resident(process.pid),
        "load_ms": process.status.get("load_ms"),
    }


def _resident(pid: int | None) -> int | None:
    """Bytes of memory a process has; None where the system does not say."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as facts:
            return int(facts.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
