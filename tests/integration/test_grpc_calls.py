"""gRPC beyond small answers: large tensors, many calls at once, compression, answers in pieces, keys and TLS."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

import salver
from salver import Signature, Tensor
from tests.integration.oracle import answer
from tests.integration.server import Server
from tests.integration.telling import Teller
from tests.integration.tensor_models import Half
from tests.integration.test_access import key
from tests.integration.test_grpc import PATIENCE, inputs_of, place, typed, wait_serving
from tests.integration.test_tls import TlsServer, write
from tests.integration.test_tls import client as trusting
from tests.integration.watched import comes
from tests.ports import free_port

WIDTH = 3 << 20
"""Numbers of 4 bytes: 12 MiB a row."""
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@pytest.fixture(scope="module")
def diary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the generators write how many pieces they made once they are over."""
    path = tmp_path_factory.mktemp("grpc-diary") / "diary"
    path.touch()
    return path


@pytest.fixture(scope="module")
def server(diary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("grpc-calls")
    registry = str(folder / "registry")
    (folder / "files").mkdir()
    (folder / "files" / "diary").write_text(str(diary))
    salver.release("teller", Teller, examples=[{"steps": "3"}], files=folder / "files", registry=registry)
    wide = Signature(inputs=(Tensor("x", "float32", (-1, -1)),), outputs=(Tensor("y", "float32", (-1, -1)),))
    salver.release("wide", Half, examples={"x": np.zeros((1, 4), np.float32)}, signature=wide, registry=registry)
    with Server(Path(registry), "--workers", "1", "--grpc-port", str(free_port()), log=folder / "log") as running:
        wait_serving(running)
        yield running


def test_tensors_of_12_mib_go_both_ways_while_others_are_answered(server: Server) -> None:
    values = np.random.default_rng(0).random((1, WIDTH), np.float32)
    tensor = triton.InferInput("x", [1, WIDTH], "FP32")
    tensor.set_data_from_numpy(values)
    with triton.InferenceServerClient(place(server)) as client:
        done: queue.Queue[tuple[Any, Any]] = queue.Queue()
        for _ in range(4):
            client.async_infer("wide", [tensor], lambda result, error: done.put((result, error)))
        assert client.is_server_live()
        for _ in range(4):
            result, problem = done.get(timeout=PATIENCE)
            assert problem is None
            np.testing.assert_array_equal(result.as_numpy("y"), values)


def told(number: str) -> Any:
    steps = triton.InferInput("steps", [1], "BYTES")
    steps.set_data_from_numpy(np.array([number.encode()], np.object_))
    return [steps]


def test_a_model_that_yields_answers_a_stream_in_pieces_and_a_call_whole(server: Server) -> None:
    said: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(place(server)) as client:
        client.start_stream(lambda result, error: said.put((result, error)))
        client.async_stream_infer("teller", told("30"), request_id="a")
        client.async_stream_infer("teller", told("2"), request_id="b")
        client.async_stream_infer("teller", told("3 raise"), request_id="c")
        pieces = [said.get(timeout=PATIENCE) for _ in range(34)]
        client.stop_stream()
        texts = [result.as_numpy("text")[0].decode() for result, problem in pieces if problem is None]
        assert texts == [f"{step} " for step in [*range(30), 0, 1, 0]]
        assert str(pieces[-1][1]).startswith("the model raised ValueError for this row")
        whole = client.infer("teller", told("3")).as_numpy("text")
    assert whole.tolist() == [b"0 1 2 "]


def finals(client: Any, name: str, inputs: list[Any], count: int, **more: Any) -> list[tuple[bool, bool, str]]:
    """Of each answer on a stream: whether it has outputs, whether it says that it is the last, and its id."""
    said: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: said.put((result, error)))
    client.async_stream_infer(name, inputs, **more)
    found = []
    for _ in range(count):
        result, problem = said.get(timeout=PATIENCE)
        assert problem is None
        response = result.get_response()
        found.append((bool(response.outputs), response.parameters["triton_final_response"].bool_param, response.id))
    client.stop_stream()
    assert said.empty()
    return found


def test_each_answer_of_a_stream_says_whether_more_follows(server: Server) -> None:
    with triton.InferenceServerClient(place(server)) as client:
        more = {"request_id": "ä7", "enable_empty_final_response": True}
        assert finals(client, "teller", told("2"), 3, **more) == [
            (True, False, "ä7"),
            (True, False, "ä7"),
            (False, True, "ä7"),
        ]
        assert finals(client, "teller", told("2"), 2, request_id="b") == [(True, False, "b")] * 2
        small = triton.InferInput("x", [1, 4], "FP32")
        small.set_data_from_numpy(np.ones((1, 4), np.float32))
        for wished in (True, False):
            answers = finals(client, "wide", [small], 1, enable_empty_final_response=wished)
            assert answers == [(True, True, "")]


def test_an_asyncio_client_may_read_a_stream_up_to_its_last_answer(server: Server) -> None:
    async def ask() -> list[str]:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": "teller", "inputs": told("3"), "enable_empty_final_response": True}

        texts = []
        async with triton_aio.InferenceServerClient(place(server)) as client:
            async for result, problem in client.stream_infer(requests()):
                assert problem is None
                if result.get_response().parameters["triton_final_response"].bool_param:
                    break
                texts.append(result.as_numpy("text")[0].decode())
        return texts

    assert asyncio.run(ask()) == ["0 ", "1 ", "2 "]


@pytest.mark.parametrize("method", ["ModelStreamInfer", "ModelInfer"])
def test_a_client_that_leaves_stops_the_generator(server: Server, diary: Path, method: str) -> None:
    steps = f"{len(method)}000 slow"
    request = service_pb2.ModelInferRequest(model_name="teller")
    request.inputs.add(name="steps", datatype="BYTES", shape=[1]).contents.bytes_contents.append(steps.encode())
    with grpc.insecure_channel(place(server)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        if method == "ModelStreamInfer":
            call = stub.ModelStreamInfer(iter([request]))
            assert next(call).infer_response.outputs
        else:
            call = stub.ModelInfer.future(request)
            comes(lambda: f"begun {steps}" in diary.with_suffix(".begun").read_text().splitlines())
        assert steps not in diary.read_text()  # the generator goes on
        call.cancel()
        [line] = comes(lambda: [line for line in diary.read_text().splitlines() if line.startswith(steps)])
    assert int(line.rpartition(": ")[2]) < int(steps.split()[0])


def test_a_stream_whose_connection_breaks_stops_its_generator(server: Server, diary: Path) -> None:
    steps = "3000 slow"
    with triton.InferenceServerClient(place(server)) as client:
        said: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: said.put((result, error)))
        client.async_stream_infer("teller", told(steps))
        assert said.get(timeout=PATIENCE)[1] is None
        assert steps not in diary.read_text()
        client.stop_stream(cancel_requests=True)
    [line] = comes(lambda: [line for line in diary.read_text().splitlines() if line.startswith(steps)])
    assert int(line.rpartition(": ")[2]) < 3000


@pytest.fixture(scope="module")
def oracle(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("grpc-oracle") / "log"
    with Server(published, "--grpc-port", str(free_port()), log=log) as running:
        wait_serving(running)
        yield running


def test_more_calls_than_streams_wait_for_their_turn(oracle: Server) -> None:
    with grpc.insecure_channel(place(oracle)) as channel:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        calls = [infer.future(typed([key]), timeout=PATIENCE) for key in range(500)]
        for number, call in enumerate(calls):
            assert list(call.result().outputs[0].contents.int64_contents) == [answer(1, number)]


def test_compressed_messages_are_read_and_bombs_are_not(oracle: Server) -> None:
    with grpc.insecure_channel(place(oracle), options=UNLIMITED) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        keys = list(range(1000))
        response = stub.ModelInfer(typed(keys), compression=grpc.Compression.Gzip)
        assert list(response.outputs[0].contents.int64_contents) == [answer(1, key) for key in keys]
        bomb = service_pb2.ModelInferRequest(model_name="oracle", raw_input_contents=[bytes(60 << 20)])
        for body, compression, code in (
            (bomb, grpc.Compression.Gzip, grpc.StatusCode.RESOURCE_EXHAUSTED),
            (typed(keys), grpc.Compression.Deflate, grpc.StatusCode.UNIMPLEMENTED),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(body, compression=compression)
            assert caught.value.code() == code
        assert stub.ServerLive(service_pb2.ServerLiveRequest()).live


def test_a_call_whose_time_is_over_ends_and_so_does_one_that_is_cancelled(oracle: Server) -> None:
    slow = typed([1])
    slow.inputs[1].contents.bytes_contents[0] = b"sleep"
    with grpc.insecure_channel(place(oracle)) as channel:
        infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        with pytest.raises(grpc.RpcError) as caught:
            infer(slow, metadata=(("x-request-timeout-ms", "50"),))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "before the deadline" in caught.value.details()
        slow.parameters["timeout"].int64_param = 50_000  # microseconds
        with pytest.raises(grpc.RpcError) as caught:
            infer(slow)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        slow.parameters["timeout"].int64_param = 50_000_000
        with pytest.raises(grpc.RpcError) as caught:  # a parameter makes no deadline later
            infer(slow, metadata=(("x-request-timeout-ms", "50"),))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        slow.parameters["timeout"].int64_param = 50_000
        [late] = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([slow]))
        assert "before the deadline" in late.error_message
        assert not late.HasField("infer_response")
        slow.id = "seventh"
        wrong = typed([2])
        wrong.id, wrong.model_name = "eighth", "nobody"
        failed = list(service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([slow, wrong])))
        assert [each.infer_response.id for each in failed] == ["seventh", "eighth"]
        assert "before the deadline" in failed[0].error_message
        assert "nobody" in failed[1].error_message
        call = infer.future(slow)
        call.cancel()
        assert list(infer(typed([3])).outputs[0].contents.int64_contents) == [answer(1, 3)]


def test_every_call_needs_the_scope_of_what_it_asks(published: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    tokens = {scope: key(keys, "add", scope, "--scope", scope) for scope in ("predict", "metadata")}
    tokens["other"] = key(keys, "add", "elsewhere", "--model", "other", "--scope", "predict", "--scope", "metadata")
    options = ("--keys", str(keys), "--grpc-port", str(free_port()), "--drain-delay", "0")
    with Server(published, *options, log=tmp_path / "log") as server:
        wait_serving(server)
        with grpc.insecure_channel(place(server)) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            health = health_pb2_grpc.HealthStub(channel)

            def code(method: Any, request: Any, *metadata: tuple[str, str]) -> str:
                try:
                    method(request, metadata=metadata)
                except grpc.RpcError as problem:
                    return str(problem.code().name)
                return "OK"

            bearer = {name: ("authorization", f"Bearer {token}") for name, token in tokens.items()}
            metadata = service_pb2.ModelMetadataRequest(name="oracle")
            assert code(stub.ModelInfer, typed([1])) == "UNAUTHENTICATED"
            assert code(stub.ModelInfer, typed([1]), ("authorization", "Bearer slv_no_key")) == "UNAUTHENTICATED"
            assert code(stub.ModelInfer, typed([1]), bearer["predict"]) == "OK"
            assert code(stub.ModelInfer, typed([1]), ("x-api-key", tokens["predict"])) == "OK"
            assert code(stub.ModelInfer, typed([1]), bearer["metadata"]) == "PERMISSION_DENIED"
            assert code(stub.ModelInfer, typed([1]), bearer["other"]) == "NOT_FOUND"
            assert code(stub.ModelMetadata, metadata, bearer["predict"]) == "PERMISSION_DENIED"
            assert code(stub.ModelMetadata, metadata, bearer["metadata"]) == "OK"
            assert code(stub.ModelMetadata, metadata, bearer["other"]) == "NOT_FOUND"
            assert code(stub.ServerReady, service_pb2.ServerReadyRequest()) == "OK"
            index = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), metadata=(bearer["other"],))
            assert not index.models
            assert code(health.Check, health_pb2.HealthCheckRequest()) == "OK"
            assert code(health.Check, health_pb2.HealthCheckRequest(service="oracle")) == "UNAUTHENTICATED"
            assert code(health.Check, health_pb2.HealthCheckRequest(service="oracle"), bearer["metadata"]) == "OK"


def test_the_port_has_the_certificate_of_the_other_one(published: Path, tmp_path: Path) -> None:
    signer = trustme.CA()
    write(tmp_path, signer.issue_cert("localhost"), signer)
    files = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    server = TlsServer(published, *files, "--grpc-port", str(free_port()), "--drain-delay", "0", log=tmp_path / "log")
    server.client = trusting(signer)
    with server:
        trusted = grpc.ssl_channel_credentials(signer.cert_pem.bytes())
        options = [("grpc.ssl_target_name_override", "localhost")]
        with grpc.secure_channel(place(server), trusted, options) as channel:
            infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            assert list(infer(typed([5])).outputs[0].contents.int64_contents) == [answer(1, 5)]
        stranger = grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())
        with grpc.secure_channel(place(server), stranger, options) as channel:
            live = service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive
            with pytest.raises(grpc.RpcError) as caught:
                live(service_pb2.ServerLiveRequest())
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_drain_loses_no_call_that_it_does_not_say_may_be_repeated(start: Callable[..., Server]) -> None:
    server = start("--grpc-port", str(free_port()), "--drain-delay", "0.2")
    wait_serving(server)
    assert server.process is not None
    codes: set[str] = set()
    answered = threading.Event()

    def ask() -> None:
        with triton.InferenceServerClient(place(server)) as client:
            for number in range(100_000):
                try:
                    result = client.infer("oracle", inputs_of([number]))
                except triton.InferenceServerException as problem:
                    codes.add(str(problem.status()))
                    return
                assert result.as_numpy(result.get_response().outputs[0].name).tolist() == [answer(1, number)]
                answered.set()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert answered.wait(PATIENCE)
    server.process.terminate()
    for thread in threads:
        thread.join(PATIENCE)
    assert codes == {"StatusCode.UNAVAILABLE"}
    assert server.process.wait(PATIENCE) == 0
