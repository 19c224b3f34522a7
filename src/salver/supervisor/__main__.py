"""`python -m salver.supervisor --plan-fd N [MODEL …]`: be the keeper of one server."""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import sys

from salver.errors import SalverError
from salver.supervisor import plan, runtime
from salver.supervisor.keeper import Keeper
from salver.worker.lifeline import go_on_unheard

DESCRIPTORS = 1 << 16
"""How many files may be open at once, where the system allows so many: each worker needs two."""


def take_descriptors() -> None:
    """Raise the limit of open files; it holds for every process of the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS names more than it gives
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    """Run one server until it is told to stop; returns its exit code (2 where a port is in use)."""
    parser = argparse.ArgumentParser(prog="salver.supervisor", description=__doc__)
    parser.add_argument("--plan-fd", type=int, required=True)
    parser.add_argument("models", nargs="*", help="only shown in the process list")
    options = parser.parse_args()
    go_on_unheard()
    take_descriptors()
    folder = None
    try:
        wanted = plan.read(options.plan_fd)
        folder = runtime.create(wanted.runtime)
        keeper = Keeper(wanted, options.plan_fd, folder)
    except SalverError as problem:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        hint = f"\nhint: {problem.hint}" if problem.hint else ""
        sys.stderr.write(f"error[{problem.code}]: {problem.message}{hint}\n")
        return problem.meaning.exit
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
