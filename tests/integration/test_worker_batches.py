"""What waits in a worker's sockets is one model call, whichever gateway sent it; the sizes that are warmed before."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import salver
from salver.dispatch.launch import Command, worker_command
from salver.dispatch.process import WorkerProcess
from salver.environments.place import Place
from salver.frames import Answers, Batch, Cancel, Counted, Form, Hello, Message, Reader, pack
from salver.frameworks import Columns
from salver.registry import Registry, ReleaseCache
from salver.release import MANIFEST, parse_manifest
from salver.storage.folder import FolderStorage
from salver.worker.predictor import Predictor
from tests.integration.oracle import answer
from tests.integration.telling import Teller
from tests.integration.watched import comes

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

    def cancel(self, *numbers: int) -> None:
        self._socket.sendall(pack(Cancel(1, list(numbers))))

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


def with_worker(registry: Registry, name: str, scratch: Path, talk: Callable[[Path], None]) -> None:
    """Talk to a worker of this release, at its socket."""
    folder = ReleaseCache(scratch / "cache").open(registry, registry.find(name))

    def command(listen_fd: int, status_fd: int) -> Command:
        return worker_command(f"{name}/0", folder, Place(), (listen_fd, status_fd), threads=1)

    async def scenario() -> None:
        worker = WorkerProcess(f"{name}/0", scratch / "0.sock", command)
        await worker.start(PATIENCE)
        try:
            await asyncio.to_thread(talk, worker.path)
        finally:
            await worker.stop()

    asyncio.run(scenario())


def test_batches_of_several_gateways_and_forms_share_a_call_and_each_gets_its_own_answers(
    published: Path, tmp_path: Path
) -> None:
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

    with_worker(Registry(FolderStorage(published)), "oracle@1", tmp_path, talk)


def test_a_whole_answer_is_made_for_who_is_left_and_for_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    diary = tmp_path / "seen"
    (tmp_path / "files" / "diary").write_text(str(diary))
    registry = tmp_path / "registry"
    salver.release("teller", Teller, examples=[{"steps": "3"}], files=tmp_path / "files", registry=str(registry))

    def begun(steps: str) -> None:
        comes(lambda: f"begun {steps}" in diary.with_suffix(".begun").read_text().splitlines())

    def ended(steps: str) -> list[int]:
        lines = [line.rpartition(": ") for line in diary.read_text().splitlines()]
        return [int(made) for asked, _, made in lines if asked == steps]

    def talk(path: Path) -> None:
        first, second = Gateway(path), Gateway(path)
        first.send(NATIVE, {1: b'{"steps":"50 slow"}', 2: b'{"steps":"2"}'})
        begun("50 slow")
        first.cancel(1)
        first.send(NATIVE, {3: b'{"steps":"9"}'})
        first.cancel(3)
        both, unwanted = first.answers(), first.answers()
        assert both.ids == [1, 2]
        assert both.bodies[1].endswith(b'"step":49}'), "who is left gets the answer of the whole batch"
        assert ended("50 slow") == [50]
        assert [(reply.id, reply.code) for reply in unwanted.replies] == [(3, "deadline-exceeded")]
        assert not ended("9"), "what was cancelled while the model was at work is not begun"
        first.send(NATIVE, {4: b'{"steps":"3000 slow"}', 5: b'{"steps":"3000 slow"}'})
        begun("3000 slow")
        first.cancel(4)
        first.cancel(5)
        assert [(reply.id, reply.code) for reply in first.answers().replies] == [
            (4, "deadline-exceeded"),
            (5, "deadline-exceeded"),
        ]
        assert 0 < ended("3000 slow")[0] < 3000
        first.send(NATIVE, {6: b'{"steps":"2999 slow"}'})
        begun("2999 slow")
        first.close()
        second.send(NATIVE, {1: b'{"steps":"1"}'})
        assert second.answers().ids == [1], "a gateway that is gone waits for nothing"
        second.send(NATIVE, {2: b'{"steps":"2998 slow"}'}, timeout=0.3)
        assert second.answers().replies[0].code == "deadline-exceeded"
        assert ended("2998 slow")[0] < 2998
        second.close()

    with_worker(Registry(FolderStorage(registry)), "teller@1", tmp_path, talk)


@pytest.mark.parametrize(("seconds", "warmed"), [(0.0, [1, 8, 64]), (0.25, [1, 8])])
def test_a_slow_model_is_not_warmed_at_sizes_that_would_keep_it_from_serving(
    published: Path, tmp_path: Path, seconds: float, warmed: list[int]
) -> None:
    registry = Registry(FolderStorage(published))
    folder = ReleaseCache(tmp_path).open(registry, registry.find("oracle@1"))
    sizes = []

    def predict(columns: Columns) -> Columns:
        sizes.append(len(columns["key"]))
        time.sleep(seconds * sizes[-1])
        return {"prediction": np.zeros(sizes[-1], np.int64)}

    manifest = parse_manifest((folder / MANIFEST).read_bytes(), where="oracle@1")
    Predictor(folder, manifest, "oracle@1", predict).warm()
    assert sizes == warmed
