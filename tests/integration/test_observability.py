"""What a server tells of its requests: metrics by phase and by limit, the access log, traces in a real collector."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.server import Server
from tests.integration.watched import PATIENCE, Watched, comes
from tests.ports import free_port

PREDICT = "/models/noting/predict"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@contextlib.contextmanager
def watching(noting: Path, folder: Path, *more: str) -> Iterator[Watched]:
    """A server with these options that tells everything it can."""
    port = free_port()
    told, lines = folder / "spans", folder / "access.jsonl"
    with told.open("wb") as out:
        collector = subprocess.Popen([sys.executable, "-u", "-m", "oteltap", "--port", str(port)], stdout=out)
    options = ("--workers", "1", "--access-log", str(lines), "--trace-sample", "1", *more)
    try:
        comes(lambda: b"Listening" in told.read_bytes())
        server = Server(noting, *options, "--traces", f"http://127.0.0.1:{port}", log=folder / "log")
        with server:
            yield Watched(server, lines, told)
    finally:
        collector.terminate()
        collector.wait()


@pytest.fixture(scope="module")
def watched(noting: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watching(noting, tmp_path_factory.mktemp("watched")) as found:
        yield found


def test_a_prediction_has_one_line_that_names_it_and_holds_no_secret(watched: Watched) -> None:
    headers = {"x-request-id": "order-17", "authorization": "Bearer hunter2", "x-other": "hunter3"}
    answer = watched.server.post(f"{PREDICT}?strict=true&token=hunter4", [{"x": 4.0}, {"x": 5.0}], headers)
    line = watched.line(request_id="order-17")
    trace_id, began, seconds = (line.pop(name) for name in ("trace_id", "time", "seconds"))
    assert line == {
        "method": "POST",
        "path": PREDICT,
        "status": 200,
        "bytes_in": len(b'[{"x": 4.0}, {"x": 5.0}]'),
        "bytes_out": line["bytes_out"],
        "rows": 2,
        "release": "noting@1",
        "prediction_id": answer.headers["x-salver-prediction-id"],
        "request_id": "order-17",
        "key": "",
        "client": "127.0.0.1",
        "code": "",
    }
    assert line["bytes_out"] > len(answer.body)
    assert len(trace_id) == 32
    assert time.strptime(began[:19], "%Y-%m-%dT%H:%M:%S")
    assert began.endswith("Z")
    assert 0 < seconds < PATIENCE
    assert "hunter" not in watched.path.read_text()


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "wanted"),
    [
        ("GET", "/models", None, {}, {"status": 200, "rows": 0, "code": ""}),
        ("GET", "/nothing/here", None, {}, {"status": 404, "code": "no-such-path"}),
        ("POST", "/models/nobody/predict", b"{}", {}, {"status": 404, "code": "no-such-model", "release": ""}),
        ("POST", PREDICT, b'{"x": "a"}', {}, {"status": 422, "code": "invalid-row", "release": "noting@1"}),
        ("POST", PREDICT, b"{", {}, {"status": 400, "code": "bad-json"}),
        ("POST", PREDICT, b"", {"content-length": "99999999999"}, {"status": 413, "code": "too-large"}),
    ],
)
def test_pages_and_every_kind_of_error_have_a_line_with_their_code(
    watched: Watched, method: str, path: str, body: bytes | None, headers: dict[str, str], wanted: dict[str, Any]
) -> None:
    name = f"asked-{wanted['status']}-{wanted['code']}"
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", watched.server.port, timeout=15)) as connection:
        connection.request(method, path, body, {"x-request-id": name, "content-type": "application/json", **headers})
        assert connection.getresponse().status == wanted["status"]
    line = watched.line(request_id=name)
    assert wanted.items() <= line.items()
    assert line["path"] == path


def test_a_streamed_answer_has_one_line_when_it_is_over_and_its_pieces_are_counted(watched: Watched) -> None:
    before = watched.sample("salver_stream_pieces_total", release="teller@1")
    headers = {"accept": "text/event-stream", "x-request-id": "streamed"}
    answer = watched.server.post("/models/teller/predict", {"steps": "5"}, headers)
    line = watched.line(request_id="streamed")
    assert (line["status"], line["rows"], line["code"]) == (200, 1, "")
    assert line["bytes_out"] > len(answer.body)
    assert line["prediction_id"] == answer.headers["x-salver-prediction-id"]
    assert watched.sample("salver_stream_pieces_total", release="teller@1") - before == 5
    assert watched.sample("salver_open_streams", release="teller@1") == 0


def test_streams_that_are_open_are_counted_until_their_callers_leave(watched: Watched) -> None:
    body = json.dumps({"steps": "100000 slow"}).encode()
    head = (
        b"POST /models/teller/predict HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n"
        b"x-request-id: gone\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    with socket.create_connection(("127.0.0.1", watched.server.port)) as caller:
        caller.sendall(head + body)
        assert caller.recv(1)
        assert watched.sample("salver_open_streams", release="teller@1") == 1
    assert watched.line(request_id="gone")["code"] == "client-closed"
    assert watched.sample("salver_open_streams", release="teller@1") == 0


def test_a_file_that_was_moved_away_is_opened_anew(watched: Watched) -> None:
    watched.server.ask("GET", "/models", headers={"x-request-id": "before"})
    watched.line(request_id="before")
    old = watched.path.rename(watched.path.with_suffix(".1"))
    watched.server.ask("GET", "/models", headers={"x-request-id": "after"})
    comes(watched.path.exists)
    watched.line(request_id="after")
    assert "before" in old.read_text()
    assert "after" not in old.read_text()


def test_a_trace_has_the_phases_in_order_below_the_callers_span(watched: Watched) -> None:
    parent = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    answer = watched.server.post(PREDICT, {"x": 6.0}, parent)
    comes(lambda: len(watched.spans(TRACE)) == 5)
    spans = watched.spans(TRACE)
    root = spans["predict noting"]
    assert root["parentSpanId"] == SPAN
    facts = {each["key"]: next(iter(each["value"].values())) for each in root["attributes"]}
    assert facts["salver.release"] == "noting@1"
    assert facts["salver.prediction_id"] == answer.headers["x-salver-prediction-id"]
    assert (facts["http.response.status_code"], facts["salver.rows"]) == ("200", "1")
    phases = [spans[name] for name in ("queue", "decode", "predict", "encode")]
    assert {span["parentSpanId"] for span in phases} == {root["spanId"]}
    moments = [int(span[end]) for span in phases for end in ("startTimeUnixNano", "endTimeUnixNano")]
    assert moments == sorted(moments)
    assert int(root["startTimeUnixNano"]) == moments[0]
    assert int(root["endTimeUnixNano"]) == moments[-1]


def test_the_model_code_knows_the_trace_it_works_for(watched: Watched) -> None:
    trace = "1" * 32
    watched.server.post(PREDICT, {"x": 77.0}, {"traceparent": f"00-{trace}-{SPAN}-01"})
    said = comes(lambda: [line for line in watched.server.log.read_text().splitlines() if "doubling [77.0]" in line])
    assert said == [f"WARNING noting doubling [77.0] trace_id={trace}"]


def test_a_request_that_its_caller_does_not_trace_is_not_traced(watched: Watched) -> None:
    quiet, loud = "2" * 32, "3" * 32
    watched.server.post(PREDICT, {"x": 8.0}, {"traceparent": f"00-{quiet}-{SPAN}-00", "x-request-id": "quiet"})
    watched.server.post(PREDICT, {"x": 8.0}, {"traceparent": f"00-{loud}-{SPAN}-01"})
    comes(lambda: watched.spans(loud))
    assert not watched.spans(quiet)
    assert watched.line(request_id="quiet")["trace_id"] == quiet


@pytest.mark.parametrize("parent", ["", "nonsense", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01"])
def test_without_a_usable_traceparent_a_trace_begins_here(watched: Watched, parent: str) -> None:
    name = f"fresh-{parent[:4]}"
    watched.server.post(PREDICT, {"x": 9.0}, {"x-request-id": name, **({"traceparent": parent} if parent else {})})
    own = watched.line(request_id=name)["trace_id"]
    assert own not in ("", TRACE, "0" * 32)
    root = comes(lambda: watched.spans(own).get("predict noting"))
    assert root["parentSpanId"] == ""


def test_what_callers_write_into_their_trace_state_is_not_repeated(watched: Watched) -> None:
    trace = "4" * 32
    state = "vendor=1,forged\tline,=,vendor=2" + ",x=1" * 40
    watched.server.post(PREDICT, {"x": 3.0}, {"traceparent": f"00-{trace}-{SPAN}-01", "tracestate": state})
    comes(lambda: watched.spans(trace))
    assert "forged" not in watched.server.log.read_text()
    assert "vendor" not in watched.server.log.read_text()


def test_metrics_say_how_long_requests_waited_and_what_their_batches_took(watched: Watched) -> None:
    def counts() -> list[float]:
        phases = [
            watched.sample("salver_phase_seconds_count", release="noting@1", phase=phase)
            for phase in ("decode", "predict", "encode")
        ]
        return [watched.sample("salver_queue_seconds_count", release="noting@1"), *phases]

    before = counts()
    for _ in range(3):
        assert watched.server.post(PREDICT, {"x": 1.0}).status == 200
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [3, 3, 3, 3]
    waited, took = (watched.sample(f"salver_{name}_seconds_sum", release="noting@1") for name in ("queue", "request"))
    assert 0 < waited < took
    assert watched.sample("salver_phase_seconds_sum", release="noting@1") + waited < took


@pytest.mark.parametrize(
    ("limit", "request_head"),
    [
        ("body", b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n"),
        ("request-line", b"GET %b?" + b"x" * 9000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        ("headers", b"GET %b HTTP/1.1\r\nhost: localhost\r\na: " + b"x" * 17_000 + b"\r\n\r\n"),
        ("header-count", b"GET %b HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 101 + b"\r\n"),
    ],
)
def test_a_limit_that_binds_is_counted_by_its_name(watched: Watched, limit: str, request_head: bytes) -> None:
    before = watched.sample("salver_limit_hits_total", limit=limit)
    with socket.create_connection(("127.0.0.1", watched.server.port)) as caller:
        caller.sendall(request_head.replace(b"%b", PREDICT.encode()))
        assert caller.recv(12).startswith(b"HTTP/1.1 4")
    assert watched.sample("salver_limit_hits_total", limit=limit) == before + 1


def test_too_many_rows_are_a_limit_too(watched: Watched) -> None:
    before = watched.sample("salver_limit_hits_total", limit="rows")
    assert watched.server.post(PREDICT, [{"x": 1.0}] * 10_001).status == 413
    assert watched.sample("salver_limit_hits_total", limit="rows") == before + 1
