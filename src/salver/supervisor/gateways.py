"""The follower's end of the control socket: tells gateways what holds from now on, hears what is in force."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from salver.access.terms import Grants
from salver.gateway.control import receive
from salver.gateway.table import Ack, Hello, Pressure, Table, pack

LONGEST_LINE = 1 << 16


class Heard(Protocol):
    """Who wants to know of gateways."""

    def came(self, gateway: int) -> Table | None:
        """A gateway connected; returns the table to give it, if there is one yet."""

    def went(self, gateway: int) -> None:
        """A gateway's connection ended."""

    def acknowledged(self, gateway: int, version: int, swap_ms: float) -> None:
        """A gateway has made a table effective."""


class Gateways:
    """All connected gateways, by index; a gateway that comes again replaces its former connection."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._kept: dict[type, Grants | Pressure] = {}
        self._failed: asyncio.Future[None]

    async def serve(self, listener: socket.socket) -> None:
        """Accept gateways until cancelled; raises what went wrong in deciding on something they said."""
        self._failed = asyncio.get_running_loop().create_future()
        server = await asyncio.start_unix_server(self._talk, sock=listener, limit=LONGEST_LINE)
        try:
            await self._failed
        finally:
            server.close()

    def publish(self, table: Table) -> None:
        """Give every connected gateway this table."""
        self._tell(table)

    def keep(self, message: Grants | Pressure) -> None:
        """Tell every gateway, now and when it comes; what was kept of the same kind is no longer told."""
        self._kept[type(message)] = message
        self._tell(message)

    def _tell(self, message: Table | Grants | Pressure) -> None:
        line = pack(message)
        for writer in self._writers.values():
            writer.write(line)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._listen(reader, writer)
        except Exception as problem:
            if not self._failed.done():
                self._failed.set_exception(problem)
        finally:
            writer.close()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        index = None
        while (message := await receive(reader)) is not None:
            if isinstance(message, Hello):
                index = message.gateway
                self._writers[index] = writer
                for kept in self._kept.values():
                    writer.write(pack(kept))
                table = self._heard.came(index)
                if table is not None:
                    writer.write(pack(table))
            elif isinstance(message, Ack) and index is not None:
                self._heard.acknowledged(index, message.version, message.swap_ms)
        if index is not None and self._writers.get(index) is writer:
            del self._writers[index]
            self._heard.went(index)
