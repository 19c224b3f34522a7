"""Runs commands in the demo's folder as a person would, and starts its server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from salver.errors import error

HOST = "127.0.0.1"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
COMMAND_TIMEOUT = 300.0


class Shell:
    """A folder with a registry of its own, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("SALVER_")}
        self.environ |= {"SALVER_REGISTRY": str(folder / "registry"), "SALVER_CACHE": str(folder / "cache")}

    def salver(self, *arguments: str) -> Any:
        """Run `salver ARGUMENTS --json`; returns what it printed, raises with its message where it failed."""
        return json.loads(self._run([sys.executable, "-P", "-m", "salver", *arguments, "--json"]))

    def python(self, *arguments: str) -> str:
        """Run a script of the folder; returns what it printed."""
        return self._run([sys.executable, *arguments])

    def _run(self, command: list[str]) -> str:
        shown = " ".join(["salver", *command[4:]] if "-m" in command else ["python", *command[1:]])
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise error("start-failed", f"`{shown}` exited with {done.returncode}", details=tuple(said[-8:]))
        return done.stdout


class Ports(NamedTuple):
    """Where a server listens."""

    http: int
    admin: int


class Server:
    """`salver serve` in the background, its output in server.log."""

    def __init__(self, shell: Shell, model: str) -> None:
        self.ports = Ports(*_free_ports(2))
        self.log = shell.folder / "server.log"
        ports = ["--port", str(self.ports.http), "--admin-port", str(self.ports.admin), "--grpc-port", "0"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "salver", "serve", model, *ports, "--drain-delay", "0"],
                cwd=shell.folder, env=shell.environ, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process to signal."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.ports.http}"

    def wait_ready(self) -> None:
        """Wait until it says it is ready; raises with the end of its log where it doesn't."""
        ends = time.monotonic() + START_TIMEOUT
        while time.monotonic() < ends and self._process.poll() is None:
            if _answers(f"{self.url}/healthz/ready"):
                return
            time.sleep(0.05)
        self.stop()
        said = self.log.read_text(errors="replace").splitlines()[-8:]
        raise error("start-failed", f"the server did not become ready in {START_TIMEOUT:.0f} s", details=tuple(said))

    def stop(self) -> int:
        """Ask it to stop as Control-C does; returns its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode


def workers_of(release: str, folder: Path) -> set[int]:
    """The processes that run a release from below `folder`, as `ps` shows them."""
    shown = subprocess.run(["ps", "-axww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = (line.split(maxsplit=1) for line in shown.splitlines())
    worker = re.compile(rf"salver\.worker {re.escape(release)}(/\d+)? ")
    return {int(pid) for pid, command in lines if worker.search(command) and str(folder) in command}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
