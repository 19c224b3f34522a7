"""nginx in front, as a strict proxy that keeps its connections."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.campaigns import r7
from tests.integration.nginx import Nginx
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


def test_rolling_restarts_behind_a_proxy_lose_no_request_over_http_or_grpc(capsys: pytest.CaptureFixture[str]) -> None:
    assert r7.main(["--restarts", "4", "--gateways", "2"]) == 0, capsys.readouterr().out
