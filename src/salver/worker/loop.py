"""The worker's loop: read every frame that waits, predict once for all of them, answer.

Single-threaded and blocking but for its sockets; the time between two reads is one batch.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from typing import cast

from salver.errors import SalverError
from salver.frames import (
    Answers,
    Batch,
    Cancel,
    Counted,
    Golden,
    GoldenResult,
    Hello,
    Message,
    Reader,
    Reply,
    Started,
    pack,
)
from salver.worker.predictor import Predictor

RECEIVE = 256 << 10
MAX_BACKLOG = 512 << 20


class Peer:
    """One connected dispatcher: its socket, what it sent, and what could not be written to it yet."""

    __slots__ = ("cancelled", "out", "reader", "sock", "waiting")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = Reader()
        self.out = bytearray()
        self.waiting: list[Message] = []
        self.cancelled: set[int] = set()


Asked = tuple[Peer, Batch]


class Loop:
    """Serves one predictor on one listening unix socket until `stop` is called.

    `on_alone` hears when a suspected request begins and ends.
    """

    def __init__(
        self, predictor: Predictor, listener: socket.socket, hello: Hello, on_alone: Callable[[bool], None]
    ) -> None:
        self._predictor = predictor
        self._listener = listener
        self._hello = pack(hello)
        self._on_alone = on_alone
        self._selector = selectors.DefaultSelector()
        self._peers: list[Peer] = []
        self._buffer = memoryview(bytearray(RECEIVE))
        self._stopping = False

    def stop(self) -> None:
        """Finish the batch at hand, write its answers, and return from `run`."""
        self._stopping = True

    def run(self) -> None:
        """Serve until stopped."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while not self._stopping:
            for key, events in self._selector.select(timeout=1.0):
                if key.data is None:
                    self._accept()
                    continue
                peer = cast("Peer", key.data)
                if events & selectors.EVENT_WRITE:
                    self._flush(peer)
                if events & selectors.EVENT_READ:
                    self._receive(peer)
            self._serve([peer for peer in self._peers if peer.waiting])
        for peer in list(self._peers):
            peer.sock.setblocking(True)
            self._flush(peer)
            peer.sock.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        sock.setblocking(False)
        peer = Peer(sock)
        self._peers.append(peer)
        self._selector.register(sock, selectors.EVENT_READ, peer)
        self._send(peer, self._hello)

    def _receive(self, peer: Peer) -> None:
        while True:
            try:
                size = peer.sock.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if not size:
                self._forget(peer)
                return
            try:
                messages = peer.reader.feed(self._buffer[:size])
            except SalverError:
                self._forget(peer)
                return
            for message in messages:
                if isinstance(message, Cancel):
                    peer.cancelled.update(message.ids)
                else:
                    peer.waiting.append(message)
            if size < RECEIVE:
                return

    def _forget(self, peer: Peer) -> None:
        if peer in self._peers:
            self._peers.remove(peer)
            self._selector.unregister(peer.sock)
            peer.sock.close()
            peer.waiting.clear()

    def _serve(self, peers: list[Peer]) -> None:
        """Answer all that waits: alone batches by themselves, everything else of all peers as one."""
        together: list[Asked] = []
        for peer in peers:
            messages, peer.waiting = peer.waiting, []
            for message in messages:
                if isinstance(message, Batch):
                    if message.alone:
                        self._alone(peer, message)
                    else:
                        together.append((peer, message))
                elif isinstance(message, Golden):
                    problems = self._predictor.prove()
                    self._send(peer, pack(GoldenResult(message.generation, not problems, problems)))
        self._answer(together)
        for peer in peers:
            peer.cancelled.clear()

    def _alone(self, peer: Peer, batch: Batch) -> None:
        """Answer a request that may have killed a worker: say so before, to the peer and to the supervisor."""
        self._send(peer, pack(Started(batch.generation, batch.ids[0])))
        self._on_alone(True)
        self._answer([(peer, batch)])
        self._on_alone(False)

    def _answer(self, asked: list[Asked]) -> None:
        now = time.monotonic_ns()
        asked = [(peer, batch) for peer, batch in asked if self._is_wanted(peer, batch, now)]
        if not asked:
            return
        answers = self._predictor.answer([batch for _, batch in asked])
        for (peer, _), each in zip(asked, answers, strict=True):
            self._send(peer, pack(each))
        extra, unseen = self._predictor.count()
        if extra or unseen:
            peer, batch = asked[0]
            self._send(peer, pack(Counted(batch.generation, extra, unseen)))

    def _is_wanted(self, peer: Peer, batch: Batch, now: int) -> bool:
        """Whether somebody still waits for any of it; drops the others from it, and answers those that are late."""
        if not peer.cancelled and min(batch.deadlines) > now:
            return True
        kept = [at for at, number in enumerate(batch.ids) if number not in peer.cancelled]
        late = [at for at in kept if 0 < batch.deadlines[at] <= now]
        if late:
            replies = [Reply(batch.ids[at], 504, b"", 0, 0, "deadline-exceeded") for at in late]
            self._send(peer, pack(Answers(batch.generation, 0, replies=replies)))
            kept = [at for at in kept if not 0 < batch.deadlines[at] <= now]
        batch.ids = [batch.ids[at] for at in kept]
        batch.deadlines = [batch.deadlines[at] for at in kept]
        batch.bodies = [batch.bodies[at] for at in kept]
        return bool(kept)

    def _send(self, peer: Peer, data: bytes) -> None:
        if not peer.out:
            try:
                sent = peer.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._forget(peer)
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._selector.modify(peer.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, peer)
        peer.out += data
        if len(peer.out) > MAX_BACKLOG:
            self._forget(peer)

    def _flush(self, peer: Peer) -> None:
        while peer.out:
            try:
                sent = peer.sock.send(peer.out)
            except BlockingIOError:
                return
            except OSError:
                self._forget(peer)
                return
            del peer.out[:sent]
        if peer in self._peers and not self._stopping:
            self._selector.modify(peer.sock, selectors.EVENT_READ, peer)
