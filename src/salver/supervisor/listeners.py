"""The sockets and shared memory that outlive gateways and workers because the keeper owns them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import tempfile
from pathlib import Path

from salver.errors import error

BACKLOG = 1024
_PRIVATE = 0o600


def bind(host: str, port: int, *, what: str, option: str) -> socket.socket:
    """Listen on a TCP address; raise `port-in-use` with the option that changes the port, or `start-failed`."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as problem:
        raise error("start-failed", f"{what}: {host!r} is no address of this machine: {problem}") from None
    listener = socket.socket(family, kind, proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
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
