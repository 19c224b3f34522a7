"""The benchmark's tables, as Markdown."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from statistics import median

from bench import processes
from bench.load import Cell
from bench.servers import SERVERS
from bench.start import Start

WHAT = {server.name: server.what for server in SERVERS}
PACKAGES = ("salver", "fastapi", "uvicorn", "pydantic", "scikit-learn", "onnxruntime", "numpy", "uvloop", "httptools")


def render(
    cells: Mapping[tuple[str, str], Sequence[Cell]], starts: Sequence[Start], rounds: int, seconds: float
) -> str:
    """The whole report: one table per scenario, then start and memory, then where it was measured."""
    parts = ["# What a prediction costs", "", _how(rounds, seconds)]
    for scenario in dict.fromkeys(scenario for _, scenario in cells):
        parts += ["", f"## {scenario}", "", *_table({s: rows for (s, c), rows in cells.items() if c == scenario})]
    if starts:
        parts += ["", "## Start and memory", "", *_starts(starts)]
    parts += ["", "## Where", "", *_where(cells)]
    return "\n".join(parts) + "\n"


def _how(rounds: int, seconds: float) -> str:
    return (
        f"All processes of a server on core 0, wrk on core 1, which is kept awake; {rounds} "
        f"round{'s' if rounds != 1 else ''} of {seconds:g} s, servers in turn. CPU is user and system time of all the "
        "server's processes per request, the least of the rounds; ratios are ratios of it. Requests per second are "
        "wall time, median (least to most); latency is from the round with the least CPU."
    )


def _table(rows: Mapping[str, Sequence[Cell]]) -> list[str]:
    best = {server: min(cells, key=lambda cell: cell.cpu_us) for server, cells in rows.items()}
    lines = [
        "| server | CPU µs / request | FastAPI ÷ this | this ÷ nginx | requests/s | p50 ms | p99 ms | errors |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for server, cell in sorted(best.items(), key=lambda item: item[1].cpu_us):
        speeds = [c.per_second for c in rows[server]]
        lines.append(
            f"| {WHAT[server]} | {cell.cpu_us:,.1f} | {_ratio(best.get(_by_hand(server)), cell)} "
            f"| {_ratio(cell, best.get('nginx'))} | {median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f}) "
            f"| {cell.p50_ms:.2f} | {cell.p99_ms:.2f} | {sum(c.errors for c in rows[server])} |"
        )
    return lines


def _by_hand(server: str) -> str:
    """The FastAPI service with the same model: what a server is compared with."""
    _, _, kind = server.partition("-")
    return f"fastapi-{kind}" if kind else "fastapi"


def _ratio(top: Cell | None, bottom: Cell | None) -> str:
    return "" if top is None or bottom is None or top is bottom else f"{top.cpu_us / bottom.cpu_us:.1f}×"


def _starts(starts: Sequence[Start]) -> list[str]:
    lines = ["| what | first answer, s | processes: PSS (RSS) in MiB |", "|---|---:|---|"]
    for one in starts:
        held = " · ".join(f"{m.command}: {m.pss:.0f} ({m.rss:.0f})" for m in one.memory)
        lines.append(f"| {one.what} | {one.seconds:.2f} | {held} |")
    return lines


def _where(cells: Mapping[tuple[str, str], Sequence[Cell]]) -> list[str]:
    every = [cell for rows in cells.values() for cell in rows]
    stolen = sum(cell.steal_seconds for cell in every) / max(1e-9, sum(cell.seconds for cell in every))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {processes.machine()}; Python "
        f"{platform.python_version()}; {versions}.",
        f"The host gave {stolen:.1%} of a core to others meanwhile: digits below 20 % mean nothing.",
    ]
