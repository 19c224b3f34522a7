"""One HTTP/2 connection of the gRPC port without a network: it echoes, at `ONE` one message, at `MANY` each.

The standard health service is there too.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from salver import metrics
from salver.gateway.front import Front
from salver.gateway.grpc import health
from salver.gateway.grpc.calls import page
from salver.gateway.grpc.service import Method, Service
from salver.gateway.grpc.streaming import Streaming
from salver.gateway.http2 import Connection
from salver.gateway.paths import PUBLIC
from salver.gateway.serving import Serving
from salver.gateway.sweep import Sweep
from salver.limits import Limits

ONE, MANY = "/echo.Echo/One", "/echo.Echo/Many"


class Each(Streaming):
    """Answers each message with itself."""

    def took(self, message: bytes, now: int) -> None:
        del now
        self.line.message(self, message)

    def over(self, code: str) -> None:
        del code


class Pipe(asyncio.Transport):
    """Keeps what is written, and never blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "nothing is written behind the end"
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default

    def take(self) -> bytes:
        data = bytes(self.written)
        self.written.clear()
        return data


class World:
    """A connection and its end of the pipe; made within a running loop."""

    def __init__(self, limits: Limits | None = None) -> None:
        memory = os.memfd_create("world")
        os.ftruncate(memory, metrics.BLOCK_BYTES)
        self.block = metrics.Block(memory)
        os.close(memory)
        limits = limits or Limits()
        serving = Serving(asyncio.get_running_loop(), limits, self.block, lambda *_: None)
        self.front = Front(serving, limits, self.block, PUBLIC, lambda *_: b"", Sweep(time.monotonic_ns))
        methods = {
            ONE.encode(): Method("predict", page(lambda *said: said[1])),
            MANY.encode(): Method("predict", Each),
            **health.methods(),
        }
        self.pipe = Pipe()
        self.connection = Connection(self.front, Service(self.front, methods))
        self.connection.connection_made(self.pipe)

    async def say(self, data: bytes) -> bytes:
        """What the connection answers to these bytes."""
        if data:
            self.connection.data_received(data)
        for _ in range(3):
            await asyncio.sleep(0)
        return self.pipe.take()


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


def head(path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "here"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
