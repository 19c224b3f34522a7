"""How a worker process is started: its command line and its scrubbed environment. Nothing here starts anything."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from salver.environments.place import Place

POOLS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
    "TOKENIZERS_NUM_THREADS",
)
PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")

OUTPUT = 2
"""Where a worker's standard output goes, the standard error: what a model prints is no answer and no access log."""


class Command(NamedTuple):
    """What to execute: argument list and the whole environment."""

    argv: list[str]
    env: dict[str, str]


def cpu_budget() -> int:
    """How many cores this process may use: its affinity, cut by a cgroup quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores)


def worker_command(
    name: str,
    folder: Path,
    place: Place,
    descriptors: tuple[int, int],
    *,
    threads: int,
    options: tuple[str, ...] = (),
) -> Command:
    """The command of one worker of the release unpacked at `folder`, in the place chosen for its environment.

    The worker inherits the two `descriptors`: a listening unix socket, and a pipe on which it writes one JSON line per
    change of state. `options` are further flags of the worker (`--no-golden`, `--any-environment`).
    """
    listen_fd, status_fd = descriptors
    argv = [
        place.python, "-P", *(["-S"] if place.path else []), "-m", "salver.worker", name, str(folder),
        "--listen-fd", str(listen_fd), "--status-fd", str(status_fd), *options,
    ]  # fmt: skip
    env = worker_environment(os.environ, threads)
    if place.path:
        env["PYTHONPATH"] = os.pathsep.join(place.path)
    return Command(argv, env)


def worker_environment(parent: Mapping[str, str], threads: int) -> dict[str, str]:
    """The environment of a worker: no secret of the parent's, and every numeric thread pool pinned before exec."""
    env = {name: parent[name] for name in PASSED if name in parent}
    env.update(dict.fromkeys(POOLS, str(threads)))
    env["PYTHONHASHSEED"] = "0"
    env["PYTHONUNBUFFERED"] = "1"
    return env
