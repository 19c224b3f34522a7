"""How a process of a server lives: as long as its parent, stopped by that alone, whether or not somebody hears it."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import select
import signal
import sys
from typing import Any, TextIO

PARENT = "SALVER_PARENT"
"""The environment variable in which a parent tells its child its process id."""
STOP = signal.SIGUSR1
"""What a worker's parent sends to stop it: SIGTERM may come to every process of a service at once."""
PATIENCE = 1.0
"""Seconds that who reads what is printed may be behind."""
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
    """Print line by line from now on, and drop what no disk or pipe takes, where it would raise or wait for ever."""
    sys.stdout, sys.stderr = lossy(sys.stdout), lossy(sys.stderr)


def say(event: str, text: str, *, as_json: bool) -> None:
    """Say one line on stderr, for people or as one JSON object."""
    sys.stderr.write((json.dumps({"event": event, "text": text}) if as_json else f"salver: {text}") + "\n")


def lossy(stream: TextIO) -> TextIO:
    """The same stream, line by line, without what can't be written."""
    if stream is None:  # closed before the start: its descriptor is something else by now
        return stream
    raw = io.BufferedWriter(_Lossy(stream.fileno()))
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=True)


class _Lossy(io.FileIO):
    """A descriptor that takes everything, and drops what it can't write."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        self._patience = PATIENCE

    def write(self, data: Any, /) -> int:
        room = self._room.poll(self._patience * 1000)
        self._patience = PATIENCE if room else 0.0  # who waited in vain does not again, until there was room
        with contextlib.suppress(OSError):
            if room and (written := super().write(data[: select.PIPE_BUF])) is not None:
                return written
        return len(data)


def ignore_stops() -> None:
    """Be deaf to what whole process groups and services get; a process started from here is not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
