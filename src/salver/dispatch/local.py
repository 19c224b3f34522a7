"""A release served to this process alone: its own workers, no gateway. For proofs, batch, replay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from salver.dispatch.batching import Call, Limits
from salver.dispatch.dispatcher import Dispatcher
from salver.dispatch.launch import cpu_budget, worker_command
from salver.errors import SalverError, error
from salver.frames import Answers, Form, Reply

STOP_TIMEOUT = 5.0


class LocalRelease:
    """`async with LocalRelease(folder, "churn@7") as local: reply = await local.ask("native", body)`.

    Starts `workers` clean processes on the release unpacked at `folder`, waits until each has loaded and proven it,
    and stops them on exit. `options` are flags of the worker. Raises the worker's own error where it can't be served.
    """

    def __init__(self, folder: Path, name: str, *, workers: int = 1, options: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._name = name
        self._workers = workers
        self._options = options
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stack = contextlib.ExitStack()
        self._numbers = 0
        self._dispatcher: Dispatcher | None = None

    async def __aenter__(self) -> LocalRelease:
        runtime = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="salver-"))
        loop = asyncio.get_running_loop()
        try:
            started = [self._start(Path(runtime) / f"{index}.sock") for index in range(self._workers)]
            await asyncio.gather(*(asyncio.to_thread(self._await_ready, status) for _, status in started))
            limits = Limits(busy=self._workers, queue_requests=1 << 20, queue_bytes=1 << 40)
            self._dispatcher = Dispatcher(loop, limits, self, retry=True)
            self._dispatcher.set_workers({str(index): str(path) for index, (path, _) in enumerate(started)})
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._dispatcher is not None:
            self._dispatcher.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            await asyncio.to_thread(_reap, process)
        self._stack.close()

    async def ask(
        self, protocol: str, body: bytes, options: dict[str, str] | None = None, *, timeout: float = 3600.0
    ) -> Reply:
        """Send one request body, get its reply; raises the error where no worker could answer."""
        if self._dispatcher is None:
            raise error("not-ready", f"{self._name} has no worker yet", hint="use it in `async with`")
        self._numbers += 1
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        deadline = time.monotonic_ns() + int(timeout * 1e9)
        call = Call(self._numbers, Form(protocol, options), deadline, body, future)
        refusal = self._dispatcher.submit(call)
        if refusal:
            raise error(refusal, f"{self._name} refused the request")
        return await future

    def answered(self, answers: Answers, columns: list[Call | None], replies: list[Call | None], now: int) -> None:
        """Give each answer to the future that waits for it."""
        del now
        bodies = [Reply(number, 200, body) for number, body in zip(answers.ids, answers.bodies, strict=True)]
        for call, reply in zip((*columns, *replies), (*bodies, *answers.replies), strict=True):
            if call is not None and not call.owner.done():
                call.owner.set_result(reply)

    def failed(self, call: Call, code: str) -> None:
        """No worker could answer."""
        if not call.owner.done():
            call.owner.set_exception(error(code, f"{self._name} could not answer the request"))

    def _start(self, path: Path) -> tuple[Path, int]:
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(path))
        listener.listen(16)
        status, told = os.pipe()
        self._stack.callback(os.close, status)
        command = worker_command(
            self._name,
            self._folder,
            listen_fd=listener.fileno(),
            status_fd=told,
            threads=max(1, cpu_budget() // self._workers),
            options=self._options,
        )
        try:
            process = subprocess.Popen(command.argv, env=command.env, pass_fds=(listener.fileno(), told))
        finally:
            os.close(told)
        self._processes.append(process)
        return path, status

    def _await_ready(self, status: int) -> None:
        """Read the worker's status lines until it is ready, or raise what it says."""
        pending = b""
        while True:
            data = os.read(status, 65536)
            if not data:
                raise error("load-failed", f"a worker of {self._name} died while it loaded", hint="see its output")
            pending += data
            *lines, pending = pending.split(b"\n")
            for line in lines:
                said: dict[str, Any] = json.loads(line)
                if said["state"] == "ready":
                    return
                if said["state"] == "failed":
                    raise _told(said)


def _told(said: dict[str, Any]) -> SalverError:
    return error(said["code"], said["message"], hint=said["hint"], details=tuple(said["details"]))


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
