"""The HTTP front over real sockets: what it answers, and what it refuses, to the byte."""

from __future__ import annotations

import gzip
import json
import socket
import time
import uuid
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from tests.integration.oracle import answer
from tests.integration.server import Server

PREDICT = "/models/oracle/predict"
ROW = {"key": 7, "act": ""}


def test_one_row_in_gives_one_answer_out_that_names_its_release(server: Server) -> None:
    got = server.post(PREDICT, ROW)
    assert got.status == 200
    assert got.json == {"prediction": answer(1, 7)}
    assert got.headers["x-salver-release"] == "oracle@1"
    assert uuid.UUID(got.headers["x-salver-prediction-id"]).version == 7


def test_a_list_gives_a_list_of_the_same_length_with_errors_in_place(server: Server) -> None:
    got = server.post(PREDICT, [ROW, {"key": "seven", "act": ""}, {"key": 8, "act": "raise"}, {"key": 9, "act": ""}])
    assert got.status == 200
    assert got.headers["x-salver-row-errors"] == "2"
    first, bad, raised, last = got.json
    assert (first, last) == ({"prediction": answer(1, 7)}, {"prediction": answer(1, 9)})
    assert bad["error"]["code"] == "invalid-row"
    assert raised["error"]["code"] == "model-error"


def test_strict_fails_the_whole_list(server: Server) -> None:
    got = server.post(PREDICT + "?strict=true", [ROW, {"key": "seven", "act": ""}])
    assert got.status == 422
    assert got.headers["content-type"] == "application/problem+json"
    assert got.json["code"] == "invalid-row"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (PREDICT, b"{", 400, "bad-json"),
        (PREDICT, b"", 400, "bad-json"),
        (PREDICT, b'{"key": 1, "act": "\xff"}', 400, "bad-json"),
        (PREDICT, b"[" * 100_000, 400, "bad-json"),
        (PREDICT, b'{"key": NaN, "act": ""}', 400, "bad-json"),
        (PREDICT, b"null", 422, "invalid-row"),
        (PREDICT, b'{"key": 1}', 422, "invalid-row"),
        (PREDICT, b'{"key": 1.5, "act": ""}', 422, "invalid-row"),
        (PREDICT, b'{"key": 99999999999999999999, "act": ""}', 422, "invalid-row"),
        (PREDICT, b'{"key": 1, "act": "raise"}', 500, "model-error"),
        ("/models/nobody/predict", b"{}", 404, "no-such-model"),
        ("/models/oracle/releases/9/predict", b"{}", 404, "release-not-loaded"),
        ("/nothing", b"{}", 404, "no-such-path"),
        ("/models/oracle", b"{}", 405, "method-not-allowed"),
    ],
)
def test_every_bad_request_has_its_status_code_and_a_problem_body(
    server: Server, path: str, body: bytes, status: int, code: str
) -> None:
    got = server.post(path, body)
    assert (got.status, got.json["code"]) == (status, code)
    assert got.json["status"] == status
    assert got.json["detail"]


def test_a_body_of_another_type_is_refused_with_what_to_send(server: Server) -> None:
    got = server.ask("POST", PREDICT, b"a=1", {"content-type": "text/plain"})
    assert got.status == 415
    assert "application/json" in got.json["hint"]


def test_the_type_that_curl_names_by_itself_is_read_as_json(server: Server) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert server.ask("POST", PREDICT, json.dumps(ROW).encode(), form).json == {"prediction": answer(1, 7)}
    path = "/v1/models/oracle:predict"
    got = server.ask("POST", path, b'{"instances": [{"key": 7, "act": ""}]}', form)
    assert (got.status, list(got.json)) == (200, ["predictions"])
    assert server.ask("POST", path, b"key=7", form).status == 400
    assert server.ask("POST", path, b"{}", {"content-type": "text/plain"}).status == 415


def test_a_request_id_is_echoed(server: Server) -> None:
    assert server.post(PREDICT, ROW, {"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"


def test_a_deadline_that_passes_is_answered_in_time(server: Server) -> None:
    began = time.monotonic()
    got = server.post(PREDICT, {"key": 1, "act": "sleep"}, {"x-request-timeout-ms": "100"})
    assert (got.status, got.json["code"]) == (504, "deadline-exceeded")
    assert time.monotonic() - began < 0.4
    assert server.post(PREDICT, ROW).status == 200


@pytest.mark.parametrize("value", ["0", "-1", "abc", "1e3", "60001", "9" * 40])
def test_a_deadline_out_of_range_is_refused(server: Server, value: str) -> None:
    assert server.post(PREDICT, ROW, {"x-request-timeout-ms": value}).status == 400


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    def request(key: int) -> bytes:
        body = json.dumps({"key": key, "act": ""}).encode()
        head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
        return head % (PREDICT.encode(), len(body)) + body

    received = server.raw(b"".join(request(key) for key in range(20)))
    answers = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert answers == [{"prediction": answer(1, key)} for key in range(20)]


def test_a_chunked_body_cut_anywhere_is_the_same_body(server: Server) -> None:
    body = json.dumps(ROW).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" % PREDICT.encode()
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        for byte in head + chunks:
            sock.sendall(bytes([byte]))
        sock.settimeout(5)
        assert b'{"prediction":%d}' % answer(1, 7) in sock.recv(65536)


def test_expect_continue_is_answered_before_the_body(server: Server) -> None:
    body = json.dumps(ROW).encode()
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.settimeout(5)
        sock.sendall(head % (PREDICT.encode(), len(body)))
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("zstd", zstd.compress), ("deflate", zlib.compress)],
)
def test_compressed_bodies_are_read_and_bombs_refused(
    server: Server, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    rows = json.dumps([ROW] * 1000).encode()
    headers = {"content-type": "application/json", "content-encoding": encoding}
    plain = server.ask("POST", PREDICT, rows)
    assert server.ask("POST", PREDICT, compress(rows), headers).body == plain.body
    assert server.ask("POST", PREDICT, compress(rows)[:-9], headers).status == 400
    assert server.ask("POST", PREDICT, compress(rows) + b"more", headers).status == 400
    bomb = server.ask("POST", PREDICT, compress(bytes(1 << 25)), headers)
    assert (bomb.status, bomb.json["code"]) == (413, "too-large")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 67108865\r\n\r\n", 413),
        (b"GET /" + b"a" * 8300 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 16400 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 30_000, 431),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\n", 415),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", 400),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: gzip, gzip\r\ncontent-length: 1\r\n\r\n", 415),
        (b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: gzip\r\ncontent-encoding: gzip\r\n\r\n", 415),
    ],
)
def test_bytes_that_break_the_protocol_or_a_limit_are_answered_once_and_the_connection_closed(
    server: Server, data: bytes, status: int
) -> None:
    received = server.raw(data)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in received


def test_a_body_at_the_limit_is_read_and_one_byte_more_is_not(server: Server) -> None:
    row = json.dumps(ROW).encode()
    most = 64 << 20
    assert server.post(PREDICT, row + b" " * (most - len(row))).status == 200
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
    got = server.raw(head % (PREDICT.encode(), most + 1))
    assert got.startswith(b"HTTP/1.1 413 ")


def test_as_many_chunks_as_the_limit_are_read_and_one_more_is_not(server: Server) -> None:
    row, most = json.dumps(ROW).encode(), 65_536
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" % PREDICT.encode()
    chunks = head + b"%x\r\n%b\r\n" % (len(row), row) + b"1\r\n \r\n" * (most - 1)
    end = b"0\r\n\r\n"
    assert server.raw(chunks + end).startswith(b"HTTP/1.1 200 ")
    assert server.raw(chunks + b"1\r\n \r\n" + end).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("path", "field"), [("/v2/models/oracle/infer", "error"), ("/v1/models/oracle:predict", "error"), (PREDICT, "code")]
)
@pytest.mark.parametrize("header", ["x-request-timeout-ms: soon", "inference-header-content-length: -1"])
def test_an_error_of_a_header_has_the_shape_of_its_path(server: Server, path: str, field: str, header: str) -> None:
    head, _, body = server.raw(
        b"POST %b HTTP/1.1\r\nhost: localhost\r\n%b\r\ncontent-length: 2\r\n\r\n{}" % (path.encode(), header.encode())
    ).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert field in json.loads(body)


def test_a_caller_that_leaves_takes_its_work_with_it(server: Server) -> None:
    body = json.dumps({"key": 1, "act": "sleep"}).encode()
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (PREDICT.encode(), len(body))
    callers = []
    for _ in range(40):
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.sendall(head + body)
        callers.append(sock)
    for sock in callers:
        sock.close()
    began = time.monotonic()
    assert server.post(PREDICT, ROW).status == 200
    assert time.monotonic() - began < 5, "forty abandoned half-second calls were executed"


def test_a_head_seen_before_means_what_it_meant(server: Server) -> None:
    def ask(body: bytes, extra: bytes = b"") -> bytes:
        return b"POST %b HTTP/1.1\r\nhost: localhost\r\n%bcontent-length: %d\r\n\r\n%b" % (
            PREDICT.encode(), extra, len(body), body,
        )  # fmt: skip

    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.settimeout(5)
        for key in (100, 101, 102, 103):
            sock.sendall(ask(json.dumps({"key": key, "act": ""}).encode()))
            assert b'{"prediction":%d}' % answer(1, key) in sock.recv(65536)
        one = ask(json.dumps({"key": 104, "act": ""}).encode())
        sock.sendall(one[:-5])
        time.sleep(0.05)
        sock.sendall(one[-5:] + one)
        received = b""
        while received.count(b'prediction":') < 2:
            received += sock.recv(65536)
        assert received.count(b'{"prediction":%d}' % answer(1, 104)) == 2
        sock.sendall(ask(json.dumps({"key": 105, "act": ""}).encode(), b"connection: close\r\n"))
        received = b""
        while more := sock.recv(65536):
            received += more
        assert b"connection: close" in received


def test_pages_tell_what_is_served(server: Server) -> None:
    assert server.get("/models").json == {"models": [{"name": "oracle", "live": "oracle@1", "ready": True}]}
    model = server.get("/models/oracle").json
    assert model["live"]["release"] == "oracle@1"
    assert [field["name"] for field in model["signature"]["inputs"]] == ["key", "act"]
    assert server.get("/healthz/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"ready": True}
    assert server.get("/v2/models/oracle").json["versions"] == ["1"]
    assert server.get("/v1/models").json == {"models": ["oracle"]}
    assert server.ask("HEAD", "/healthz/ready").body == b""


def test_the_other_protocols_give_the_same_answers(server: Server) -> None:
    v2 = server.post(
        "/v2/models/oracle/infer",
        {
            "id": "x",
            "inputs": [
                {"name": "key", "shape": [2], "datatype": "INT64", "data": [7, 8]},
                {"name": "act", "shape": [2], "datatype": "BYTES", "data": ["", ""]},
            ],
        },
    ).json
    assert v2["id"] == "x"
    assert v2["model_version"] == "1"
    assert v2["outputs"][0]["data"] == [answer(1, 7), answer(1, 8)]
    v1 = server.post("/v1/models/oracle:predict", {"instances": [ROW, {"key": 8, "act": ""}]}).json
    assert v1 == {"predictions": [answer(1, 7), answer(1, 8)]}
    bad = server.post("/v2/models/oracle/infer", {"inputs": []})
    assert bad.status == 400
    assert set(bad.json) == {"error"}


def test_the_api_document_has_each_models_schema_and_its_page_works_offline(server: Server) -> None:
    document = server.get("/openapi.json").json
    assert document["openapi"].startswith("3.0")
    schema = document["components"]["schemas"]["oracle.Input"]
    assert set(schema["properties"]) == {"key", "act"}
    example = document["paths"]["/models/oracle/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert server.post(PREDICT, example["examples"]["row"]["value"]).status == 200
    assert schema["example"] == example["examples"]["row"]["value"]
    page = server.get("/docs").body.decode()
    assert "http" not in page.replace("http-equiv", "")
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js"):
        assert asset in page
        assert server.get(f"/docs/{asset}").status == 200


def test_metrics_count_what_was_answered_and_live_on_the_admin_port_only(server: Server) -> None:
    def requests() -> float:
        text = server.get("/metrics", port=server.admin_port).body.decode()
        line = 'salver_requests_total{model="oracle",release="oracle@1",status="200"} '
        return float(text.partition(line)[2].partition("\n")[0])

    before = requests()
    for _ in range(5):
        server.post(PREDICT, ROW)
    assert requests() == before + 5
    assert server.get("/metrics").status == 404
    assert server.ask("POST", PREDICT, b"{}", port=server.admin_port).status == 404
