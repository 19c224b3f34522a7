"""The gateway's side of the control socket: hears what the follower tells, acknowledges tables."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any

import msgspec

from salver.access.terms import Grants
from salver.gateway.table import Ack, Hello, Pressure, Table, pack, unpack

RETRY = 0.1
MAX_LINE = 64 << 20


class Control:
    """Keeps a connection to the follower; without one, the last table stays in force."""

    def __init__(
        self,
        path: str,
        hello: Hello,
        on_table: Callable[[Table], None],
        on_grants: Callable[[Grants], None] | None = None,
        on_pressure: Callable[[Pressure], None] | None = None,
    ) -> None:
        self._path = path
        self._hello = hello
        self._on_table = on_table
        self._on_grants = on_grants
        self._on_pressure = on_pressure
        self._writer: asyncio.StreamWriter | None = None

    def begin(self) -> asyncio.Task[None]:
        """Run from now on; the process ends where that fails, for it would serve an old table for ever."""
        task = asyncio.get_running_loop().create_task(self.run())
        task.add_done_callback(_end_with)
        return task

    async def run(self) -> None:
        """Connect, listen, and begin again whenever the follower goes; raises only what a table or grants raise."""
        while True:
            try:
                with contextlib.suppress(OSError):
                    reader, self._writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
                if self._writer is not None:
                    self._send(self._hello)
                    await self._listen(reader)
            finally:
                if self._writer is not None:
                    self._writer.close()
                    self._writer = None
            await asyncio.sleep(RETRY)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while (message := await receive(reader)) is not None:
            if isinstance(message, Table):
                self._on_table(message)
            elif isinstance(message, Grants) and self._on_grants is not None:
                self._on_grants(message)
            elif isinstance(message, Pressure) and self._on_pressure is not None:
                self._on_pressure(message)

    def acknowledge(self, version: int, swap_ms: float) -> None:
        """Tell the follower that a table is effective here."""
        self._send(Ack(self._hello.gateway, version, swap_ms))

    def _send(self, message: Hello | Ack) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(pack(message))


async def receive(reader: asyncio.StreamReader) -> Any:
    """The next message; None where the connection has ended, or what came is no message."""
    with contextlib.suppress(OSError, ValueError, msgspec.DecodeError):
        if line := await reader.readline():
            return unpack(line)
    return None


def _end_with(task: asyncio.Task[None]) -> None:
    """Say why the table can't be followed any more and leave: the supervisor starts another gateway."""
    if not task.cancelled() and (problem := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": "the gateway can't follow its table", "exception": problem, "task": task}
        )
        os._exit(1)
