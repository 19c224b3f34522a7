"""What waits in a worker's sockets is one model call, whichever gateway sent it."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from salver.dispatch.launch import Command, worker_command
from salver.dispatch.process import WorkerProcess
from salver.environments.place import Place
from salver.frames import Answers, Batch, Counted, Form, Hello, Message, Reader, pack
from salver.registry import Registry, ReleaseCache
from salver.storage.folder import FolderStorage
from tests.integration.oracle import answer

NATIVE = Form("native")
PATIENCE = 60.0


def row(key: int, act: str = "") -> bytes:
    return b'{"key":%d,"act":"%b"}' % (key, act.encode())


class Gateway:
    """A connection to a worker, as a gateway has one."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._reader = Reader()
        self._messages: list[Message] = []
        assert isinstance(self.next(), Hello)

    def send(self, form: Form, bodies: dict[int, bytes], *, timeout: float = PATIENCE) -> None:
        deadline = time.monotonic_ns() + int(timeout * 1e9)
        self._socket.sendall(pack(Batch(1, form, list(bodies), [deadline] * len(bodies), list(bodies.values()))))

    def next(self) -> Message:
        while not self._messages:
            self._messages = self._reader.feed(self._socket.recv(65536))
        return self._messages.pop(0)

    def answers(self) -> Answers:
        while isinstance(message := self.next(), Counted):
            pass
        assert isinstance(message, Answers)
        return message

    def close(self) -> None:
        self._socket.close()


def test_batches_of_several_gateways_and_forms_share_a_call_and_each_gets_its_own_answers(
    published: Path, tmp_path: Path
) -> None:
    registry = Registry(FolderStorage(published))
    folder = ReleaseCache(tmp_path / "cache").open(registry, registry.find("oracle@1"))

    def command(listen_fd: int, status_fd: int) -> Command:
        return worker_command("oracle@1/0", folder, Place(), (listen_fd, status_fd), threads=1)

    def talk(path: Path) -> None:
        first, second = Gateway(path), Gateway(path)
        first.send(NATIVE, {1: row(1, "sleep")})
        time.sleep(0.2)  # the worker is asleep in that row now
        first.send(NATIVE, {2: row(2), 3: row(3)})
        first.send(Form("v1"), {4: b'{"instances":[{"key":4,"act":""}]}'})
        second.send(NATIVE, {2: row(5), 3: b"{}"})
        second.send(NATIVE, {4: row(6)}, timeout=0.0)
        slow, plain, other = first.answers(), first.answers(), first.answers()
        late, mixed = second.answers(), second.answers()
        assert slow.ids == [1]
        assert plain.batch == other.batch == mixed.batch == slow.batch + 1, "all that waited is one call"
        assert (plain.rows, other.rows, mixed.rows) == (4, 0, 0), "only one of them says how large it was"
        assert plain.ids == [2, 3]
        assert plain.bodies == [b'{"prediction":%d}' % answer(1, key) for key in (2, 3)]
        assert other.replies[0].body == b'{"predictions":[%d]}' % answer(1, 4)
        assert [(reply.id, reply.status) for reply in mixed.replies] == [(2, 200), (3, 422)]
        assert mixed.replies[0].body == b'{"prediction":%d}' % answer(1, 5)
        assert [(reply.id, reply.code) for reply in late.replies] == [(4, "deadline-exceeded")]
        first.close()
        second.close()

    async def scenario() -> None:
        worker = WorkerProcess("oracle@1/0", tmp_path / "0.sock", command)
        await worker.start(PATIENCE)
        try:
            await asyncio.to_thread(talk, worker.path)
        finally:
            await worker.stop()

    asyncio.run(scenario())
