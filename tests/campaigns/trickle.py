"""Slow clients, thousands in one cheap process: each sends or reads a byte now and then, and notes when it was cut."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import NamedTuple

from tests.integration.hostile import LENGTH, POST, ROW

TICK = 0.0003
"""Seconds between two looks at what is due, so that bytes come one by one, as those of many machines would."""
PACE = 2.0
"""Seconds between two bytes of a connection."""
OPENINGS = 500
"""New connections a second, of those that are not open yet or were cut."""
KINDS = {
    "headers": (b"POST /models/oracle/predict HTTP/1.1\r\nhost: localhost\r\nx: ", 10.0),
    "body": (POST + LENGTH.replace(b"21", b"60000000") + b"\r\n" + ROW[:4], 60.0),
    "reading": (b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: localhost\r\n\r\n", 60.0),
}
"""What each kind of slow client begins with, and the seconds after which it must be cut."""
GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Slow(NamedTuple):
    """One slow connection."""

    sock: socket.socket
    kind: str
    began: float


class Trickle:
    """Holds so many slow connections, and replaces those that are cut while it attacks."""

    def __init__(self, count: int) -> None:
        self._port = 0
        self._kinds = [list(KINDS)[number % len(KINDS)] for number in range(count)]
        self._owed: deque[str] = deque()
        self._open: dict[int, Slow] = {}
        self._turns: deque[int] = deque()
        self._poll = select.epoll()
        self._at = 0.0
        self._may_open = self._may_move = 0.0
        self.cut: dict[str, list[float]] = {kind: [] for kind in KINDS}

    @property
    def left(self) -> int:
        """How many connections are open or still to be opened."""
        return len(self._open) + len(self._owed)

    @property
    def is_whole(self) -> bool:
        """Whether all are open that should be."""
        return not self._owed

    def begin(self, port: int) -> None:
        """Want all connections, to this port."""
        self._port = port
        self._owed.extend(self._kinds)
        self._at = time.monotonic()

    def tick(self, *, renew: bool) -> None:
        """See who was cut, open what is missing, and move so many that each has its turn once in two seconds."""
        time.sleep(TICK)
        for descriptor, _ in self._poll.poll(0):
            slow = self._open[descriptor]
            if slow.kind == "reading" or self._is_over(slow):
                self._end(slow, renew=renew)
        now = time.monotonic()
        elapsed, self._at = now - self._at, now
        self._may_open = min(OPENINGS, self._may_open + elapsed * OPENINGS)
        while self._owed and self._may_open >= 1:
            self._may_open -= 1
            self._begin(self._owed.popleft())
        self._may_move += elapsed * len(self._turns) / PACE
        while self._turns and self._may_move >= 1:
            self._may_move -= 1
            self._move(self._turns.popleft())
        self._may_move %= 1

    def leave(self) -> None:
        """Leave, without being cut."""
        for slow in self._open.values():
            slow.sock.close()
        self._open.clear()
        self._owed.clear()
        self._turns.clear()

    def _begin(self, kind: str) -> None:
        sock = socket.socket()
        if kind == "reading":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", self._port))
        sock.setblocking(False)
        sock.send(KINDS[kind][0])
        self._open[sock.fileno()] = Slow(sock, kind, time.monotonic())
        self._turns.append(sock.fileno())
        self._poll.register(sock, GONE if kind == "reading" else GONE | select.EPOLLIN)

    def _move(self, descriptor: int) -> None:
        """Send or read one byte."""
        slow = self._open.get(descriptor)
        if slow is None:
            return
        self._turns.append(descriptor)
        with contextlib.suppress(OSError):  # what is cut is noticed by the poll
            if slow.kind == "reading":
                slow.sock.recv(1)
            else:
                slow.sock.send(b"y")

    def _is_over(self, slow: Slow) -> bool:
        """Read what the server says; whether it has ended."""
        try:
            return slow.sock.recv(4096) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _end(self, slow: Slow, *, renew: bool) -> None:
        self.cut[slow.kind].append(time.monotonic() - slow.began)
        del self._open[slow.sock.fileno()]
        with contextlib.suppress(ValueError):
            self._turns.remove(slow.sock.fileno())
        slow.sock.close()
        if renew:
            self._owed.append(slow.kind)


class Order(NamedTuple):
    """What the slow clients are told: attack the server at a port, 0 to leave; and whether those cut come again."""

    port: int
    renew: bool = True


def attack(count: int, told: Connection) -> None:
    """In a process of its own: follow each `Order` and say when all have come, left or been cut; None ends it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # they would be on other machines
    trickle = Trickle(count)
    order, said = Order(0), True
    while True:
        if told.poll(0 if order.port else None):
            heard: Order | None = told.recv()
            if heard is None:
                told.send(trickle.cut)
                return
            order, said = heard, False
            trickle.leave()
            if order.port:
                trickle.begin(order.port)
            else:
                told.send("left")
        if order.port:
            trickle.tick(renew=order.renew)
            if trickle.is_whole and not said:
                said = True
                told.send("all open")
            if not trickle.left:
                order = Order(0)
                told.send("all cut")
