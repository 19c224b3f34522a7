"""`make bench`: what a prediction costs, in CPU time of all the server's processes, beside FastAPI and nginx.

The whole process tree of a server is kept on core 0 and wrk on core 1. Servers take turns within each round, so that a
noisy minute hits all of them; the figure that counts is the least CPU time per request over the rounds, because a
neighbour can only add to it.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from bench import fixtures, load, processes, releases, report, start
from bench.fixtures import Fixture
from bench.servers import SERVERS, Server, Setting, free_port, running

HERE = Path(__file__).parent
WORK = HERE / ".work"


class Scenario(NamedTuple):
    """What clients do: rows per request, to which model, over how many connections."""

    name: str
    model: str
    rows: int
    connections: int


SCENARIOS = (
    Scenario("1 row, 1 connection", "iris", 1, 1),
    Scenario("1 row, 16 connections", "iris", 1, 16),
    Scenario("1 row, 64 connections", "iris", 1, 64),
    Scenario("1 row, 256 connections", "iris", 1, 256),
    Scenario("1,000 rows of 30, 4 connections", "cancer", 1000, 4),
)


class Plan(NamedTuple):
    """What is measured: servers, scenarios, rounds, and seconds of one cell."""

    servers: tuple[Server, ...]
    scenarios: tuple[Scenario, ...]
    rounds: int
    seconds: float


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables and keep them; fails when any request failed."""
    options = _options(argv)
    plan = _plan(options)
    for program in ("wrk", "taskset"):
        if shutil.which(program) is None:
            print(f"make bench needs {program}: apt-get install wrk util-linux", file=sys.stderr)
            return 1
    lock = (HERE / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another benchmark runs here: two at once would measure each other", file=sys.stderr)
        return 1
    shutil.rmtree(WORK, ignore_errors=True)
    data = fixtures.load()
    for fixture in data.values():
        fixtures.write(WORK / "models", fixture)
        if any(server.name.startswith("salver") for server in plan.servers):
            releases.publish(WORK / "registry", WORK / "models", fixture)
    with load.awake(1):
        cells = measure(plan, data)
    text = report.render(cells, [], plan.rounds, plan.seconds)
    if not options.smoke:
        _keep(text, cells, [])  # what took longest is safe before starts are measured
        starts = start.measure(plan.servers, data["iris"], WORK)
        text = report.render(cells, starts, plan.rounds, plan.seconds)
        _keep(text, cells, starts)
    print(text)
    return 1 if any(cell.errors for rows in cells.values() for cell in rows) else 0


def _keep(text: str, cells: dict[tuple[str, str], list[load.Cell]], starts: list[start.Start]) -> None:
    """Write the day's results."""
    stem = HERE / "results" / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    stem.parent.mkdir(exist_ok=True)
    stem.with_suffix(".md").write_text(text)
    raw = [{"server": s, "scenario": c, **cell._asdict()} for (s, c), rows in cells.items() for cell in rows]
    stem.with_suffix(".json").write_text(json.dumps({"cells": raw, "starts": starts}, indent=1))


def measure(plan: Plan, data: dict[str, Fixture]) -> dict[tuple[str, str], list[load.Cell]]:
    """Every cell of every round; servers take turns."""
    cells: dict[tuple[str, str], list[load.Cell]] = {}
    for number in range(plan.rounds):
        for server in plan.servers:
            for model in server.models:
                scenarios = [scenario for scenario in plan.scenarios if scenario.model == model]
                if scenarios:
                    print(f"round {number + 1}/{plan.rounds}: {server.what}, {model}", file=sys.stderr)
                    _serve(server, scenarios, data[model], plan.seconds, cells)
    return cells


def _serve(
    server: Server,
    scenarios: list[Scenario],
    fixture: Fixture,
    seconds: float,
    cells: dict[tuple[str, str], list[load.Cell]],
) -> None:
    rows = scenarios[0].rows
    setting = Setting(fixture.name, free_port(), WORK / "models", WORK)
    body = fixture.body(rows)
    script = load.write_script(WORK / f"{fixture.name}.lua", body)
    with running(server, setting, body, fixture.expected(rows), pin=True) as live:
        processes.settle(live.pid)
        load.measure(live.url, script, root=live.pid, connections=min(16, scenarios[-1].connections), seconds=1)
        for scenario in scenarios:
            cell = load.measure(live.url, script, root=live.pid, connections=scenario.connections, seconds=seconds)
            cells.setdefault((server.name, scenario.name), []).append(cell)


def _plan(options: argparse.Namespace) -> Plan:
    servers = tuple(s for s in SERVERS if not options.only or s.name in options.only)
    if shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists():
        print("nginx is not installed: measured without it", file=sys.stderr)
        servers = tuple(s for s in servers if s.name != "nginx")
    if options.smoke:
        chosen = tuple(s for s in servers if s.name in ("fastapi", "salver"))
        return Plan(chosen, SCENARIOS[1:2], 1, 1.0)
    return Plan(servers, SCENARIOS, options.rounds, 2.0 if options.quick else 5.0)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="What a prediction costs.")
    parser.add_argument("--quick", action="store_true", help="2 seconds a cell instead of 5")
    parser.add_argument("--rounds", type=int, default=3, help="how often every server has its turn (default 3)")
    parser.add_argument("--only", action="append", choices=[s.name for s in SERVERS], help="only this server; repeat")
    parser.add_argument("--smoke", action="store_true", help="two short cells that only show that it works")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
