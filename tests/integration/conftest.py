"""A registry with two releases of the oracle, made once; and servers on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import salver
from tests.integration.noting import Noting
from tests.integration.oracle import Oracle, SecondOracle
from tests.integration.server import Server
from tests.integration.telling import Teller

EXAMPLES = [{"key": key, "act": ""} for key in (0, 1, 7, 1_000_003, 2**30)]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with oracle@1 (live) and oracle@2."""
    registry = tmp_path_factory.mktemp("published") / "registry"
    for model in (Oracle, SecondOracle):
        salver.release("oracle", model, examples=EXAMPLES, registry=str(registry))
    return registry


@pytest.fixture
def registry(published: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "registry"))


@pytest.fixture(scope="module")
def server(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module that leave it as it is."""
    with Server(published, log=tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture
def start(registry: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers that belong to one test, on its own registry."""
    running: list[Server] = []

    def begin(*options: str, **settings: Any) -> Server:
        server = Server(settings.pop("registry", registry), *options, log=tmp_path / f"log{len(running)}", **settings)
        running.append(server)
        return server.__enter__()

    yield begin
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def noting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a model that writes log records, and one that answers in pieces."""
    folder = tmp_path_factory.mktemp("noting")
    (folder / "files").mkdir()
    (folder / "files" / "diary").write_text(str(folder / "diary"))
    registry = folder / "registry"
    salver.release("noting", Noting, examples=[{"x": 1.0}, {"x": 2.5}], registry=str(registry))
    salver.release("teller", Teller, examples=[{"steps": "3"}], files=folder / "files", registry=str(registry))
    return registry
