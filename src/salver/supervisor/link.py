"""The keeper's end of its connection to the follower: JSON lines both ways, never waiting for either."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
from collections.abc import Callable
from typing import Any

MOST_UNSENT = 16 << 20
LONGEST_LINE = 64 << 20
_CHUNK = 1 << 16


class Lines:
    """Cuts a byte stream into JSON objects; what is no object, or too long for one line, is dropped."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Every object that is now complete."""
        self._rest += data
        if b"\n" not in data:
            if len(self._rest) > self._longest:
                self._rest.clear()
            return []
        *complete, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        objects = []
        for line in complete:
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(line)
                if isinstance(value, dict):
                    objects.append(value)
        return objects


class Link:
    """One connection to one life of the follower."""

    def __init__(self, selector: selectors.BaseSelector, obey: Callable[[dict[str, Any]], None]) -> None:
        self._selector = selector
        self._obey = obey
        self._lines = Lines()
        self._unsent = bytearray()
        self._socket, self.theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._open = True
        selector.register(self._socket, selectors.EVENT_READ, self.ready)

    def ready(self) -> None:
        """Take the orders that came and send what waits."""
        while self._open:
            try:
                data = self._socket.recv(_CHUNK)
            except BlockingIOError:
                self._flush()
                return
            except OSError:
                data = b""
            if not data:
                self._end()
            for order in self._lines.feed(data):
                self._obey(order)

    def tell(self, event: dict[str, Any]) -> bool:
        """Send one event; false where the follower has not listened for so long that it must be replaced."""
        if self._open:
            self._unsent += json.dumps(event).encode() + b"\n"
            self._flush()
        return len(self._unsent) <= MOST_UNSENT

    def close(self) -> None:
        """Hear the follower's last orders, then let go of it."""
        self.ready()
        self._end()

    def _flush(self) -> None:
        if not self._open:
            return
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        waits = selectors.EVENT_WRITE if self._unsent else 0
        self._selector.modify(self._socket, selectors.EVENT_READ | waits, self.ready)

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._unsent.clear()
            self._selector.unregister(self._socket)
            self._socket.close()
