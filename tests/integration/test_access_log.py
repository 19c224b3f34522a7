"""Where the access log goes, and what becomes of it when that is slow, full or not there; what it says of callers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.integration.server import Server
from tests.integration.test_grpc import place, wait_serving
from tests.integration.watched import PATIENCE, Watched, comes, sample
from tests.ports import free_port

PREDICT = "/models/noting/predict"


def test_a_log_that_nobody_reads_drops_lines_counts_them_and_holds_nothing_up(noting: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    asked = b"GET /%b HTTP/1.1\r\nhost: localhost\r\n\r\n" % (b"n" * 1024)
    with Server(noting, "--access-log", str(fifo), log=tmp_path / "log") as server:
        answered = 0
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as caller:
            while not sample(server, "salver_access_log_dropped_total"):
                caller.sendall(asked * 200)
                got = b""
                while got.count(b"HTTP/1.1 404") < 200:
                    got += caller.recv(1 << 18)
                answered += 200
                assert answered < 20_000, "nothing was dropped"
        held = b""

        def drained() -> bool:
            nonlocal held
            with contextlib.suppress(BlockingIOError):
                while data := os.read(reader, 1 << 18):
                    held += data
            written = sum(
                json.loads(line)["status"] == 404 for line in held.splitlines(keepends=True) if line[-1:] == b"\n"
            )
            return bool(written + sample(server, "salver_access_log_dropped_total") >= answered)

        comes(drained)
    os.close(reader)


def test_each_of_many_predictions_that_are_asked_for_alike_has_its_own_line(noting: Path, tmp_path: Path) -> None:
    lines = tmp_path / "access.jsonl"
    with Server(noting, "--access-log", str(lines), log=tmp_path / "log") as server:
        watched, told = Watched(server, lines, lines), {}
        connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE) for _ in range(3)]
        for number in range(60):
            connection = connections[number % 3]
            connection.request("POST", f"{PREDICT}?for=%25s", json.dumps({"x": number % 7 / 2}))
            answer = connection.getresponse()
            body, head = answer.read(), sum(len(f"{name}: {value}\r\n") for name, value in answer.getheaders())
            size = len("HTTP/1.1 200 OK\r\n") + head + len("\r\n") + len(body)
            told[answer.headers["x-salver-prediction-id"]] = size
        for connection in connections:
            connection.close()
        comes(lambda: sum(line["path"] == PREDICT for line in watched.lines()) >= 60)
        found = [line for line in watched.lines() if line["path"] == PREDICT]
    assert {line["prediction_id"]: line["bytes_out"] for line in found} == told
    assert len(found) == len(told) == 60
    same = {"status": 200, "bytes_in": 10, "rows": 1, "release": "noting@1", "client": "127.0.0.1", "code": ""}
    for line in found:
        assert same.items() <= line.items()
        assert 0 < line["seconds"] < PATIENCE


FULL_DISK = """
import asyncio, resource, sys
from salver.gateway.access_log import AccessLog
from salver.gateway.seen import Seen

async def fill(path):
    dropped = []
    log = AccessLog(asyncio.get_running_loop(), path, lambda lines, why: dropped.append(lines))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
    for name in ("one", "two", "three"):
        log.tell(Seen("GET", "/" + name, "", 0), 1)
    while not dropped:
        await asyncio.sleep(0.01)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.tell(Seen("GET", "/four", "", 0), 1)
    log.close()
    await asyncio.sleep(0)
    print(sum(dropped))

asyncio.run(fill(sys.argv[1]))
"""


def test_a_disk_that_fills_up_within_a_line_costs_that_line_and_none_that_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "2\n"
    first, torn, last = path.read_text().splitlines()
    assert (json.loads(first)["path"], json.loads(last)["path"]) == ("/one", "/four")
    whole = json.dumps(json.loads(first) | {"path": "/two"}, separators=(",", ":"))
    time = len('{"time":"2026-11-21T19:07:57.918Z"')  # which is another millisecond, maybe
    assert torn[time:] == whole[time : len(torn)]


def test_a_log_that_can_not_be_written_is_said_once_and_all_that_is_said_is_json_where_that_is_asked_for(
    noting: Path, tmp_path: Path
) -> None:
    options = ("--access-log", "/dev/full", "--json-logs")
    with Server(noting, "noting", *options, log=tmp_path / "log") as server:
        for number in range(5):
            assert server.post(PREDICT, {"x": number}).status == 200
            comes(lambda: sample(server, "salver_access_log_dropped_total") > number)  # noqa: B023 - used at once
    told = [json.loads(line) for line in server.log.read_text().splitlines()]
    lost = "of the access log could not be written to /dev/full: No space left on device"
    [text] = [line["text"] for line in told if line["event"] == "gateway"]
    assert lost in text
    assert [line["text"] for line in told if line["event"] == "print"][-1] == "printed [4.0]"
    records = [line for line in told if line["event"] == "log" and line["text"] == "doubling [4.0]"]
    [record] = [{**record, "worker": record["worker"].partition("/")[0]} for record in records]
    assert record == {
        "event": "log", "text": "doubling [4.0]", "worker": "noting@1", "logger": "noting", "level": "WARNING",
        "trace_id": "",
    }  # fmt: skip


def test_who_may_not_ask_is_counted_by_the_reason_and_the_log_has_the_callers_name(
    noting: Path, tmp_path: Path
) -> None:
    keys, lines = tmp_path / "keys.jsonl", tmp_path / "access.jsonl"

    def key(*arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "salver", "key", "add", *arguments, "--keys", str(keys)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    tokens = {
        "shop": key("shop", "--scope", "predict"),
        "reader": key("reader", "--scope", "metadata"),
        "slow": key("slow", "--scope", "predict", "--requests-per-second", "0.001"),
    }
    options = ("--keys", str(keys), "--access-log", str(lines))
    with Server(noting, *options, log=tmp_path / "log") as server:
        watched = Watched(server, lines, lines)
        asked = [("", 401), ("reader", 403), ("shop", 200), *[("slow", 0)] * 3]
        for name, wanted in asked:
            headers = {"authorization": f"Bearer {tokens[name]}"} if name else {}
            status = server.post(PREDICT, {"x": 1.0}, headers).status
            assert status in ((wanted,) if wanted else (200, 429))
        assert watched.line(status=401, code="unauthenticated")["key"] == ""
        assert watched.line(status=403, code="forbidden")["release"] == ""
        assert watched.line(status=200, key="shop")["release"] == "noting@1"
        assert watched.line(status=429, code="quota-exceeded")["key"] == "slow"
        scraper = key("scraper", "--scope", "metrics")
        headers = {"authorization": f"Bearer {scraper}"}
        comes(lambda: server.ask("GET", "/metrics", headers=headers, port=server.admin_port).status == 200)
        text = server.ask("GET", "/metrics", headers=headers, port=server.admin_port).body.decode()
    for reason in ("unauthenticated", "forbidden", "quota-exceeded"):
        found = text.partition(f'salver_refused_total{{model="noting",reason="{reason}",release="noting@1"}} ')[2]
        assert float(found.partition("\n")[0]) >= 1
    written = lines.read_text()
    assert not [token for token in tokens.values() if token.rpartition("_")[2] in written]


def test_who_may_not_ask_over_grpc_is_told_and_counted_as_over_http(noting: Path, tmp_path: Path) -> None:
    keys, lines = tmp_path / "keys.jsonl", tmp_path / "access.jsonl"

    def key(*arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "salver", "key", "add", *arguments, "--keys", str(keys)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    tokens = {
        "shop": key("shop", "--scope", "predict"),
        "reader": key("reader", "--scope", "metadata"),
        "slow": key("slow", "--scope", "predict", "--requests-per-second", "0.001"),
        "scraper": key("scraper", "--scope", "metrics"),
    }
    request = service_pb2.ModelInferRequest(model_name="noting")
    request.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(1.0)
    options = ("--keys", str(keys), "--access-log", str(lines), "--grpc-port", str(free_port()))
    with Server(noting, *options, log=tmp_path / "log") as server, grpc.insecure_channel(place(server)) as channel:
        wait_serving(server)
        watched = Watched(server, lines, lines)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name in ("", "reader", "shop", "slow", "slow", "slow"):
            sent = (("authorization", f"Bearer {tokens[name]}"),) if name else ()
            with contextlib.suppress(grpc.RpcError):
                stub.ModelInfer(request, metadata=sent)
        model = service_pb2.ModelMetadataRequest(name="noting")
        stub.ModelMetadata(model, metadata=(("authorization", f"Bearer {tokens['reader']}"),))
        path = "/inference.GRPCInferenceService/ModelInfer"
        assert watched.line(path=path, status=401, code="unauthenticated")["key"] == ""
        assert watched.line(path=path, status=403, code="forbidden")["release"] == ""
        assert watched.line(path=path, status=200, key="shop")["release"] == "noting@1"
        assert watched.line(path=path, status=429, code="quota-exceeded")["key"] == "slow"
        assert watched.line(key="reader")["path"] == "/inference.GRPCInferenceService/ModelMetadata"
        headers = {"authorization": f"Bearer {tokens['scraper']}"}
        text = server.ask("GET", "/metrics", headers=headers, port=server.admin_port).body.decode()
    found = text.partition('salver_refused_total{model="noting",reason="quota-exceeded",release="noting@1"} ')[2]
    assert float(found.partition("\n")[0]) >= 1
    assert not [token for token in tokens.values() if token.rpartition("_")[2] in lines.read_text()]


def test_lines_go_to_the_standard_output_where_that_is_asked_for_and_what_a_model_prints_does_not(
    noting: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-P", "-m", "salver", "serve", "--access-log", "-", "--port", "0", "--admin-port", "0"]
    environment = {**os.environ, "SALVER_REGISTRY": str(noting), "SALVER_SERVE_GRPC_PORT": "-1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log)
    try:
        place = comes(lambda: _place((tmp_path / "log").read_text()))
        with contextlib.closing(http.client.HTTPConnection(place, timeout=15)) as connection:
            connection.request("GET", "/models")
            assert connection.getresponse().status == 200
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert (line["path"], line["status"]) == ("/models", 200)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _place(said: str) -> str:
    return said.partition(" on http://")[2].partition(" ")[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--access-log", "/nowhere/at/all.jsonl"), "access_log: /nowhere/at/all.jsonl: No such file"),
        (("--traces", "collector:4318"), "traces: collector:4318 is no http address"),
    ],
)
def test_what_can_not_be_told_is_said_before_anything_starts(noting: Path, options: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-P", "-m", "salver", "serve", "--port", "0", "--admin-port", "0", *options]
    environment = {**os.environ, "SALVER_REGISTRY": str(noting)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert said in " ".join(ended.stderr.split())
