"""gRPC, as the clients of its peers see it: tritonclient, the standard health stub and reflection, unmodified."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from salver.gateway.grpc import methods
from tests.integration.oracle import answer
from tests.integration.server import Server
from tests.ports import free_port

PATIENCE = 60.0
SERVICE = "inference.GRPCInferenceService"


def place(server: Server) -> str:
    return f"127.0.0.1:{server.options[server.options.index('--grpc-port') + 1]}"


@pytest.fixture(scope="module")
def server(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("grpc") / "log"
    with Server(published, "--grpc-port", str(free_port()), log=log) as running:
        wait_serving(running)
        yield running


def wait_serving(server: Server) -> None:
    with grpc.insecure_channel(place(server)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for said in stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=PATIENCE):
            if said.status == health_pb2.HealthCheckResponse.SERVING:
                return


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(place(server)) as connected:
        yield connected


def inputs_of(keys: list[int], acts: list[str] | None = None) -> list[Any]:
    key = triton.InferInput("key", [len(keys)], "INT64")
    key.set_data_from_numpy(np.array(keys, np.int64))
    act = triton.InferInput("act", [len(keys)], "BYTES")
    act.set_data_from_numpy(np.array([text.encode() for text in acts or [""] * len(keys)], np.object_))
    return [key, act]


def typed(keys: list[int], **more: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name="oracle", **more)
    key = request.inputs.add(name="key", datatype="INT64", shape=[len(keys)])
    key.contents.int64_contents.extend(keys)
    act = request.inputs.add(name="act", datatype="BYTES", shape=[len(keys)])
    act.contents.bytes_contents.extend([b""] * len(keys))
    return request


def test_raw_tensors_are_answered_raw(client: Any) -> None:
    keys = [1, 7, 1_000_003]
    result = client.infer("oracle", inputs_of(keys), request_id="mine")
    [output] = result.get_response().outputs
    assert result.as_numpy(output.name).tolist() == [answer(1, key) for key in keys]
    assert result.get_response().raw_output_contents
    assert (result.get_response().model_version, result.get_response().id) == ("1", "mine")


def test_typed_tensors_are_answered_typed(server: Server) -> None:
    with grpc.insecure_channel(place(server)) as channel:
        response, call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.with_call(
            typed([7, 8], id="x"), metadata=(("x-request-id", "r-1"),)
        )
    assert list(response.outputs[0].contents.int64_contents) == [answer(1, 7), answer(1, 8)]
    assert not response.raw_output_contents
    said = dict(call.trailing_metadata())
    assert said["x-salver-release"] == "oracle@1"
    assert said["x-request-id"] == "r-1"
    assert len(said["x-salver-prediction-id"]) == 36


def test_metadata_configuration_and_index_come_from_the_signature(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("oracle")
    assert client.is_model_ready("oracle", "1")
    assert client.get_server_metadata().name == "salver"
    metadata = client.get_model_metadata("oracle")
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("key", "INT64", [-1]),
        ("act", "BYTES", [-1]),
    ]
    config = client.get_model_config("oracle").config
    assert [each.name for each in config.input] == ["key", "act"]
    assert [(each.name, each.version, each.state) for each in client.get_model_repository_index().models] == [
        ("oracle", "1", "READY")
    ]


def test_the_readiness_of_a_model_that_is_not_served_is_not_found(client: Any) -> None:
    for name, version in (("nothing", ""), ("oracle", "9"), ("oracle", "x")):
        with pytest.raises(InferenceServerException) as caught:
            client.is_model_ready(name, version)
        assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_an_asyncio_client_gets_many_answers_at_once(server: Server) -> None:
    async def ask() -> list[int]:
        async with triton_aio.InferenceServerClient(place(server)) as client:
            results = await asyncio.gather(*[client.infer("oracle", inputs_of([key])) for key in range(200)])
        return [int(result.as_numpy(result.get_response().outputs[0].name)[0]) for result in results]

    assert asyncio.run(ask()) == [answer(1, key) for key in range(200)]


def test_a_stream_answers_each_request_in_order_and_says_what_is_wrong_with_one(client: Any) -> None:
    said: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: said.put((result, error)))
    for key in range(20):
        client.async_stream_infer("oracle" if key != 5 else "nothing", inputs_of([key]))
    answers = [said.get(timeout=PATIENCE) for _ in range(20)]
    client.stop_stream()
    for key, (result, problem) in enumerate(answers):
        if key == 5:
            assert "no model named 'nothing'" in str(problem)
        else:
            assert result.as_numpy(result.get_response().outputs[0].name).tolist() == [answer(1, key)]


def refused(client: Any, *, model: str = "oracle", **more: Any) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, more.pop("inputs", inputs_of([1])), **more)
    return caught.value


def test_what_is_wrong_with_a_request_is_said_with_the_right_status(client: Any) -> None:
    assert refused(client, model="nothing").status() == "StatusCode.NOT_FOUND"
    assert refused(client, model_version="9").status() == "StatusCode.NOT_FOUND"
    assert refused(client, model_version="latest").status() == "StatusCode.NOT_FOUND"
    missing = refused(client, inputs=inputs_of([1])[:1])
    assert (missing.status(), "'act' is missing" in str(missing)) == ("StatusCode.INVALID_ARGUMENT", True)
    wrong = triton.InferInput("key", [1], "FP32")
    wrong.set_data_from_numpy(np.ones(1, np.float32))
    assert refused(client, inputs=[wrong, *inputs_of([1])[1:]]).status() == "StatusCode.INVALID_ARGUMENT"
    assert refused(client, inputs=inputs_of([1], ["raise"])).status() == "StatusCode.INTERNAL"
    late = refused(client, inputs=inputs_of([1], ["sleep"]), client_timeout=0.1)
    assert late.status() == "StatusCode.DEADLINE_EXCEEDED"
    asked = refused(client, inputs=inputs_of([1], ["sleep"]), headers={"x-request-timeout-ms": "100"})
    assert asked.status() == "StatusCode.DEADLINE_EXCEEDED"
    with pytest.raises(InferenceServerException) as load:
        client.load_model("oracle")
    assert load.value.status() == "StatusCode.UNIMPLEMENTED"
    assert "salver promote" in str(load.value)


def test_bytes_that_are_no_message_and_messages_over_the_limit_are_the_clients_fault(server: Server) -> None:
    with grpc.insecure_channel(place(server), options=[("grpc.max_send_message_length", -1)]) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        for body, status in (
            (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
            (b"\x0a\x06oracle\x2a\xff\x01", grpc.StatusCode.INVALID_ARGUMENT),
            (b"", grpc.StatusCode.NOT_FOUND),
            (bytes((64 << 20) + 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                infer(body)
            assert caught.value.code() == status
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{SERVICE}/SystemSharedMemoryStatus")(b"")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_standard_health_service_knows_server_and_models(server: Server) -> None:
    with grpc.insecure_channel(place(server)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE, "oracle"):
            said = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert said.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        watched = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"))
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watched.cancel()


def test_reflection_describes_the_messages_as_the_generated_ones_are(server: Server) -> None:
    with grpc.insecure_channel(place(server)) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
        pool = DescriptorPool(database)
        service = pool.FindServiceByName(SERVICE)
        assert service.FindMethodByName("ModelStreamInfer").server_streaming
        for name in ("ModelInferRequest", "ModelInferResponse", "ModelMetadataResponse", "InferTensorContents"):
            ours = pool.FindMessageTypeByName(f"inference.{name}")
            theirs = service_pb2.DESCRIPTOR.message_types_by_name[name]
            known = {field.name: (field.number, field.type) for field in theirs.fields}
            assert {field.name: (field.number, field.type) for field in ours.fields}.items() <= known.items()
        assert pool.FindMessageTypeByName("grpc.health.v1.HealthCheckRequest")


def test_reflection_describes_every_method_that_is_answered(server: Server) -> None:
    with grpc.insecure_channel(place(server)) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        described = {f"/{SERVICE}/{method.name}".encode() for method in pool.FindServiceByName(SERVICE).methods}
    assert described == set(methods.methods())


def test_reflection_describes_the_configuration_as_the_generated_messages_do(server: Server) -> None:
    with grpc.insecure_channel(place(server)) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        pool.FindServiceByName(SERVICE)
        types = pool.FindEnumTypeByName("inference.DataType")
        assert {value.name: value.number for value in types.values} == dict(model_config_pb2.DataType.items())
        names = ("ModelConfig", "ModelInput", "ModelOutput", "ModelVersionPolicy.Specific", "ModelConfigResponse",
                 "RepositoryModelLoadRequest", "RepositoryModelUnloadRequest", "ModelRepositoryParameter")  # fmt: skip
        for name in names:
            theirs = service_pb2.DESCRIPTOR.pool.FindMessageTypeByName(f"inference.{name}")
            ours = pool.FindMessageTypeByName(f"inference.{name}")
            known = {field.name: (field.number, field.type) for field in theirs.fields}
            assert {field.name: (field.number, field.type) for field in ours.fields}.items() <= known.items()
        ask = channel.unary_unary(f"/{SERVICE}/ModelConfig")
        raw = ask(service_pb2.ModelConfigRequest(name="oracle").SerializeToString(), timeout=PATIENCE)
        said = GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfigResponse")).FromString(raw)
    theirs = service_pb2.ModelConfigResponse.FromString(raw)
    keep = {"preserving_proto_field_name": True}
    assert MessageToDict(said, **keep) == MessageToDict(theirs, **keep)
    assert said.config.input[0].data_type == types.values_by_name["TYPE_INT64"].number


def test_both_ports_count_together(server: Server, client: Any) -> None:
    def counted() -> float:
        text = server.get("/metrics", port=server.admin_port).body.decode()
        line = next(x for x in text.splitlines() if x.startswith("salver_requests_total{") and 'status="200"' in x)
        return float(line.rpartition(" ")[2])

    before = counted()
    client.infer("oracle", inputs_of([1]))
    server.post("/models/oracle/predict", {"key": 1, "act": ""})
    assert counted() == before + 2


class Load:
    """One client that asks again and again, and keeps what it was told."""

    def __init__(self, server: Server) -> None:
        self.answered = 0
        self.problems: list[Any] = []
        self._stop = threading.Event()
        self._place = place(server)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        self.wait(50)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self, more: int) -> None:
        target, ends = self.answered + more, time.monotonic() + PATIENCE
        while self.answered < target:
            assert time.monotonic() < ends, self.problems[-3:]
            time.sleep(0.01)

    def _run(self) -> None:
        options = [("grpc.max_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 50),
                   ("grpc.initial_reconnect_backoff_ms", 50)]  # fmt: skip
        with grpc.insecure_channel(self._place, options=options) as channel:
            infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            key = 0
            while not self._stop.is_set():
                key += 1
                calls = [infer.future(typed([key + n]), timeout=PATIENCE) for n in range(8)]
                for n, call in enumerate(calls):
                    try:
                        response = call.result()
                    except grpc.RpcError as problem:
                        self.problems.append(problem.code())
                    else:
                        assert list(response.outputs[0].contents.int64_contents) == [answer(1, key + n)]
                        self.answered += 1


@pytest.fixture
def own(start: Callable[..., Server]) -> Server:
    server = start("--grpc-port", str(free_port()), "--drain-delay", "0")
    wait_serving(server)
    return server


def test_a_killed_worker_costs_no_call(own: Server) -> None:
    with Load(own) as load:
        for _ in range(2):
            os.kill(own.workers()[0], signal.SIGKILL)
            load.wait(100)
    assert load.problems == []


def test_a_killed_gateway_comes_back_and_its_calls_may_be_repeated(own: Server) -> None:
    with Load(own) as load:
        [before] = own.gateways()
        os.kill(before, signal.SIGKILL)
        load.wait(200)
        [after] = own.gateways()
    assert after != before
    assert set(load.problems) <= {grpc.StatusCode.UNAVAILABLE}


def test_a_client_that_leaves_when_health_says_so_loses_no_call_to_a_drain(start: Callable[..., Server]) -> None:
    server = start("--grpc-port", str(free_port()), "--drain-delay", "3")
    wait_serving(server)
    assert server.process is not None
    with grpc.insecure_channel(place(server)) as channel:
        slow = typed([1])
        slow.inputs[1].contents.bytes_contents[0] = b"sleep"
        said = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(said).status == health_pb2.HealthCheckResponse.SERVING
        with Load(server) as load:
            server.process.send_signal(signal.SIGTERM)
            assert next(said).status == health_pb2.HealthCheckResponse.NOT_SERVING
            call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(slow)
        assert list(call.result().outputs[0].contents.int64_contents) == [answer(1, 1)]
        assert load.problems == []
        said.cancel()
    assert server.process.wait(PATIENCE) == 0


def test_a_port_in_use_is_said_at_the_start(server: Server, published: Path, tmp_path: Path) -> None:
    other = Server(published, "--grpc-port", place(server).rpartition(":")[2], log=tmp_path / "log")
    other.start()
    assert other.process is not None
    assert other.process.wait(PATIENCE) == 2
    assert "the gRPC port" in other.log.read_text()
