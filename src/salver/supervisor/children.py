"""One child process of the keeper: how it is spawned, what it has said, and when it may start again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from typing import Any, Literal

from salver.dispatch.launch import OUTPUT
from salver.supervisor.restart import Death
from salver.worker.lifeline import PARENT

Kind = Literal["gateway", "follower", "worker"]


class Child:
    """A process that should run until it is told to stop.

    `command` is its argument list with placeholders in braces; `listener` is a socket of its own that stays open from
    one life to the next. While it is down, `restart_at` says when it starts again (None: never).
    """

    def __init__(self, kind: Kind, name: str, command: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.kind = kind
        self.name = name
        self.command = command
        self.env = dict(env)
        self.group = ""
        self.address = ""
        self.listener: socket.socket | None = None
        self.status: dict[str, Any] = {}
        self.ready_at: float | None = None
        self.once_ready = False
        self.alone = False
        self.failures = 0
        self.restarts = 0
        self.restart_at: float | None = 0.0
        self.stopping = False
        self.kill_at: float | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process else None

    def spawn(self, now: float, places: Mapping[str, str], descriptors: tuple[int, ...]) -> None:
        """Start the process, with only these descriptors open in it; raise OSError if that fails."""
        argv = [fill(part, places) for part in self.command]
        self.status, self.restart_at = {}, None
        self.ready_at = None if self.kind == "worker" else now
        # A Control-C at the terminal, or a service that is stopped, means every process of the group: what an orderly
        # stop is, is the keeper's to decide. In a session of its own a child does not hear of either.
        self._process = subprocess.Popen(
            argv,
            env={**self.env, PARENT: str(os.getpid())},
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=OUTPUT if self.kind == "worker" else None,
            start_new_session=True,
        )

    def ended(self) -> int | None:
        """The exit code if it has ended since it was spawned (negative: the signal), else None."""
        return self._process.poll() if self._process else None

    def buried(self, now: float, code: int) -> Death:
        """Forget the process that ended, and say how it died."""
        ready_for = now - self.ready_at if self.ready_at is not None else None
        number = -code if code < 0 else signal.SIGTERM if code == 0 else 0  # who ends well was asked to
        refused = self.status.get("state") == "failed"
        worked = self.once_ready or self.ready_at is not None
        death = Death(now, ready_for, number, worked, self.alone, refused)
        self._process = self.ready_at = None
        self.alone = False
        return death

    def heard(self, status: dict[str, Any], now: float) -> None:
        """The process said something about itself on its status pipe."""
        state = status.get("state")
        self.alone = state == "alone"
        if state == "ready" and self.ready_at is None:
            self.ready_at, self.once_ready = now, True
        if state != "alone":
            self.status = {**self.status, **status}

    def send(self, number: int) -> None:
        """Send a signal if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def facts(self) -> dict[str, Any]:
        """What the follower may know of it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "group": self.group,
            "pid": self.pid,
            "address": self.address,
            "status": self.status,
            "restarts": self.restarts,
            "stopping": self.stopping,
            "gone": self.pid is None and self.restart_at is None,
        }


def fill(part: str, places: Mapping[str, str]) -> str:
    """One argument with its placeholder filled in; an argument that is no placeholder stays as it is."""
    return places.get(part[1:-1], part) if part.startswith("{") and part.endswith("}") else part


def pipe() -> tuple[int, int]:
    """A pipe whose read end does not block."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return reader, writer
