"""Where a campaign runs: a scratch folder with a registry and a server, a load on it, and a line of progress."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import salver
from salver.model import Model
from tests.campaigns.checks import Verdict
from tests.campaigns.models import CALL, WatchedOracle
from tests.integration.conftest import EXAMPLES
from tests.integration.history import Load
from tests.integration.server import Server
from tests.integration.test_reliability import proven_workers

EVERY = 5.0
LOG_BYTES = 32 << 20
SETTLE_TIME = 60.0


@contextlib.contextmanager
def scratch(verdict: Verdict) -> Iterator[Path]:
    """A folder that stays only if the campaign failed."""
    folder = Path(tempfile.mkdtemp(prefix="salver-campaign-"))
    try:
        yield folder
    except BaseException:
        print(f"the server's log is in {folder}")
        raise
    if verdict.failed:
        print(f"the server's log is in {folder}")
    else:
        shutil.rmtree(folder)


def publish(folder: Path, *models: type[Model], **said: Any) -> Path:
    """A registry with these as releases of `oracle`; the first is live."""
    registry = folder / "registry"
    for model in models:
        salver.release("oracle", model, examples=EXAMPLES, registry=str(registry), **said)
    return registry


def watched(folder: Path, **said: Any) -> tuple[Path, Calls]:
    """A registry with an oracle that writes down its calls, and those calls."""
    (folder / "files").mkdir()
    (folder / "files" / "calls").write_text(str(folder / "calls"))
    return publish(folder, WatchedOracle, files=folder / "files", **said), Calls(folder / "calls")


class Calls:
    """The calls of a watched oracle since the last time they were read: for each its rows and how many were deadly."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new(self) -> list[tuple[int, int]]:
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        self._at += len(data)
        return list(CALL.iter_unpack(data))


def serve(folder: Path, registry: Path, *options: str) -> Server:
    return Server(registry, "--cache", str(folder / "cache"), *options, log=folder / "log")


@contextlib.asynccontextmanager
async def under(load: Load, server: Server, say: Callable[[], str]) -> AsyncIterator[None]:
    """Run a load, and say every few seconds how far it is; ends at once if the clients fail."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            saying = group.create_task(progress(server, say))
            try:
                yield
            finally:
                load.stop()
                saying.cancel()
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


async def progress(server: Server, say: Callable[[], str]) -> None:
    """A line every few seconds; keeps the server's log small meanwhile."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(EVERY)
        print(f"{time.monotonic() - began:6.0f} s  {say()}", flush=True)
        if server.log.stat().st_size > LOG_BYTES:
            server.log.write_bytes(b"")


async def proven(server: Server, workers: int) -> float:
    """Wait until so many workers are connected; the seconds it took, at most a minute."""
    began = time.monotonic()
    while time.monotonic() - began < SETTLE_TIME:
        if await asyncio.to_thread(proven_workers, server) == workers:
            break
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
