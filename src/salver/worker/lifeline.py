"""How a child obeys its parent alone: it can't outlive it, and only the parent's own signal stops it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT = "SALVER_PARENT"
"""The environment variable in which a parent tells its child its process id."""
STOP = signal.SIGUSR1
"""What a worker's parent sends to stop it: SIGTERM may come to every process of a service at once."""
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies; exit now if it already has (Linux; else a no-op)."""
    parent = int(os.environ.pop(PARENT, "0")) or os.getppid()
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def ignore_stops() -> None:
    """Be deaf to what whole process groups and services get; a process started from here is not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
