"""A real `salver serve` in its own process group, for tests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.ports import free_port

SALVER = [sys.executable, "-P", "-m", "salver"]
START_TIMEOUT = 120.0


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """`salver serve` on a registry; started on entry, stopped as Control-C does on exit.

    The `log` gets what it says on stderr, unless it `speaks_to` something else, which then gets its stdout too.
    """

    def __init__(self, registry: Path, *options: str, log: Path, speaks_to: Path | None = None) -> None:
        self.registry = registry
        self.options = options
        self.log = log
        self.speaks_to = speaks_to
        self.port = free_port()
        self.admin_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        environment = {"SALVER_SERVE_GRPC_PORT": "-1", **os.environ, "SALVER_REGISTRY": str(self.registry)}
        self.log.touch()
        with (self.speaks_to or self.log).open("ab") as said:
            self.process = subprocess.Popen(
                [*SALVER, "serve", "--port", str(self.port), "--admin-port", str(self.admin_port), *self.options],
                env=environment,
                stdout=said if self.speaks_to else subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        assert self.process is not None
        ends = time.monotonic() + START_TIMEOUT
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                raise AssertionError(f"salver serve ended with {self.process.returncode}:\n{self.log.read_text()}")
            try:
                if self.get("/healthz/ready").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"not ready within {START_TIMEOUT:g} s:\n{self.log.read_text()}")

    def stop(self, signum: int = signal.SIGINT, timeout: float = 30.0) -> int:
        process = self.process
        assert process is not None
        if process.poll() is None:
            process.send_signal(signum)
        try:
            return process.wait(timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def get(self, path: str, *, port: int | None = None, timeout: float = 15.0) -> Answer:
        return self.ask("GET", path, port=port, timeout=timeout)

    def post(self, path: str, value: Any, headers: dict[str, str] | None = None) -> Answer:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.ask("POST", path, body, {"content-type": "application/json", **(headers or {})})

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        port: int | None = None,
        timeout: float = 15.0,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def raw(self, data: bytes, *, timeout: float = 10.0) -> bytes:
        """Send bytes, read until the server closes or says nothing more for a moment."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as sock:
            sock.sendall(data)
            received = b""
            try:
                while more := sock.recv(65536):
                    received += more
                    sock.settimeout(0.5)
            except TimeoutError:
                pass
            return received

    def workers(self, release: str = "") -> list[int]:
        """The process ids of this server's workers (of one release)."""
        wanted = f"{release}/".encode() if release else b""
        return [pid for pid, words in self._running(b"salver.worker") if any(word.startswith(wanted) for word in words)]

    def descendants(self) -> list[int]:
        """The process ids of every process below this server's first one."""
        assert self.process is not None
        return _descendants(self.process.pid)

    def gateways(self) -> list[int]:
        """The process ids of this server's gateways."""
        return [pid for pid, _ in self._running(b"salver.gateway")]

    def _running(self, module: bytes) -> list[tuple[int, list[bytes]]]:
        """The processes of this server that run a module, each with the words of its command line."""
        found = []
        for pid in self.descendants():
            with contextlib.suppress(OSError):  # it may just have ended
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if module in words:
                    found.append((pid, words))
        return found


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, known = [], {root}
    grown = True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if parent in known and pid not in known:
                known.add(pid)
                found.append(pid)
                grown = True
    return found
