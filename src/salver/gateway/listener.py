"""One listening socket of a gateway: with TLS where it has a certificate, which may change while connections stay."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any

from salver.access.terms import Tls
from salver.errors import error

BACKLOG = 1024
UNSENT = 64 << 10
"""Bytes of an answer that the system keeps for a client that does not read; it would take megabytes."""
HANDSHAKES = 0.5
"""Seconds that a port which closes waits for handshakes that have begun; those that take longer go on."""
_AT_ONCE = struct.pack("ii", 1, 0)

_Stamps = tuple[tuple[int, int, int] | None, ...]


class Listener:
    """Accepts connections from an inherited socket.

    Changed files are taken for connections to come: a new server begins on the same socket before the old one stops
    accepting. Files that can't be used leave the old ones in force, and `say` hears why.
    """

    def __init__(
        self,
        descriptor: int,
        factory: Callable[[], asyncio.Protocol],
        tls: Tls,
        handshake_time: float,
        say: Callable[[str], None],
        speaks: str = "http/1.1",
    ) -> None:
        self._socket = socket.socket(fileno=descriptor)
        with contextlib.suppress(OSError):  # it may be no TCP
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        self._factory = factory
        self._tls = tls
        self._handshake_time = handshake_time
        self._say = say
        self._speaks = speaks
        self._stamps: _Stamps = ()
        self._server: asyncio.Server | None = None
        self._opening = False
        self._closed = False
        self._options: dict[str, Any] = {}
        self._taking: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Begin to accept; raises `start-failed` where the certificate can't be used."""
        # Its connections may linger when it ends; the next server can then bind beside them.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._stamps = _stamps(self._tls)
        self._server = await self._serve(context(self._tls, self._speaks))

    def changed(self) -> bool:
        """Whether the files of its certificate are others than those in force."""
        fixed = not self._tls or self._opening or self._closed or self._server is None
        return not fixed and _stamps(self._tls) != self._stamps

    async def reload(self) -> None:
        """Take the changed files."""
        self._opening = True
        try:
            self._stamps = _stamps(self._tls)
            fresh = await self._serve(context(self._tls, self._speaks))
        except Exception as problem:
            self._say(f"the new certificate is not used, the old one stays: {problem}")
            return
        finally:
            self._opening = False
        old, self._server = self._server, fresh
        if self._closed:
            fresh.close()
        if old is not None:
            old.close()
        self._say(f"{os.path.basename(self._tls.cert)} was read again")

    async def close(self, patience: float) -> None:
        """Accept what still comes until the port is closed, `patience` seconds at most, and then no more."""
        self._closed = True
        if self._server is None:
            return
        self._server.close()
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._socket, self._take, ended)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), patience)
        self._take(ended)
        loop.remove_reader(self._socket)
        if self._taking:
            await asyncio.wait(self._taking, timeout=HANDSHAKES)

    def _take(self, ended: asyncio.Event) -> None:
        """Accept every connection that waits."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                taken, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError:  # the port is closed, for all that hold it
                ended.set()
                return
            taken.setblocking(False)
            task = loop.create_task(self._begin(taken))
            self._taking.add(task)
            task.add_done_callback(self._taking.discard)

    async def _begin(self, taken: socket.socket) -> None:
        """Serve a connection that was accepted here."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(self._factory, taken, **self._options)

    async def _serve(self, secure: ssl.SSLContext | None) -> asyncio.Server:
        if secure is not None:
            self._options = {"ssl": secure, "ssl_handshake_timeout": self._handshake_time}
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._factory, sock=self._socket.dup(), backlog=BACKLOG, **self._options)


def context(tls: Tls, speaks: str = "http/1.1") -> ssl.SSLContext | None:
    """What a listener with these files speaks, None without any: TLS 1.2 or newer, and within it `speaks`."""
    if not tls:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    made.set_alpn_protocols([speaks])
    try:
        made.load_cert_chain(tls.cert, tls.key, password=_no_password)
        if tls.client_ca:
            made.load_verify_locations(tls.client_ca)
            made.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as problem:  # ssl.SSLError is an OSError
        files = " and ".join(os.path.basename(name) for name in (tls.cert, tls.key, tls.client_ca) if name)
        raise error("start-failed", f"TLS can't be set up with {files}: {problem}") from None
    return made


def names_of(transport: asyncio.BaseTransport) -> tuple[str, ...]:
    """The names in the certificate of the other end: those it is valid for, then its common name."""
    certificate: dict[str, Any] = transport.get_extra_info("peercert") or {}
    names = [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI", "email")]
    with contextlib.suppress(TypeError, ValueError):
        parts = (pair for part in certificate.get("subject", ()) for pair in part)
        names += [value for kind, value in parts if kind == "commonName"]
    return tuple(names) or (("unnamed",) if certificate else ())


def client_of(transport: asyncio.BaseTransport) -> str:
    """The address of the other end, without its port; empty where it has none."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


def drop(transport: asyncio.Transport) -> None:
    """Cut a client off that does not read: what was written for it is let go here and by the system."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()


def unread(transport: asyncio.BaseTransport) -> int:
    """How many bytes the other end has sent that were not read yet."""
    try:
        descriptor = transport.get_extra_info("socket").fileno()
        return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
    except (OSError, AttributeError):
        return 0


def _no_password() -> bytes:
    raise ValueError("the key is encrypted; give it without a passphrase")


def _stamps(tls: Tls) -> _Stamps:
    found: list[tuple[int, int, int] | None] = []
    for name in (tls.cert, tls.key, tls.client_ca):
        try:
            facts = os.stat(name)
        except OSError:
            found.append(None)
            continue
        found.append((facts.st_mtime_ns, facts.st_ino, facts.st_size))
    return tuple(found)
