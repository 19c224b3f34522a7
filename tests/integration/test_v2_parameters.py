"""Parameters of V2 that change what is meant, from Triton's own clients, alike over HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.utils import InferenceServerException

import salver
from salver import Column, Signature
from tests.integration.server import Server
from tests.integration.tensor_models import Known
from tests.integration.test_grpc import place, wait_serving
from tests.ports import free_port

SIGNATURE = Signature(
    inputs=(Column("name", "str", nullable=True), Column("age", "int", optional=True)),
    outputs=(Column("name", "str", nullable=True), Column("known", "bool")),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("parameters")
    examples = [{"name": "Ana", "age": 31}, {"name": None, "age": None}]
    salver.release("known", Known, examples=examples, signature=SIGNATURE, registry=str(folder / "registry"))
    port = str(free_port())
    with Server(folder / "registry", "--workers", "1", "--grpc-port", port, log=folder / "log") as running:
        wait_serving(running)
        yield running


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    if request.param == "http":
        with triton_http.InferenceServerClient(f"127.0.0.1:{server.port}") as over_http:
            yield over_http
    else:
        with triton_grpc.InferenceServerClient(place(server)) as over_grpc:
            yield over_grpc


def given(client: Any, name: str, values: list[Any], **said: str) -> Any:
    """One input of some rows with these parameters, for this client."""
    array = np.array(values, np.int64 if isinstance(values[0], int) else np.object_)
    over_grpc = isinstance(client, triton_grpc.InferenceServerClient)
    kind = triton_grpc.InferInput if over_grpc else triton_http.InferInput
    tensor = kind(name, [len(values)], "INT64" if array.dtype == np.int64 else "BYTES")
    tensor.set_data_from_numpy(array)
    for key, value in said.items():
        if over_grpc:
            tensor._get_tensor().parameters[key].string_param = value
        else:
            tensor._parameters[key] = value
    return tensor


def names_of(result: Any) -> list[Any]:
    """The names that came back, None for null over HTTP and b'' over gRPC, which states nulls beside the data."""
    return [name.encode() if isinstance(name, str) else name for name in result.as_numpy("name").tolist()]


def test_nulls_that_bytes_can_not_hold_are_stated_beside_them(client: Any) -> None:
    inputs = [given(client, "name", [b"Ana", b"filler"], nulls="1"), given(client, "age", [-9, 31], nulls="0")]
    result = client.infer("known", inputs)
    assert result.as_numpy("known").tolist() == [False, True]
    assert names_of(result)[0] == b"Ana"
    assert names_of(result)[1] in (None, b"")


def test_text_that_came_as_base64_reaches_the_model_as_text(client: Any) -> None:
    ages = given(client, "age", [1, 2])
    result = client.infer("known", [given(client, "name", [b"QW5h", b"SsO8cmdlbg=="], content_type="base64"), ages])
    assert names_of(result) == [b"Ana", "Jürgen".encode()]
    result = client.infer("known", [given(client, "name", [b"QW5h", b"str"], content_type="str"), ages])
    assert names_of(result) == [b"QW5h", b"str"]
    with pytest.raises(InferenceServerException, match="content_type is base64, and a value is not"):
        client.infer("known", [given(client, "name", [b"Ana!", b""], content_type="base64"), ages])


@pytest.mark.parametrize("sequence_id", [7, "seven"])
def test_a_part_of_a_sequence_is_refused(client: Any, sequence_id: Any) -> None:
    inputs = [given(client, "name", [b"Ana"])]
    with pytest.raises(InferenceServerException, match="sequences are not served") as refused:
        client.infer("known", inputs, sequence_id=sequence_id, sequence_start=True)
    assert refused.value.status() in ("501", "StatusCode.UNIMPLEMENTED")
    assert names_of(client.infer("known", inputs, priority=1, timeout=60_000_000)) == [b"Ana"]
    assert names_of(client.infer("known", inputs, parameters={"mine": "x", "yours": 7})) == [b"Ana"]


def test_metadata_and_configuration_say_what_may_be_null_and_what_left_out(server: Server) -> None:
    with triton_http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        inputs = client.get_model_metadata("known")["inputs"]
        assert inputs[0] == {"name": "name", "datatype": "BYTES", "shape": [-1], "parameters": {"nullable": True}}
        assert inputs[1]["parameters"] == {"optional": True}
        assert [each.get("optional", False) for each in client.get_model_config("known")["input"]] == [False, True]
    with triton_grpc.InferenceServerClient(place(server)) as client:
        metadata = client.get_model_metadata("known")  # its messages have no such field yet: it is passed over
        assert [(each.name, each.datatype) for each in metadata.inputs] == [("name", "BYTES"), ("age", "INT64")]
        assert client.get_model_metadata("known", as_json=True)["inputs"][0]["name"] == "name"
        config = client.get_model_config("known").config
        assert [each.optional for each in config.input] == [False, True]


def test_the_parameters_of_metadata_over_grpc_are_those_that_reflection_describes(server: Server) -> None:
    with grpc.insecure_channel(place(server)) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        kind = GetMessageClass(pool.FindMessageTypeByName("inference.ModelMetadataResponse"))
        body = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")(b"\n\5known")
        told = kind.FromString(body)
    assert [dict(each.parameters).keys() for each in told.inputs] == [{"nullable"}, {"optional"}]
    assert told.inputs[0].parameters["nullable"].bool_param is True
