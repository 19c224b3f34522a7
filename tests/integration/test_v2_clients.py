"""Triton's own HTTP client, as it comes from the package index, blocking and asyncio, against a served release."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from backports import zstd
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import salver
from salver import Column, Signature, Tensor
from tests.integration.server import Server
from tests.integration.tensor_models import Greeting, Half, Pixel

IMAGE = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
HALVES = np.array([[0.5, 65504.0]], np.float16)
NAMES = np.array(["Ana", "Jürgen", ""], object)
AGES = np.array([31, 7, 2**40], np.int64)


MODELS: dict[str, tuple[Any, Signature, Any]] = {
    "pixel": (
        Pixel,
        Signature(
            inputs=(Tensor("x", "float32", (-1, 3, 8, 8)),),
            outputs=(Tensor("first", "float32", (-1,)), Tensor("column", "float32", (-1, 8))),
        ),
        {"x": IMAGE},
    ),
    "half": (
        Half,
        Signature(inputs=(Tensor("x", "float16", (-1, 2)),), outputs=(Tensor("y", "float16", (-1, 2)),)),
        {"x": HALVES},
    ),
    "greeting": (
        Greeting,
        Signature(
            inputs=(Column("name", "str"), Column("age", "int")),
            outputs=(Column("text", "str", nullable=True), Column("adult", "bool"), Column("age", "int")),
        ),
        [{"name": "Ana", "age": 31}, {"name": "Bo", "age": 7}],
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("v2")
    for name, (model, signature, examples) in MODELS.items():
        salver.release(name, model, examples=examples, signature=signature, registry=str(folder / "registry"))
    with Server(folder / "registry", "--workers", "1", log=folder / "log") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as connected:
        yield connected


def given(name: str, values: Any, datatype: str, *, binary: bool, module: Any = triton) -> Any:
    """One input with its values."""
    tensor = module.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def people(*, binary: bool) -> list[Any]:
    return [given("name", NAMES, "BYTES", binary=binary), given("age", AGES, "INT64", binary=binary)]


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
def test_a_tensor_is_answered_alike_in_bytes_and_in_json(client: Any, binary_in: bool, binary_out: bool) -> None:
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("column", "first")]
    found = client.infer("pixel", [given("x", IMAGE, "FP32", binary=binary_in)], request_id="7", outputs=wanted)
    told = found.get_response()
    assert (told["model_name"], told["model_version"], told["id"]) == ("pixel", "1", "7")
    assert [output["name"] for output in told["outputs"]] == ["column", "first"]
    assert found.as_numpy("first").dtype == np.float32
    assert np.array_equal(found.as_numpy("first"), IMAGE[:, 0, 0, 0])
    assert np.array_equal(found.as_numpy("column"), IMAGE[:, 0, :, 0])


def test_who_asks_for_no_output_gets_all_in_bytes(client: Any) -> None:
    found = client.infer("pixel", [given("x", IMAGE, "FP32", binary=True)])
    assert all("data" not in output for output in found.get_response()["outputs"])
    assert np.array_equal(found.as_numpy("first"), IMAGE[:, 0, 0, 0])


def test_halves_go_through_as_bytes_and_are_told_as_what_they_are(client: Any) -> None:
    assert client.get_model_metadata("half")["inputs"] == [{"name": "x", "datatype": "FP16", "shape": [-1, 2]}]
    found = client.infer("half", [given("x", HALVES, "FP16", binary=True)])
    assert found.as_numpy("y").tobytes() == HALVES.tobytes()
    asked = [triton.InferRequestedOutput("y", binary_data=False)]
    as_json = client.infer("half", [given("x", HALVES.astype(np.float32), "FP32", binary=False)], outputs=asked)
    assert as_json.get_output("y")["datatype"] == "FP32"
    assert np.array_equal(as_json.as_numpy("y"), HALVES)


@pytest.mark.parametrize("binary", [True, False])
def test_text_and_numbers_are_answered_and_null_is_no_text(client: Any, binary: bool) -> None:
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("text", "adult", "age")]
    found = client.infer("greeting", people(binary=binary), outputs=wanted)
    assert [text and str(text) for text in found.as_numpy("text").tolist()] == ["Ana 31", "Jürgen 7", None]
    assert found.as_numpy("adult").tolist() == [True, False, True]
    assert found.as_numpy("age").tolist() == AGES.tolist()


def test_one_input_may_be_bytes_and_another_json(client: Any) -> None:
    inputs = [given("name", NAMES[:2], "BYTES", binary=True), given("age", AGES[:2], "INT64", binary=False)]
    found = client.infer("greeting", inputs)
    assert [text.decode() for text in found.as_numpy("text")] == ["Ana 31", "Jürgen 7"]


def test_the_server_describes_itself_and_its_models(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("pixel")
    assert client.is_model_ready("pixel", "1")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    told = client.get_model_metadata("greeting", "1")
    assert told["inputs"][0] == {"name": "name", "datatype": "BYTES", "shape": [-1]}
    config = client.get_model_config("pixel")
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [3, 8, 8]}]
    assert config["max_batch_size"] > 0


def test_the_repository_is_listed_and_left_as_it_is(client: Any, server: Server) -> None:
    listed = [(entry["name"], entry["version"], entry["state"]) for entry in client.get_model_repository_index()]
    assert listed == [("greeting", "1", "READY"), ("half", "1", "READY"), ("pixel", "1", "READY")]
    assert server.post("/v2/repository/index", {"ready": True}).json == client.get_model_repository_index()
    assert server.post("/v2/repository/index", b"{").status == 400
    assert server.get("/v2/models").json == {"models": ["greeting", "half", "pixel"]}
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="salver promote") as refused:
            change("pixel")
        assert refused.value.status() == "501"


def test_a_raw_body_is_the_only_input(server: Server) -> None:
    headers = {"inference-header-content-length": "0", "content-type": "application/octet-stream"}
    answer = server.ask("POST", "/v2/models/pixel/infer", IMAGE[:1].tobytes(), headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    assert answer.body[length : length + 4] == IMAGE[0, 0, 0, 0].tobytes()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("model", "values", "words"),
    [
        ("nobody", np.zeros((1, 3, 8, 8), np.float32), "nobody"),
        ("pixel", np.zeros((1, 3, 8, 7), np.float32), "must be \\[n, 3, 8, 8\\]"),
        ("pixel", np.zeros((1, 3, 8, 8), np.bool_), "'x' is float32"),
    ],
)
def test_what_can_not_be_answered_says_why(client: Any, binary: bool, model: str, values: Any, words: str) -> None:
    with pytest.raises(InferenceServerException, match=words) as refused:
        client.infer(model, [given("x", values, np_to_triton_dtype(values.dtype), binary=binary)])
    assert refused.value.status() == ("404" if model == "nobody" else "400")


def test_an_unknown_output_is_named(client: Any) -> None:
    wanted = [triton.InferRequestedOutput("nothing")]
    with pytest.raises(InferenceServerException, match="no output is named 'nothing'"):
        client.infer("pixel", [given("x", IMAGE, "FP32", binary=True)], outputs=wanted)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_the_same_request(client: Any, algorithm: str, binary: bool) -> None:
    inputs = [given("x", IMAGE, "FP32", binary=binary)]
    found = client.infer("pixel", inputs, request_compression_algorithm=algorithm)
    assert np.array_equal(found.as_numpy("first"), IMAGE[:, 0, 0, 0])
    asked = client.infer("pixel", inputs, response_compression_algorithm=algorithm)  # which the server need not do
    assert np.array_equal(asked.as_numpy("column"), IMAGE[:, 0, :, 0])


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress), ("deflate", zlib.compress)]
)
def test_the_length_of_the_json_is_that_of_the_body_before_compression(
    server: Server, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    data = IMAGE[:1].tobytes()
    tensor = {"name": "x", "shape": [1, 3, 8, 8], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    plain = server.ask("POST", "/v2/models/pixel/infer", head + data, headers)
    assert plain.status == 200
    packed = server.ask(
        "POST", "/v2/models/pixel/infer", compress(head + data), headers | {"content-encoding": encoding}
    )
    assert (packed.status, packed.body) == (200, plain.body)


def test_many_requests_at_once_get_their_own_rows(server: Server) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=8) as many:
        images = [IMAGE[:1] + number for number in range(40)]
        waiting = [many.async_infer("pixel", [given("x", image, "FP32", binary=True)]) for image in images]
        for image, answer in zip(images, waiting, strict=True):
            assert answer.get_result().as_numpy("first").tolist() == [image[0, 0, 0, 0]]


def test_the_asyncio_client_does_all_of_it_too(server: Server) -> None:
    async def ask() -> None:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("half"))["name"] == "half"
            assert len(await client.get_model_repository_index()) == 3
            for binary in (True, False):
                wanted = [triton_aio.InferRequestedOutput("first", binary_data=binary)]
                image = given("x", IMAGE, "FP32", binary=binary, module=triton_aio)
                answers = await asyncio.gather(*[client.infer("pixel", [image], outputs=wanted) for _ in range(8)])
                for found in answers:
                    assert np.array_equal(found.as_numpy("first"), IMAGE[:, 0, 0, 0])
            with pytest.raises(InferenceServerException, match="nobody"):
                await client.infer("nobody", [image])

    asyncio.run(ask())
