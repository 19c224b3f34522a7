"""What a tree of processes has used: CPU time and memory, from /proc (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
SETTLE_TIME = 0.5
SETTLE_LIMIT = 60.0
SETTLED = 0.1


class Memory(NamedTuple):
    """Memory of one process in MiB: all it touches (rss), and its fair share of what it shares (pss)."""

    command: str
    rss: float
    pss: float


def tree(root: int) -> list[int]:
    """The process ids of `root` and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of all threads of `pids`, and of their children that ended, in seconds."""
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(pid))) / TICKS


def settle(root: int) -> None:
    """Return when the tree below `root` is idle: what still starts or warms up there would be counted as work."""
    ends = time.monotonic() + SETTLE_LIMIT
    before, now = -1.0, cpu_seconds(tree(root))
    while now - before > SETTLED * SETTLE_TIME and time.monotonic() < ends:
        time.sleep(SETTLE_TIME)
        before, now = now, cpu_seconds(tree(root))


def memory(pids: list[int]) -> list[Memory]:
    """What each process holds now."""
    found = []
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        sizes = {key: int(rest.split()[0]) / 1024 for key, rest in (line.split(":") for line in lines)}
        found.append(Memory(command, sizes["Rss"], sizes["Pss"]))
    return found


def machine_steal() -> float:
    """Seconds of CPU that the host has given to others so far, over all cores."""
    return int(Path("/proc/stat").read_text().split()[8]) / TICKS


def machine() -> str:
    """One line about this machine."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "unknown CPU",
    )
    return f"{os.cpu_count()} × {model}, Linux {os.uname().release}"


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
