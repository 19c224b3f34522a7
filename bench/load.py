"""One cell: wrk against one server, and what the server's processes used meanwhile."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import processes

_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


class Cell(NamedTuple):
    """One measurement: requests that wrk saw answered, seconds, CPU of the server's tree, latency in ms, errors."""

    requests: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    steal_seconds: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of all the server's processes per request."""
        return 1e6 * self.cpu_seconds / max(1, self.requests)

    @property
    def per_second(self) -> float:
        """Requests per second of wall time."""
        return self.requests / self.seconds


def write_script(path: Path, body: bytes) -> Path:
    """The wrk script that posts `body`."""
    text = body.decode()
    assert "]==]" not in text
    path.write_text(
        f'wrk.method = "POST"\nwrk.body = [==[{text}]==]\nwrk.headers["Content-Type"] = "application/json"\n'
    )
    return path


@contextlib.contextmanager
def awake(core: int) -> Iterator[None]:
    """Keep a core from going to sleep, at idle priority.

    A server whose answer wakes a sleeping virtual core pays for it: up to 40 µs on a nested virtual machine. Which
    server finds wrk asleep, and how often, is chance, and none of it is the server's own cost.
    """
    code = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    with subprocess.Popen([*pinned(core), sys.executable, "-S", "-c", code]) as spinner:
        try:
            yield
        finally:
            spinner.kill()


def measure(url: str, script: Path, *, root: int, connections: int, seconds: float) -> Cell:
    """Load `url` with `connections` keep-alive connections from the second core for `seconds`."""
    pids = processes.tree(root)
    cpu, steal = processes.cpu_seconds(pids), processes.machine_steal()
    argv = [*pinned(1), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "--timeout", "30s"]
    output = subprocess.run([*argv, "-s", str(script), url], check=True, capture_output=True, text=True).stdout
    used = processes.cpu_seconds(processes.tree(root)) - cpu
    return parse(output, cpu_seconds=used, steal_seconds=processes.machine_steal() - steal)


def parse(output: str, *, cpu_seconds: float, steal_seconds: float) -> Cell:
    """Read what wrk printed."""
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", output)
    if total is None:
        raise ValueError(f"wrk printed no total:\n{output}")
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", output)))
    if refused := re.search(r"Non-2xx or 3xx responses: (\d+)", output):
        errors += int(refused[1])
    return Cell(
        requests=int(total[1]),
        seconds=float(total[2]) * _UNITS[total[3]] / 1000,
        cpu_seconds=cpu_seconds,
        p50_ms=_percentile(output, 50),
        p99_ms=_percentile(output, 99),
        errors=errors,
        steal_seconds=steal_seconds,
    )


def pinned(core: int) -> list[str]:
    """The start of a command line that keeps a process tree on one core."""
    return ["taskset", "-c", str(core)]


def _percentile(output: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", output, re.MULTILINE)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")
