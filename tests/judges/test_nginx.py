"""nginx in front, as a strict proxy that keeps its connections."""

from __future__ import annotations

import gzip
import http.client
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from tests.campaigns import r7
from tests.integration.nginx import Proxy
from tests.integration.server import Server
from tests.integration.watched import comes

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
    ("GET", "/v1/models/oracle/metadata", None),
    ("GET", "/ping", None),
    ("GET", "/execution-parameters", None),
    ("POST", "/invocations", [ROW]),
    ("POST", "/invocations", {"dataframe_split": {"columns": ["key", "act"], "data": [[7, ""]]}}),
    ("POST", "/predictions/oracle", [ROW]),
    ("POST", "/models/oracle/predict", ROW),
    ("POST", "/models/oracle/predict", [ROW] * 5000),
    ("POST", "/models/oracle/predict?strict=true", [ROW, {"key": "seven"}]),
    ("POST", "/models/oracle/releases/1/predict", ROW),
    ("POST", "/v2/models/oracle/infer", {"inputs": TENSORS}),
    ("POST", "/v1/models/oracle:predict", {"instances": [ROW]}),
    ("POST", "/v1/models/oracle:predict", {"inputs": [ROW]}),
    ("POST", "/v1/models/oracle/labels/stable:predict", {"inputs": {"key": [7], "act": [""]}}),
    ("POST", "/nothing", {}),
    ("GET", "/models/oracle/predict", None),
]
NATIVE = "/models/oracle/predict"
BYTES = {"content-type": "application/octet-stream"}
BINARY = json.dumps(
    {
        "inputs": [
            {"name": "key", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 8}},
            {"name": "act", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 4}},
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()
TENSOR_BYTES = BINARY + struct.pack("<qI", 7, 0)
MANY = json.dumps([ROW] * 1000).encode()
BODIES: list[tuple[str, bytes, dict[str, str]]] = [
    ("/v2/models/oracle/infer", TENSOR_BYTES, BYTES | {"inference-header-content-length": str(len(BINARY))}),
    (
        "/v2/models/oracle/infer",
        gzip.compress(TENSOR_BYTES),
        BYTES | {"inference-header-content-length": str(len(BINARY)), "content-encoding": "gzip"},
    ),
    ("/v2/models/oracle/infer", TENSOR_BYTES, BYTES | {"inference-header-content-length": "9999"}),
    (NATIVE, gzip.compress(MANY), {"content-encoding": "gzip"}),
    (NATIVE, zstd.compress(MANY), {"content-encoding": "zstd"}),
    (NATIVE, zlib.compress(MANY), {"content-encoding": "deflate"}),
    (NATIVE, gzip.compress(MANY)[:-9], {"content-encoding": "gzip"}),
    (NATIVE, json.dumps(ROW).encode(), {"accept": "text/event-stream"}),
    (NATIVE, b'{"key": 7, "act": ""}\n' * 3, {"content-type": "application/jsonlines", "accept": "text/csv"}),
    ("/invocations", b"key,act\n7,\n8,\n", {"content-type": "text/csv", "accept": "text/csv"}),
    ("/invocations", b"key,act\n7,\n", {"content-type": "text/x-nothing"}),
]
OF_THE_MOMENT = ("date", "server", "connection", "x-salver-prediction-id", "transfer-encoding", "x-accel-buffering")
"""Headers of one answer, of one connection, or for the proxy itself."""


@pytest.mark.parametrize(("method", "path", "value"), ENDPOINTS)
def test_every_endpoint_answers_the_same_through_a_strict_proxy(
    server: Server, proxy: Proxy, method: str, path: str, value: Any
) -> None:
    body = None if value is None else json.dumps(value).encode()
    headers = {"content-type": "application/json", "host": "localhost", "x-request-id": "a-1"}
    direct = server.ask(method, path, body, headers)
    for _ in range(3):
        through = server.ask(method, path, body, headers, port=proxy.port)
        assert (through.status, through.body) == (direct.status, direct.body)
        assert _lasting(through.headers) == _lasting(direct.headers)


@pytest.mark.parametrize(("path", "body", "more"), BODIES)
def test_bytes_compressed_bodies_and_events_go_through_unchanged(
    server: Server, proxy: Proxy, path: str, body: bytes, more: dict[str, str]
) -> None:
    headers = {"content-type": "application/json", "host": "localhost", **more}
    direct = server.ask("POST", path, body, headers)
    for _ in range(3):
        through = server.ask("POST", path, body, headers, port=proxy.port)
        assert (through.status, through.body) == (direct.status, direct.body)
        assert _lasting(through.headers) == _lasting(direct.headers)


def test_events_come_through_the_proxy_when_they_are_made_and_stop_with_their_reader(
    noting: Path, tmp_path: Path
) -> None:
    with Server(noting, "--workers", "1", log=tmp_path / "log") as server, Proxy(tmp_path / "n", server.port) as proxy:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        connection.request("POST", "/models/teller/predict", json.dumps({"steps": "3000 slow"}), headers)
        response = connection.getresponse()
        assert response.readline() == b'data: {"text":"0 ","step":0}\n'
        diary = noting.parent / "diary"
        assert not diary.exists() or "3000 slow" not in diary.read_text()  # the generator goes on
        connection.close()
        [line] = comes(lambda: diary.exists() and [x for x in diary.read_text().splitlines() if "3000 slow" in x])
        assert int(line.rpartition(": ")[2]) < 3000


@pytest.fixture(scope="module")
def proxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Proxy(tmp_path_factory.mktemp("proxy") / "nginx", server.port) as running:
        yield running


def _lasting(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in OF_THE_MOMENT}


def test_rolling_restarts_behind_a_proxy_lose_no_request_over_http_or_grpc(capsys: pytest.CaptureFixture[str]) -> None:
    assert r7.main(["--restarts", "4", "--gateways", "2"]) == 0, capsys.readouterr().out
