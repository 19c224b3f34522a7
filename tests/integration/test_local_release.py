"""A release served to this process alone: workers that hang, die and come back."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import salver
from salver.dispatch.local import LocalRelease
from salver.errors import SalverError
from salver.publish import ReleaseRequest, release_model
from salver.registry import Registry, ReleaseCache
from salver.release import Serving
from salver.storage.folder import FolderStorage
from salver.worker.lifeline import PARENT
from tests.integration.granted import Granted
from tests.integration.hanging import Hanging
from tests.integration.oracle import answer

PATIENCE = 60.0
KILL = b'[{"key": 1, "act": "exit"}]'


def row(key: int) -> bytes:
    return msgspec.json.encode([{"key": key, "act": ""}])


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """The unpacked release oracle@1."""
    registry = Registry(FolderStorage(published))
    return ReleaseCache(tmp_path / "cache").open(registry, registry.find("oracle@1"))


async def ask(local: LocalRelease, body: bytes) -> Any:
    async with asyncio.timeout(PATIENCE):
        return msgspec.json.decode((await local.ask("native", body)).body)


def test_a_load_that_hangs_ends_a_release_with_what_to_do(tmp_path: Path) -> None:
    request = ReleaseRequest(name="hang", model=Hanging, examples=[{"key": 1}], load_timeout=3.0)
    with pytest.raises(SalverError, match="not ready 3 s after it started") as caught:
        release_model(request, Registry(FolderStorage(tmp_path / "registry")))
    assert caught.value.code == "load-failed"
    assert "load_timeout" in caught.value.hint


@pytest.mark.parametrize("threads", [1, 3])
def test_a_release_is_proven_with_the_threads_that_it_is_served_with(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))  # what it answers here
    registry = Registry(FolderStorage(tmp_path / "registry"))
    examples = [{"key": 1}]
    made = release_model(
        ReleaseRequest(name="granted", model=Granted, examples=examples, serving=Serving(threads=threads)), registry
    )
    path = ReleaseCache(tmp_path / "cache").open(registry, made.release) / "golden.jsonl"
    assert json.loads(path.read_bytes())["answer"] == {"prediction": str(threads)}


def test_a_request_that_kills_the_only_worker_fails_and_the_next_one_is_answered(folder: Path) -> None:
    async def scenario() -> None:
        async with LocalRelease(folder, "oracle@1", options=("--no-golden",)) as local:
            with pytest.raises(SalverError, match="died each time") as caught:
                await ask(local, KILL)
            assert caught.value.code == "poison-request"
            assert await ask(local, row(7)) == [{"prediction": answer(1, 7)}]

    asyncio.run(scenario())


def test_a_release_whose_workers_only_die_is_given_up_with_an_error(folder: Path) -> None:
    async def scenario() -> None:
        async with LocalRelease(folder, "oracle@1", options=("--no-golden",)) as local:
            bodies = [msgspec.json.encode([{"key": key, "act": "exit"}]) for key in range(20)]
            failures = await asyncio.gather(*(ask(local, body) for body in bodies), return_exceptions=True)
            assert {type(failure) for failure in failures} <= {salver.errors.UserError, salver.errors.Broken}
            with pytest.raises(SalverError, match="died 10 times without an answer in between") as caught:
                await ask(local, row(7))
            assert caught.value.code == "model-error"

    asyncio.run(scenario())


def test_a_release_that_is_damaged_while_it_is_served_says_so_when_its_worker_dies(folder: Path) -> None:
    async def scenario() -> None:
        async with LocalRelease(folder, "oracle@1") as local:
            assert await ask(local, row(7)) == [{"prediction": answer(1, 7)}]
            manifest = folder / "release.json"
            manifest.chmod(0o600)
            manifest.write_bytes(b"\xff")
            with pytest.raises(SalverError, match="not a release manifest") as caught:
                await ask(local, KILL)
            assert caught.value.code == "bad-manifest"

    asyncio.run(scenario())


def test_a_child_whose_parent_died_before_it_could_look_ends_at_once() -> None:
    code = "from salver.worker.lifeline import die_with_parent; die_with_parent(); print('lives')"

    async def run(parent: int) -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", code, env={**os.environ, PARENT: str(parent)}, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return process.returncode, out

    assert asyncio.run(run(os.getpid())) == (0, b"lives\n")
    assert asyncio.run(run(2**22 + 1)) == (1, b"")
