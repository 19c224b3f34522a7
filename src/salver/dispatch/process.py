"""One worker process of ours: started, awaited until it is ready, started again, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from salver.dispatch.launch import OUTPUT, Command
from salver.errors import error
from salver.worker.lifeline import PARENT, STOP

STOP_TIMEOUT = 5.0


class WorkerProcess:
    """A worker that listens at `path`, on a socket that stays open from one life to the next.

    `command` makes its command from the two descriptors that it inherits: the listening socket and the status pipe.
    """

    def __init__(self, name: str, path: Path, command: Callable[[int, int], Command]) -> None:
        self.path = path
        self._name = name
        self._command = command
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._process: asyncio.subprocess.Process | None = None
        self._status: asyncio.BaseTransport | None = None

    async def start(self, timeout: float) -> None:
        """Return when it has loaded and proven its release; raises its own error where it can't, or is too slow."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        reader, told = os.pipe()
        try:
            self._hang_up()
            self._status, _ = await loop.connect_read_pipe(lambda: _Status(self._name, ready), os.fdopen(reader, "rb"))
            command = self._command(self._listener.fileno(), told)
            self._process = await asyncio.create_subprocess_exec(
                *command.argv,
                env={**command.env, PARENT: str(os.getpid())},
                pass_fds=(self._listener.fileno(), told),
                stdout=OUTPUT,
            )
        finally:
            os.close(told)
        try:
            async with asyncio.timeout(timeout):
                await ready
        except TimeoutError:
            raise error(
                "load-failed",
                f"a worker of {self._name} was not ready {timeout:g} s after it started",
                hint="what does its load wait for? serve.load_timeout (in Python load_timeout=) allows it more seconds",
            ) from None

    async def ended(self) -> int:
        """Return its exit code once it has ended (negative: the signal)."""
        return await self._process.wait() if self._process is not None else 0

    async def stop(self) -> None:
        """Ask it to end, kill it if it doesn't, and close its socket."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(STOP)
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self._hang_up()
        self._listener.close()

    def _hang_up(self) -> None:
        if self._status is not None:
            self._status.close()


class _Status(asyncio.Protocol):
    """Reads what a worker says on its status pipe, and keeps reading: a full pipe would stop the worker."""

    def __init__(self, name: str, ready: asyncio.Future[None]) -> None:
        self._name = name
        self._ready = ready
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        """One JSON object a line; the first that says `ready` or `failed` decides."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            said: dict[str, Any] = json.loads(line)
            if self._ready.done():
                continue
            if said["state"] == "ready":
                self._ready.set_result(None)
            elif said["state"] == "failed":
                details = tuple(said["details"])
                self._ready.set_exception(error(said["code"], said["message"], hint=said["hint"], details=details))

    def connection_lost(self, exc: Exception | None) -> None:
        """It has died, or closed the pipe."""
        del exc
        if not self._ready.done():
            self._ready.set_exception(
                error("load-failed", f"a worker of {self._name} died while it loaded", hint="see its output")
            )
