"""The sockets and shared memory that outlive gateways and workers because the keeper owns them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from salver.errors import error

BACKLOG = 1024
SETTLE = 0.05
"""Seconds that connections which have begun get to be whole and accepted, once no other begins."""
WAIT = 10.0
"""Seconds after which those that nobody has accepted are given up."""
_PRIVATE = 0o600
_ATTACH_FILTER = 26
_FLAGS_OF_TCP = 13
_WAITING = 24  # where Linux writes, among the facts about a socket that listens, how many connections wait on it
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, _FLAGS_OF_TCP),  # load that byte
        (0x54, 0, 0, 0x12),  # and SYN | ACK
        (0x15, 0, 1, 0x02),  # SYN alone?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # keep
    )
)
"""A filter of packets that drops those which ask for a new connection."""


class Closing:
    """How ports close without resetting a connection that a client believes open.

    First the kernel drops what would begin a new one: its client asks again in a second, and is refused. Those that
    have begun are accepted meanwhile, however long a gateway gets no time for it. Then the sockets end, for every
    process that holds them.
    """

    def __init__(self, ports: Sequence[socket.socket]) -> None:
        self._ports = ports
        self._deaf_until: float | None = None  # None while connections may begin
        self.due: float | None = None  # when the next step is, None for never

    def begin(self, at: float) -> None:
        """Close at this moment, or earlier if that was said."""
        if self._deaf_until is None:
            self.due = at if self.due is None else min(self.due, at)

    def go_on(self, now: float) -> None:
        """Take the step that is due, if one is."""
        if self.due is None or now < self.due:
            return
        if self._deaf_until is None:
            self._deaf_until, self.due = now + WAIT, now + SETTLE
            step = _refuse_new
        elif now < self._deaf_until and any(_waiting(port) for port in self._ports):
            self.due = now + SETTLE
            return
        else:
            self.due = None
            step = _end
        for port in self._ports:
            with contextlib.suppress(OSError):  # elsewhere than on Linux they end when the last process closes them
                step(port)


def _waiting(port: socket.socket) -> int:
    """How many connections of a port were not accepted yet, as far as the system tells."""
    if not sys.platform.startswith("linux"):
        return 0
    with contextlib.suppress(OSError):
        facts = port.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _WAITING + 4)
        return int.from_bytes(facts[_WAITING:], sys.byteorder)
    return 0


def _end(port: socket.socket) -> None:
    port.shutdown(socket.SHUT_RDWR)


def _refuse_new(port: socket.socket) -> None:
    if sys.platform.startswith("linux"):
        program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
        place = struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(program))
        port.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, place)


def bind(host: str, port: int, *, what: str, option: str, listen: bool = True) -> socket.socket:
    """Take a TCP address, and `listen` on it; raise `port-in-use` with the option for another, or `start-failed`.

    Who listens later sets SO_REUSEADDR then, so that the next server may begin beside connections that linger.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as problem:
        raise error("start-failed", f"{what}: {host!r} is no address of this machine: {problem}") from None
    listener = socket.socket(family, kind, proto)
    try:
        _take(listener, address)
        if listen:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.listen(BACKLOG)
    except OSError as problem:
        listener.close()
        if problem.errno == errno.EADDRINUSE:
            raise error(
                "port-in-use",
                f"{what}: port {port} on {host} is in use by another program",
                hint=f"choose another with {option}, or stop the other program",
            ) from None
        raise error("start-failed", f"{what}: can't listen on {host}:{port}: {problem.strerror}") from None
    listener.setblocking(False)
    return listener


def _take(listener: socket.socket, address: Any) -> None:
    """Bind to an address that is nobody else's, whether or not it is listened on.

    On Linux sockets that do not listen share an address where all of them have SO_REUSEADDR. So this one has it only
    while connections of a server before linger there, and only for the moment.
    """
    try:
        listener.bind(address)
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE:
            raise
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def place_of(listener: socket.socket) -> str:
    """The host and port of a TCP socket."""
    return address_of(listener).removeprefix("http://")


def address_of(listener: socket.socket, *, tls: bool = False) -> str:
    """The URL of a listening TCP socket."""
    scheme = "https" if tls else "http"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def bind_unix(path: Path) -> socket.socket:
    """Listen on a unix socket that only this user can connect to."""
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener.bind(str(path))
    path.chmod(_PRIVATE)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def memory(name: str, size: int) -> int:
    """The descriptor of zeroed memory of `size` bytes that processes can share."""
    if sys.platform.startswith("linux"):
        descriptor = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
