"""The worker's loop: read every frame that waits, predict once for all of them, answer.

Single-threaded and blocking but for its sockets; the time between two reads is one batch.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from typing import cast

from salver.errors import SalverError, error, problem_json
from salver.frames import (
    Answers,
    Batch,
    Cancel,
    Counted,
    Golden,
    GoldenResult,
    Hello,
    Message,
    More,
    Reader,
    Reply,
    Started,
    pack,
)
from salver.frameworks.pieces import Abandoned
from salver.memory import HEAP
from salver.protocols.refusals import PROBLEM
from salver.worker import traces
from salver.worker.predictor import Predictor
from salver.worker.streams import Stream, is_streamed

RECEIVE = 256 << 10
MAX_BACKLOG = 512 << 20
MAX_STREAMS = 256
"""Streams that one worker advances in turns."""
LOOK = 5_000_000
"""Nanoseconds between two looks at who still waits, while a model that yields makes a whole answer."""
_TOO_MANY = problem_json(
    error("overloaded", f"a worker streams {MAX_STREAMS} answers already", hint="try again in a moment")
)


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
        self._streams: list[Stream[Peer]] = []
        self._buffer = memoryview(bytearray(RECEIVE))
        self._stopping = False
        self._asked: list[Asked] = []  # what the model is at work on
        self._look_at = 0
        predictor.ask(self._is_awaited)

    def stop(self) -> None:
        """Finish the batch at hand, write its answers, and return from `run`."""
        self._stopping = True

    def run(self) -> None:
        """Serve until stopped."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while not self._stopping:
            moving = [stream for stream in self._streams if stream.may_go_on]
            self._hear(0.0 if moving else 1.0)
            self._serve([peer for peer in self._peers if peer.waiting])
            for stream in moving:
                self._advance(stream)
            HEAP.give_back()
        for peer in list(self._peers):
            peer.sock.setblocking(True)
            self._flush(peer)
            peer.sock.close()

    def _hear(self, seconds: float) -> None:
        """Read and write what the sockets have and take; wait at most so long for the first."""
        for key, events in self._selector.select(seconds):
            if key.data is None:
                self._accept()
                continue
            peer = cast("Peer", key.data)
            if events & selectors.EVENT_WRITE:
                self._flush(peer)
            if events & selectors.EVENT_READ:
                self._receive(peer)

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
                    self._stop_streams(peer, peer.cancelled)
                elif isinstance(message, More):
                    for stream in self._streams:
                        if stream.peer is peer and stream.id == message.id:
                            stream.more()
                else:
                    peer.waiting.append(message)
            if size < RECEIVE:
                return
            HEAP.swollen = True

    def _forget(self, peer: Peer) -> None:
        if peer in self._peers:
            self._peers.remove(peer)
            self._selector.unregister(peer.sock)
            peer.sock.close()
            peer.waiting.clear()
            self._stop_streams(peer, None)

    def _serve(self, peers: list[Peer]) -> None:
        """Answer all that waits: alone batches by themselves, everything else of all peers as one."""
        together: list[Asked] = []
        for peer in peers:
            messages, peer.waiting = peer.waiting, []
            for message in messages:
                if isinstance(message, Batch):
                    if message.alone:
                        self._alone(peer, message)
                    elif message.form.options and is_streamed(message.form, self._predictor.manifest):
                        self._open(peer, message)
                    else:
                        together.append((peer, message))
                elif isinstance(message, Golden):
                    problems = self._predictor.prove()
                    self._send(peer, pack(GoldenResult(message.generation, not problems, problems)))
        self._answer(together)
        for peer in peers:
            if peer.cancelled:  # of what came while the model was at work, nothing is forgotten
                peer.cancelled &= {number for each in peer.waiting if isinstance(each, Batch) for number in each.ids}

    def _alone(self, peer: Peer, batch: Batch) -> None:
        """Answer a request that may have killed a worker: say so before, to the peer and to the supervisor."""
        self._send(peer, pack(Started(batch.generation, batch.ids[0])))
        self._on_alone(True)
        if is_streamed(batch.form, self._predictor.manifest):
            for stream in self._open(peer, batch):
                self._advance(stream)
        else:
            self._answer([(peer, batch)])
        self._on_alone(False)

    def _open(self, peer: Peer, batch: Batch) -> list[Stream[Peer]]:
        """Begin a stream for each request of a batch."""
        if not self._is_wanted(peer, batch, time.monotonic_ns()):
            return []
        room = MAX_STREAMS - len(self._streams)
        if len(batch.ids) > room:
            late = [Reply(number, 503, _TOO_MANY, 0, 0, "overloaded", PROBLEM) for number in batch.ids[room:]]
            self._send(peer, pack(Answers(batch.generation, 0, replies=late)))
        opened = []
        for at, number in enumerate(batch.ids[:room]):
            one = Batch(batch.generation, batch.form, [number], [batch.deadlines[at]], [batch.bodies[at]], batch.alone)
            one.traces = batch.traces[at : at + 1]
            opened.append(Stream(peer, one, *self._predictor.stream(one)))
        self._streams += opened
        return opened

    def _advance(self, stream: Stream[Peer]) -> None:
        """Send one more piece of a stream, or its end."""
        if stream not in self._streams:  # stopped meanwhile
            return
        if stream.traces:
            traces.follow(stream.traces)
        message = stream.step()
        if stream.traces:
            traces.follow(())
        if isinstance(message, Answers):
            self._streams.remove(stream)
        self._send(stream.peer, pack(message))

    def _stop_streams(self, peer: Peer, numbers: set[int] | None) -> None:
        """Stop these streams of a peer and say so, or all that it had, where it is gone."""
        for stream in list(self._streams):
            if stream.peer is peer and (numbers is None or stream.id in numbers):
                self._streams.remove(stream)
                if numbers is not None:
                    self._send(peer, pack(stream.stopped()))

    def _answer(self, asked: list[Asked]) -> None:
        now = time.monotonic_ns()
        asked = [(peer, batch) for peer, batch in asked if self._is_wanted(peer, batch, now)]
        if not asked:
            return
        followed = [trace for _, batch in asked if batch.traces for trace in batch.traces]
        if followed:
            traces.follow(followed)
        self._asked, self._look_at = asked, now + LOOK
        try:
            answers = self._predictor.answer([batch for _, batch in asked])
        except Abandoned:
            for peer, batch in asked:
                self._drop(peer, batch, batch.ids)
            return
        finally:
            self._asked = []
            if followed:
                traces.follow(())
        for (peer, _), each in zip(asked, answers, strict=True):
            self._send(peer, pack(each))
        extra, unseen = self._predictor.count()
        if extra or unseen:
            peer, batch = asked[0]
            self._send(peer, pack(Counted(batch.generation, extra, unseen)))

    def _is_awaited(self) -> bool:
        """Whether somebody still waits for any of what the model is at work on; looks now and then."""
        now = time.monotonic_ns()
        if now < self._look_at or not self._asked:
            return True
        self._hear(0.0)
        self._look_at = time.monotonic_ns() + LOOK
        return any(
            peer in self._peers and any(_awaited(peer, batch, at, now) for at in range(len(batch.ids)))
            for peer, batch in self._asked
        )

    def _is_wanted(self, peer: Peer, batch: Batch, now: int) -> bool:
        """Whether somebody still waits for any of it; drops the others from it.

        Those are answered as well, as late ones are: until then the peer counts this worker as busy with them.
        """
        if not peer.cancelled and min(batch.deadlines) > now:
            return True
        kept = [at for at in range(len(batch.ids)) if _awaited(peer, batch, at, now)]
        dropped = sorted(set(range(len(batch.ids))).difference(kept))
        if dropped:
            self._drop(peer, batch, [batch.ids[at] for at in dropped])
        batch.ids = [batch.ids[at] for at in kept]
        batch.deadlines = [batch.deadlines[at] for at in kept]
        batch.bodies = [batch.bodies[at] for at in kept]
        batch.traces = [batch.traces[at] for at in kept] if batch.traces else []
        return bool(kept)

    def _drop(self, peer: Peer, batch: Batch, numbers: list[int]) -> None:
        """Say that these requests of a batch are not worked for."""
        replies = [Reply(number, 504, b"", 0, 0, "deadline-exceeded") for number in numbers]
        self._send(peer, pack(Answers(batch.generation, 0, replies=replies)))

    def _send(self, peer: Peer, data: bytes | bytearray) -> None:
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


def _awaited(peer: Peer, batch: Batch, at: int, now: int) -> bool:
    """Whether somebody waits for this request of a batch: not cancelled, and not past its deadline."""
    return batch.ids[at] not in peer.cancelled and not 0 < batch.deadlines[at] <= now
