"""A release served to this process alone: its own workers, no gateway. For proofs, batch, replay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from pathlib import Path

from salver.dispatch.call import Call, Limits
from salver.dispatch.dispatcher import Dispatcher
from salver.dispatch.launch import Command, cpu_budget, worker_command
from salver.dispatch.process import WorkerProcess
from salver.environments.build import hold
from salver.environments.choose import choose
from salver.environments.place import Place, default_cache
from salver.errors import SalverError, error
from salver.frames import Answers, Counted, Form, Piece, Reply
from salver.release import LOCK, MANIFEST, parse_manifest

LOAD_TIMEOUT = 600.0
MOST_DEATHS = 10
ANY_ENVIRONMENT = "--any-environment"


class LocalRelease:
    """`async with LocalRelease(folder, "churn@7") as local: reply = await local.ask("native", body)`.

    Starts `workers` clean processes on the release unpacked at `folder`, waits until each has loaded and proven it (for
    at most `load_timeout` seconds), and stops them on exit. `options` are flags of the worker; `cache` is where
    environments are built. Raises the worker's own error where it can't be served. A worker that dies is replaced,
    until MOST_DEATHS came in a row without an answer.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        workers: int = 1,
        options: tuple[str, ...] = (),
        load_timeout: float = LOAD_TIMEOUT,
        cache: str = "",
    ) -> None:
        self._folder = folder
        self._name = name
        self._count = workers
        self._options = options
        self._load_timeout = load_timeout
        self._cache = Path(cache or default_cache())
        self._place = Place()
        self._threads = max(1, cpu_budget() // workers)
        self._workers: list[WorkerProcess] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._stack = contextlib.ExitStack()
        self._numbers = 0
        self._deaths = 0
        self._over: SalverError | None = None
        self._dispatcher: Dispatcher | None = None

    async def __aenter__(self) -> LocalRelease:
        runtime = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="salver-")))
        loop = asyncio.get_running_loop()
        try:
            manifest = parse_manifest((self._folder / MANIFEST).read_bytes(), where=self._name)
            self._threads = manifest.serving.threads or self._threads
            if ANY_ENVIRONMENT not in self._options:
                self._place = await loop.run_in_executor(None, self._choose, manifest.python, runtime)
            for index in range(self._count):
                self._workers.append(WorkerProcess(self._name, runtime / f"{index}.sock", self._command))
            await asyncio.gather(*(worker.start(self._load_timeout) for worker in self._workers))
            limits = Limits(busy=self._count, queue_requests=1 << 20, queue_bytes=1 << 40)
            self._dispatcher = Dispatcher(loop, limits, self, retry=True)
            self._dispatcher.set_workers({str(index): str(each.path) for index, each in enumerate(self._workers)})
            self._keeping = [loop.create_task(self._keep(worker, self._dispatcher)) for worker in self._workers]
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        if self._dispatcher is not None:
            self._dispatcher.close()
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        self._stack.close()

    async def ask(
        self, protocol: str, body: bytes, options: dict[str, str] | None = None, *, timeout: float = 3600.0
    ) -> Reply:
        """Send one request body, get its reply; raises the error where no worker could answer."""
        if self._dispatcher is None:
            raise error("not-ready", f"{self._name} has no worker yet", hint="use it in `async with`")
        if self._over is not None:
            raise self._over
        self._numbers += 1
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        deadline = time.monotonic_ns() + int(timeout * 1e9)
        call = Call(self._numbers, Form(protocol, options), deadline, body, future)
        refusal = self._dispatcher.submit(call)
        if refusal:
            raise error(refusal, f"{self._name} refused the request")
        return await future

    def answered(self, answers: Answers, columns: list[Call | None], replies: list[Call | None], now: int) -> None:
        """Give each answer to the future that waits for it."""
        del now
        self._deaths = 0
        bodies = [Reply(number, 200, body) for number, body in zip(answers.ids, answers.bodies, strict=True)]
        for call, reply in zip((*columns, *replies), (*bodies, *answers.replies), strict=True):
            if call is not None and not call.owner.done():
                call.owner.set_result(reply)

    def pieced(self, call: Call, piece: Piece, now: int) -> None:
        """Nobody asks for streams here."""

    def counted(self, counted: Counted) -> None:
        """Nobody asks for these counts here."""

    def failed(self, call: Call, code: str) -> None:
        """No worker could answer."""
        if not call.owner.done():
            why = "a worker died each time it was asked" if code == "poison-request" else "no answer came"
            call.owner.set_exception(self._over or error(code, f"{self._name} could not answer the request: {why}"))

    async def _keep(self, worker: WorkerProcess, dispatcher: Dispatcher) -> None:
        """Start the worker again whenever it has died; once that is of no use, fail what is open and what comes."""
        try:
            while True:
                await worker.ended()
                self._deaths += 1
                if self._deaths >= MOST_DEATHS:
                    raise error(
                        "model-error",
                        f"{self._name} can't go on: its workers died {MOST_DEATHS} times without an answer in between",
                        hint="see their output; a crash on every row is the model's or a library's, or memory ran out",
                    )
                await worker.start(self._load_timeout)
        except SalverError as problem:
            self._over = problem
            dispatcher.close()

    def _choose(self, python: str, scratch: Path) -> Place:
        """Where it runs: here, or in an environment that is built now and stays until this is over."""
        text = (self._folder / LOCK).read_text(encoding="utf-8")
        place = choose(text, python, what=self._name, cache=self._cache, scratch=scratch)
        for descriptor in hold(place):
            self._stack.callback(os.close, descriptor)
        return place

    def _command(self, listen_fd: int, status_fd: int) -> Command:
        return worker_command(
            self._name,
            self._folder,
            self._place,
            (listen_fd, status_fd),
            threads=self._threads,
            options=self._options,
        )
