"""How a process of a server lives: as long as its parent, stopped by that alone, whether or not somebody hears it."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
import sys
from typing import Any, TextIO

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


def go_on_unheard() -> None:
    """Print line by line from now on, and drop what no disk or pipe takes any more, where it would raise."""
    sys.stdout, sys.stderr = lossy(sys.stdout), lossy(sys.stderr)


def lossy(stream: TextIO) -> TextIO:
    """The same stream, line by line, without what can't be written."""
    if stream is None:  # closed before the start: its descriptor is something else by now
        return stream
    raw = _Lossy(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "backslashreplace", line_buffering=True)


class _Lossy(io.FileIO):
    """A descriptor that takes everything, and drops what it can't write."""

    def write(self, data: Any, /) -> int:
        written = None  # as where it would block
        with contextlib.suppress(OSError):
            written = super().write(data)
        return len(data) if written is None else written


def ignore_stops() -> None:
    """Be deaf to what whole process groups and services get; a process started from here is not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
