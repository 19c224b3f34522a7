"""A plain connection that sends bytes as they are and reads whole answers."""

from __future__ import annotations

import contextlib
import io
import socket
from typing import NamedTuple


class Whole(NamedTuple):
    """One answer: status, content type, body, and whether the connection ends with it."""

    status: int
    kind: str
    body: bytes
    last: bool


class Wire:
    """One connection; what came too much is the beginning of the next answer."""

    def __init__(self, port: int, timeout: float = 30.0) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._received = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def ask(self, data: bytes) -> Whole:
        """Send, and read one answer; an OSError says that none came."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            self.sock.sendall(data)
        return self.answer()

    def answer(self) -> Whole:
        """The next answer, past any that only says to go on."""
        while True:
            while b"\r\n\r\n" not in self._received:
                self._more()
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 100 "):
                break
        line, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in lines)}
        length = int(fields["content-length"])
        while len(self._received) < length:
            self._more()
        body, self._received = self._received[:length], self._received[length:]
        return Whole(int(line.split()[1]), fields.get("content-type", ""), body, fields.get("connection") == "close")

    def _more(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError("closed without an answer")
        self._received += data


def until_closed(sock: socket.socket) -> bytes:
    """What comes until the other side closes, or says nothing for as long as the socket waits; then this side does."""
    received = io.BytesIO()
    with sock, contextlib.suppress(ConnectionResetError, TimeoutError):
        while data := sock.recv(1 << 16):
            received.write(data)
    return received.getvalue()
