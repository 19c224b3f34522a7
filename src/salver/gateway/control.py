"""The gateway's side of the control socket: hears tables and grants from the follower, acknowledges tables."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from salver.access.terms import Grants
from salver.gateway.table import Ack, Hello, Table, pack, unpack

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
    ) -> None:
        self._path = path
        self._hello = hello
        self._on_table = on_table
        self._on_grants = on_grants
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Connect, listen, and begin again whenever the follower goes; never returns."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, msgspec.DecodeError, ValueError):
                reader, self._writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE)
                self._writer.write(pack(self._hello))
                while line := await reader.readline():
                    message = unpack(line)
                    if isinstance(message, Table):
                        self._on_table(message)
                    elif isinstance(message, Grants) and self._on_grants is not None:
                        self._on_grants(message)
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            await asyncio.sleep(RETRY)

    def acknowledge(self, version: int, swap_ms: float) -> None:
        """Tell the follower that a table is effective here."""
        if self._writer is not None:
            self._writer.write(pack(Ack(self._hello.gateway, version, swap_ms)))
