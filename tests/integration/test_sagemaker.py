"""The contract of a SageMaker container, with a real `salver serve`: its variables, its model folder, its batches."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.server import SALVER, Server
from tests.ports import free_port

WIDTH = 4


class Container(Server):
    """`salver serve` as the platform starts an image: no options, and variables only."""

    def __init__(self, registry: Path, environ: dict[str, str], *, log: Path) -> None:
        super().__init__(registry, log=log)
        self._environ = environ

    def start(self) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("SALVER_", "SAGEMAKER_"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*SALVER, "serve"], env=environ | self._environ, stdout=log, stderr=log, start_new_session=True
            )


@pytest.fixture
def model_folder(published: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder that the platform unpacks a model archive to; nobody may write to it."""
    folder = Path(shutil.copytree(published, tmp_path / "model"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


@pytest.fixture
def contain(model_folder: Path, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    with contextlib.ExitStack() as stack:

        def begin(**environ: str) -> Container:
            environ |= {
                "SALVER_SERVE_DIALECT": "sagemaker",
                "SALVER_REGISTRY": str(model_folder),
                "SALVER_CACHE": str(tmp_path / "cache"),
            }
            server = Container(model_folder, environ, log=tmp_path / "log")
            server.port = int(environ["SAGEMAKER_BIND_TO_PORT"])
            return stack.enter_context(server)  # type: ignore[return-value]

        yield begin


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in (folder, *folder.rglob("*"))}


def free_range() -> int:
    """The first of `WIDTH` ports in a row that nobody has, below those that tests take one by one."""
    while True:
        first = 10_000 + free_port() % 9_000
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + WIDTH):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


def test_a_container_serves_a_model_folder_that_it_may_not_write_to_on_the_ports_it_is_told(
    contain: Callable[..., Container], model_folder: Path
) -> None:
    first = free_range()
    before = tree(model_folder)
    server = contain(
        SAGEMAKER_BIND_TO_PORT=str(first),
        SAGEMAKER_SAFE_PORT_RANGE=f"{first}-{first + WIDTH - 1}",
        SALVER_SERVE_HOST="0.0.0.0",
        SALVER_SERVE_INSECURE="true",
    )
    ping = server.get("/ping")
    assert (ping.status, ping.body) == (200, b"")
    got = server.ask("POST", "/invocations", b"7,\n", {"content-type": "text/csv", "accept": "text/csv"})
    assert got.status == 200, got.body
    assert server.get("/metrics", port=first + 1).status == 200
    assert f":{first + 2}" in server.log.read_text(), "gRPC has the next port"
    assert tree(model_folder) == before


def test_batch_transform_is_told_how_much_this_server_takes(contain: Callable[..., Container]) -> None:
    server = contain(
        SAGEMAKER_BIND_TO_PORT=str(free_range()),
        SALVER_SERVE_ADMIN_PORT="0",
        SALVER_SERVE_GRPC_PORT="-1",
        SALVER_SERVE_WORKERS="1",
        SALVER_LIMITS_ROWS="100000",
    )
    told = server.get("/execution-parameters").json
    assert told == {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1}


def test_more_rows_and_fewer_are_taken_where_that_is_set(contain: Callable[..., Container]) -> None:
    server = contain(
        SAGEMAKER_BIND_TO_PORT=str(free_range()),
        SALVER_SERVE_ADMIN_PORT=str(admin := free_port()),
        SALVER_SERVE_GRPC_PORT="-1",
        SALVER_SERVE_WORKERS="1",
        SALVER_LIMITS_ROWS="10001",
        SALVER_LIMITS_ELEMENTS="6",
    )
    headers = {"content-type": "text/csv"}
    assert server.ask("POST", "/invocations", b"7,\n" * 10_001, headers).status == 200
    assert server.ask("POST", "/invocations", b"7,\n" * 10_002, headers).status == 413
    tensor = {"name": "key", "datatype": "INT64", "shape": [7], "data": [1] * 7}
    act = {"name": "act", "datatype": "BYTES", "shape": [7], "data": [""] * 7}
    refused = server.post("/v2/models/oracle/infer", {"inputs": [tensor, act]})
    assert (refused.status, "the limit is 6" in refused.json["error"]) == (413, True)
    counted = server.get("/metrics", port=admin).body.decode()
    assert 'salver_limit_hits_total{limit="rows"} 1' in counted
    assert 'salver_limit_hits_total{limit="elements"} 1' in counted
