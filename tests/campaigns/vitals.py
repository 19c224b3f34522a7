"""What the processes of a server hold and have used, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.campaigns.checks import Verdict
from tests.integration.server import Server

TICK = os.sysconf("SC_CLK_TCK")


class Vitals(NamedTuple):
    """Processes, mostly the gateways and workers of a server; the KiB they hold and held at most, their ms of CPU."""

    processes: tuple[int, ...]
    rss: int
    peak: int
    cpu: float


def look(server: Server) -> Vitals:
    """The vitals now."""
    return of(server.gateways() + server.workers())


def of(processes: Sequence[int]) -> Vitals:
    """The vitals of these processes now."""
    pids = tuple(sorted(processes))
    return Vitals(pids, _kib(pids, "VmRSS"), _kib(pids, "VmHWM"), sum(map(_cpu, pids)))


def forget_peaks(server: Server) -> None:
    """Let the peaks begin again at what is held now."""
    for pid in server.gateways() + server.workers():
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def same(before: Vitals, after: Vitals, verdict: Verdict) -> None:
    """No process ended or came."""
    alive = before.processes == after.processes
    verdict.must("gateways and workers are the same processes", "yes" if alive else "no", "yes", alive)


def grown(before: Vitals, after: Vitals, most_mib: float, verdict: Verdict) -> None:
    """They hold hardly more than before."""
    growth = (after.rss - before.rss) / 1024
    verdict.must("growth of memory", f"{growth:+.1f} MiB", f"< {most_mib:g} MiB", growth < most_mib)


def _kib(pids: Sequence[int], name: str) -> int:
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / TICK
