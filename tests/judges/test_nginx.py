"""nginx in front, as a strict proxy that keeps its connections."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.integration.history import Load, failures, wrong_answers
from tests.integration.nginx import Nginx
from tests.integration.oracle import answer
from tests.integration.server import Server

ROW = {"key": 7, "act": ""}
TENSORS = [
    {"name": "key", "shape": [1], "datatype": "INT64", "data": [7]},
    {"name": "act", "shape": [1], "datatype": "BYTES", "data": [""]},
]
ENDPOINTS: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("GET", "/docs", None),
    ("GET", "/docs/swagger-ui-bundle.js", None),
    ("GET", "/openapi.json", None),
    ("GET", "/models", None),
    ("GET", "/models/oracle", None),
    ("HEAD", "/models/oracle", None),
    ("GET", "/healthz/live", None),
    ("GET", "/healthz/ready", None),
    ("GET", "/v2", None),
    ("GET", "/v2/health/live", None),
    ("GET", "/v2/health/ready", None),
    ("GET", "/v2/models/oracle", None),
    ("GET", "/v2/models/oracle/versions/1/ready", None),
    ("GET", "/v2/models/oracle/config", None),
    ("POST", "/v2/repository/index", {}),
    ("POST", "/v2/repository/models/oracle/load", {}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/oracle", None),
    ("POST", "/models/oracle/predict", ROW),
    ("POST", "/models/oracle/predict", [ROW] * 5000),
    ("POST", "/models/oracle/predict?strict=true", [ROW, {"key": "seven"}]),
    ("POST", "/models/oracle/releases/1/predict", ROW),
    ("POST", "/v2/models/oracle/infer", {"inputs": TENSORS}),
    ("POST", "/v1/models/oracle:predict", {"instances": [ROW]}),
    ("POST", "/nothing", {}),
    ("GET", "/models/oracle/predict", None),
]
OF_THE_MOMENT = ("date", "server", "connection", "x-salver-prediction-id", "transfer-encoding")


@pytest.mark.parametrize(("method", "path", "value"), ENDPOINTS)
def test_every_endpoint_answers_the_same_through_a_strict_proxy(
    server: Server, proxy: Nginx, method: str, path: str, value: Any
) -> None:
    body = None if value is None else json.dumps(value).encode()
    headers = {"content-type": "application/json", "host": "localhost", "x-request-id": "a-1"}
    direct = server.ask(method, path, body, headers)
    for _ in range(3):
        through = server.ask(method, path, body, headers, port=proxy.port)
        assert (through.status, through.body) == (direct.status, direct.body)
        assert _lasting(through.headers) == _lasting(direct.headers)


@pytest.fixture(scope="module")
def proxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Nginx(tmp_path_factory.mktemp("proxy") / "nginx", server.port) as running:
        yield running


def _lasting(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in OF_THE_MOMENT}


def test_a_rolling_restart_behind_a_proxy_loses_no_request(registry: Path, tmp_path: Path) -> None:
    options = "--workers", "1", "--drain-delay", "1"
    servers = [Server(registry, *options, log=tmp_path / f"log{number}") for number in range(2)]
    started: list[Server] = []
    try:
        for server in servers:
            started.append(server.__enter__())
        with Nginx(tmp_path / "nginx", *(server.port for server in servers)) as proxy:
            load = Load(proxy.port, clients=8, rows=lambda chance: chance.choice((1, 4)))
            clients = threading.Thread(target=lambda: asyncio.run(load.run()))
            clients.start()
            try:
                for server in servers * 2:
                    seen = len(load.events)
                    assert server.stop(signal.SIGTERM) == 0
                    server.start()
                    server.wait_ready()
                    assert len(load.events) > seen
            finally:
                load.stop()
                clients.join()
    finally:
        for server in started:
            server.stop()
    assert not failures(load.events)
    assert not wrong_answers(load.events, {"oracle@1": 1})
    assert load.events[0].answers[0] == answer(1, load.events[0].keys[0])
