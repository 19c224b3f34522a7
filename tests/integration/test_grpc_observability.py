"""What a server tells of its gRPC calls: a line for each and for each message of a stream, traces, limits."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from salver.gateway import http2_frames as h2
from salver.gateway.http2_frames import frame
from tests.integration.test_grpc import SERVICE, place, wait_serving
from tests.integration.test_http2 import INFER, Peer
from tests.integration.test_observability import SPAN, watching
from tests.integration.watched import PATIENCE, Watched, comes
from tests.ports import free_port

DOUBLE = f"/{SERVICE}/ModelInfer"
STREAMED = f"/{SERVICE}/ModelStreamInfer"


@pytest.fixture(scope="module")
def watched(noting: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watching(noting, tmp_path_factory.mktemp("watched"), "--grpc-port", str(free_port())) as found:
        wait_serving(found.server)
        yield found


@pytest.fixture
def channel(watched: Watched) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(place(watched.server)) as opened:
        yield opened


def doubling(*values: float, model: str = "noting") -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP64", shape=[len(values)]).contents.fp64_contents.extend(values)
    return request


def telling(steps: str) -> Any:
    request = service_pb2.ModelInferRequest(model_name="teller")
    request.inputs.add(name="steps", datatype="BYTES", shape=[1]).contents.bytes_contents.append(steps.encode())
    return request


def named(name: str, **more: str) -> tuple[tuple[str, str], ...]:
    return (("x-request-id", name), *more.items())


def lines_of(watched: Watched, name: str, count: int) -> list[dict[str, Any]]:
    """The lines of a call, once there are so many."""
    return comes(lambda: found if len(found := _of(watched, name)) == count else [])


def _of(watched: Watched, name: str) -> list[dict[str, Any]]:
    return [line for line in watched.lines() if line["request_id"] == name]


def test_a_grpc_prediction_has_one_line_that_names_it(watched: Watched, channel: grpc.Channel) -> None:
    request = doubling(4.0, 5.0)
    answer, call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.with_call(
        request, metadata=named("grpc-17", authorization="Bearer hunter5")
    )
    [line] = lines_of(watched, "grpc-17", 1)
    assert len(line.pop("trace_id")) == 32
    assert line.pop("time").endswith("Z")
    assert 0 < line.pop("seconds") < PATIENCE
    assert line == {
        "method": "POST",
        "path": DOUBLE,
        "status": 200,
        "bytes_in": request.ByteSize(),
        "bytes_out": answer.ByteSize(),
        "rows": 2,
        "release": "noting@1",
        "prediction_id": dict(call.trailing_metadata())["x-salver-prediction-id"],
        "request_id": "grpc-17",
        "key": "",
        "client": "127.0.0.1",
        "code": "",
    }
    assert "hunter" not in watched.path.read_text()


@pytest.mark.parametrize("values", [(6.0,), (6.0, 7.0)])
def test_a_grpc_trace_has_the_phases_in_order_below_the_callers_span(
    watched: Watched, channel: grpc.Channel, values: tuple[float, ...]
) -> None:
    trace = f"{len(values)}f" * 16
    context = named(f"traced-{trace}", traceparent=f"00-{trace}-{SPAN}-01", tracestate="vendor=1")
    _, call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.with_call(
        doubling(*values), metadata=context
    )
    comes(lambda: len(watched.spans(trace)) == 5)
    spans = watched.spans(trace)
    root = spans["predict noting"]
    assert root["parentSpanId"] == SPAN
    facts = {each["key"]: next(iter(each["value"].values())) for each in root["attributes"]}
    assert (facts["url.path"], facts["http.response.status_code"]) == (DOUBLE, "200")
    assert (facts["salver.release"], facts["salver.rows"]) == ("noting@1", str(len(values)))
    assert facts["salver.prediction_id"] == dict(call.trailing_metadata())["x-salver-prediction-id"]
    phases = [spans[name] for name in ("queue", "decode", "predict", "encode")]
    assert {span["parentSpanId"] for span in phases} == {root["spanId"]}
    moments = [int(span[end]) for span in phases for end in ("startTimeUnixNano", "endTimeUnixNano")]
    assert moments == sorted(moments)
    assert (int(root["startTimeUnixNano"]), int(root["endTimeUnixNano"])) == (moments[0], moments[-1])
    [line] = lines_of(watched, f"traced-{trace}", 1)
    assert line["trace_id"] == trace


def test_each_message_of_a_grpc_stream_has_its_line_and_its_trace(watched: Watched, channel: grpc.Channel) -> None:
    trace = "5" * 32
    requests = [doubling(1.0, 2.0), doubling(3.0, model="nobody"), telling("3"), telling("3 raise")]
    before = watched.sample("salver_open_streams", release="teller@1")
    answers = list(
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(
            iter(requests), metadata=named("messages", traceparent=f"00-{trace}-{SPAN}-01")
        )
    )
    assert len(answers) == 1 + 1 + 3 + 2
    lines = {(line["release"], line["code"]): line for line in lines_of(watched, "messages", 4)}
    assert {place: (line["status"], line["rows"]) for place, line in lines.items()} == {
        ("noting@1", ""): (200, 2),
        ("", "no-such-model"): (404, 0),
        ("teller@1", ""): (200, 1),
        ("teller@1", "model-error"): (200, 1),
    }
    assert {line["path"] for line in lines.values()} == {STREAMED}
    assert {line["trace_id"] for line in lines.values()} == {trace, ""}
    assert lines["teller@1", ""]["bytes_out"] == sum(answer.ByteSize() for answer in answers[2:5])
    assert len({line["prediction_id"] for line in lines.values()}) == 4
    comes(lambda: {"predict noting", "predict teller"} <= watched.spans(trace).keys())
    assert watched.sample("salver_open_streams", release="teller@1") == before


def test_grpc_answers_in_pieces_that_are_open_are_counted_until_their_callers_leave(
    watched: Watched, channel: grpc.Channel
) -> None:
    call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(
        iter([telling("100000 slow")]), metadata=named("left")
    )
    next(call)
    assert watched.sample("salver_open_streams", release="teller@1") == 1
    call.cancel()
    [line] = lines_of(watched, "left", 1)
    assert (line["status"], line["code"], line["release"]) == (200, "client-closed", "teller@1")
    assert line["bytes_out"] > 0
    assert watched.sample("salver_open_streams", release="teller@1") == 0


@pytest.mark.parametrize(
    ("method", "request_body", "wanted"),
    [
        ("ServerLive", b"", {"status": 200, "code": "", "bytes_in": 0, "bytes_out": 2}),
        ("ModelMetadata", b"\n\6nobody", {"status": 404, "code": "no-such-model", "bytes_in": 8, "bytes_out": 0}),
        ("Nothing", b"", {"status": 501, "code": "not-implemented", "release": ""}),
        ("ModelInfer", b"\n\6nobody", {"status": 404, "code": "no-such-model", "release": ""}),
        ("ModelInfer", b"\n\6noting", {"status": 422, "code": "invalid-row", "release": "noting@1"}),
        ("ModelInfer", b"\xff", {"status": 400, "code": "bad-protocol-body", "release": ""}),
    ],
)
def test_every_grpc_call_and_error_has_a_line_with_its_code(
    watched: Watched, channel: grpc.Channel, method: str, request_body: bytes, wanted: dict[str, Any]
) -> None:
    name = f"grpc-{method}-{wanted['code']}-{len(request_body)}"
    with contextlib.suppress(grpc.RpcError):
        channel.unary_unary(f"/{SERVICE}/{method}")(request_body, metadata=named(name))
    [line] = lines_of(watched, name, 1)
    assert wanted.items() <= line.items()
    assert line["path"] == f"/{SERVICE}/{method}"


def test_a_grpc_caller_who_leaves_and_one_whose_time_is_over_have_their_lines(
    watched: Watched, channel: grpc.Channel
) -> None:
    infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
    refused = watched.sample("salver_refused_total", release="teller@1", reason="deadline-exceeded")
    with pytest.raises(grpc.RpcError) as caught:
        infer(telling("20 slow"), metadata=named("late", **{"x-request-timeout-ms": "50"}))
    [line] = lines_of(watched, "late", 1)
    assert (line["status"], line["code"], line["rows"]) == (504, "deadline-exceeded", 0)
    assert line["prediction_id"] == dict(caught.value.trailing_metadata())["x-salver-prediction-id"]
    assert watched.sample("salver_refused_total", release="teller@1", reason="deadline-exceeded") == refused + 1
    before = watched.sample("salver_abandoned_total", release="teller@1")
    call = infer.future(telling("100 slow"), metadata=named("impatient"))
    comes(lambda: watched.sample("salver_waiting", release="teller@1"))
    call.cancel()
    [line] = lines_of(watched, "impatient", 1)
    assert (line["status"], line["code"], line["release"]) == (0, "client-closed", "teller@1")
    assert watched.sample("salver_abandoned_total", release="teller@1") == before + 1


def test_a_health_watch_has_its_line_when_its_caller_leaves(watched: Watched, channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    stub.Check(health_pb2.HealthCheckRequest(service="noting"), metadata=named("checked"))
    [line] = lines_of(watched, "checked", 1)
    assert (line["status"], line["code"], line["bytes_in"], line["bytes_out"]) == (200, "", 8, 2)
    call = stub.Watch(health_pb2.HealthCheckRequest(), metadata=named("watching"))
    next(call)
    call.cancel()
    [line] = lines_of(watched, "watching", 1)
    assert (line["status"], line["code"], line["bytes_out"]) == (200, "client-closed", 2)


def _too_large(peer: Peer) -> bytes:
    head = frame(h2.HEADERS, h2.END_HEADERS, 1, peer.block(INFER))
    return head + frame(h2.DATA, 0, 1, b"\0" + (1 << 30).to_bytes(4, "big"))


def _too_dense(peer: Peer) -> bytes:
    data = gzip.compress(bytes(32 << 20))[:12_000]
    head = frame(h2.HEADERS, h2.END_HEADERS, 1, peer.block(INFER, ("grpc-encoding", "gzip")))
    return head + frame(h2.DATA, h2.END_STREAM, 1, b"\1" + len(data).to_bytes(4, "big") + data)


def _too_many(peer: Peer) -> bytes:
    return frame(h2.HEADERS, 0, 1, peer.block(INFER)) + frame(h2.CONTINUATION, 0, 1, bytes(16_384)) * 2


def _too_wide(peer: Peer) -> bytes:
    block = peer.block(INFER, *((f"a{i}", "b") for i in range(450)))
    return frame(h2.HEADERS, h2.END_HEADERS, 1, block)


@pytest.mark.parametrize(
    ("limit", "sent", "code", "status"),
    [
        ("body", _too_large, "too-large", 413),
        ("compression", _too_dense, "too-large", 413),
        ("headers", _too_many, "headers-too-large", 431),
        ("headers", _too_wide, "headers-too-large", 431),
    ],
)
def test_a_limit_that_binds_on_the_grpc_port_is_counted_by_its_name(
    watched: Watched, limit: str, sent: Any, code: str, status: int
) -> None:
    before = watched.sample("salver_limit_hits_total", limit=limit)
    told = sum(line["code"] == code for line in watched.lines())
    with Peer(watched.server) as peer:
        peer.send(sent(peer))
        comes(lambda: watched.sample("salver_limit_hits_total", limit=limit) == before + 1)
    found = comes(lambda: [line for line in watched.lines() if line["code"] == code][told:])
    assert [line["status"] for line in found] == [status]


def test_a_connection_that_breaks_the_protocol_has_a_line_and_so_have_its_open_calls(watched: Watched) -> None:
    with Peer(watched.server) as peer:
        data = telling("100000 slow").SerializeToString()
        block = peer.block("ModelStreamInfer", ("x-request-id", "broken-off"))
        peer.send(frame(h2.HEADERS, h2.END_HEADERS, 1, block))
        peer.send(frame(h2.DATA, 0, 1, b"\0" + len(data).to_bytes(4, "big") + data))
        assert peer.next(h2.DATA)[2] == 1
        peer.send(frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, bytes(8)))
        assert peer.broken() == h2.PROTOCOL_ERROR
    [line] = lines_of(watched, "broken-off", 1)
    assert (line["code"], line["release"]) == ("client-closed", "teller@1")
    assert watched.line(method="", code="bad-request")["status"] == 400
    assert watched.sample("salver_open_streams", release="teller@1") == 0
