"""Photos as bytes through a served release, in every protocol; the answers are those of the model called directly."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2, service_pb2_grpc

import salver
from salver.errors import UserError
from tests.integration.photos import Photos
from tests.integration.server import Server
from tests.ports import free_port

FOLDER = Path(sklearn.datasets.__file__).parent / "images"
FLOWER, CHINA = ((FOLDER / name).read_bytes() for name in ("flower.jpg", "china.jpg"))
LARGE = np.random.default_rng(0).bytes(5 << 20)
PHOTOS = [FLOWER, b"", b"zeros\0\0", LARGE, CHINA]
NATIVE = "/models/photos/predict"
V1 = "/v1/models/photos:predict"
V2 = "/v2/models/photos/infer"


def expected(photos: list[bytes | None]) -> list[dict[str, Any]]:
    """The model's own answers."""
    answers = Photos().predict({"photo": np.array(photos, object)})
    return [dict(zip(answers, row, strict=True)) for row in zip(*answers.values(), strict=True)]


WANTED = expected(list(PHOTOS))


def text_of(photo: bytes | None) -> str | None:
    return None if photo is None else base64.b64encode(photo).decode()


def in_json(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"head": text_of(row["head"])} for row in rows]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("bytes")
    examples = [{"photo": photo} for photo in (FLOWER, CHINA, b"zeros\0\0", b"", None)]
    salver.release("photos", Photos(), examples=examples, registry=str(folder / "registry"))
    options = ("--workers", "1", "--grpc-port", str(free_port()))
    with Server(folder / "registry", *options, log=folder / "log") as running:
        yield running


def grpc_place(server: Server) -> str:
    return f"127.0.0.1:{server.options[-1]}"


def test_the_signature_says_bytes(server: Server) -> None:
    fields = server.get("/models/photos").json["signature"]
    assert [field["type"] for field in fields["inputs"]] == ["bytes"]
    assert [field["type"] for field in fields["outputs"]] == ["int", "int", "int", "bytes"]
    told = server.get("/v2/models/photos").json
    assert {told["inputs"][0]["datatype"], told["outputs"][3]["datatype"]} == {"BYTES"}


def test_photos_come_as_base64_in_json(server: Server) -> None:
    body = [{"photo": text_of(photo)} for photo in (*PHOTOS, None)]
    assert server.post(NATIVE, body).json == in_json([*WANTED, *expected([None])])
    bad = server.post(NATIVE, [{"photo": "AA=="}, {"photo": "no base64"}]).json
    assert bad[1]["error"]["detail"] == "$[1].photo: expected bytes in base64, got other text"
    assert server.post(NATIVE, {"photo": "?"}).status == 422


def test_photos_come_as_b64_objects_in_v1(server: Server) -> None:
    objects = [{"b64": text_of(photo)} for photo in PHOTOS]
    wanted = [row | {"head": {"b64": text_of(row["head"])}} for row in WANTED]
    for instances in (objects, [{"photo": each} for each in objects], [[each] for each in objects]):
        assert server.post(V1, {"instances": instances}).json == {"predictions": wanted}
    outputs = server.post(V1, {"inputs": {"photo": objects}}).json["outputs"]
    assert outputs == {name: [row[name] for row in wanted] for name in WANTED[0]}
    assert server.post(V1, {"instances": [{"b64": "?"}]}).status == 400


def test_photos_come_as_base64_in_v2_json(server: Server) -> None:
    tensor = {"name": "photo", "datatype": "BYTES", "shape": [len(PHOTOS)], "data": list(map(text_of, PHOTOS))}
    told = server.post(V2, {"inputs": [{**tensor, "parameters": {"content_type": "base64"}}]}).json["outputs"]
    assert told[3]["parameters"] == {"content_type": "base64"}
    for output in told:
        assert output["data"] == [row[output["name"]] for row in in_json(WANTED)]


def test_text_in_v2_json_is_its_bytes(server: Server) -> None:
    tensor = {"name": "photo", "datatype": "BYTES", "shape": [2], "data": ["é\0", None]}
    told = server.post(V2, {"inputs": [tensor]}).json["outputs"]
    wanted = expected(["é\0".encode(), None])
    assert told[3]["data"] == ["é\0", None]
    assert [output["data"] for output in told[:3]] == [
        [row[name] for row in wanted] for name in ("length", "checksum", "width")
    ]


@pytest.mark.parametrize("module", [triton_http, triton_grpc], ids=["http", "grpc"])
def test_tritons_clients_send_and_get_photos_as_they_are(server: Server, module: Any) -> None:
    place = f"127.0.0.1:{server.port}" if module is triton_http else grpc_place(server)
    photos = [FLOWER, LARGE, CHINA, b""]
    with module.InferenceServerClient(place) as client:
        tensor = module.InferInput("photo", [len(photos)], "BYTES")
        tensor.set_data_from_numpy(np.array(photos, object))
        found = client.infer("photos", [tensor])
    wanted = expected(list(photos))
    assert found.as_numpy("checksum").tolist() == [row["checksum"] for row in wanted]
    assert found.as_numpy("head").tolist() == [row["head"] for row in wanted]


def test_typed_contents_of_grpc_carry_photos(server: Server) -> None:
    request = service_pb2.ModelInferRequest(model_name="photos")
    tensor = request.inputs.add(name="photo", datatype="BYTES", shape=[3])
    tensor.contents.bytes_contents.extend([FLOWER, b"", CHINA])
    tensor.parameters["nulls"].string_param = "1"
    with triton_grpc.grpc.insecure_channel(grpc_place(server)) as channel:
        found = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    outputs = {output.name: output for output in found.outputs}
    assert outputs["head"].parameters["nulls"].string_param == "1"
    assert list(outputs["head"].contents.bytes_contents) == [FLOWER[:12], b"", CHINA[:12]]
    assert list(outputs["length"].contents.int64_contents) == [len(FLOWER), 0, len(CHINA)]


def test_a_photo_may_be_the_whole_body(server: Server) -> None:
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": "0"}
    assert FLOWER[:12] in server.ask("POST", V2, FLOWER, headers).body


def test_the_client_takes_and_gives_bytes(server: Server) -> None:
    with salver.Client(f"http://127.0.0.1:{server.port}") as client:
        model = client.model("photos")
        assert list(model.predict([{"photo": photo} for photo in PHOTOS])) == WANTED
        assert model.predict({"photo": FLOWER})["head"] == FLOWER[:12]
        assert list(model.predict(pd.DataFrame({"photo": [FLOWER, None]}))) == expected([FLOWER, None])
        with pytest.raises(UserError, match="nothing was sent") as caught:
            model.predict({"photo": "no base64"})
        assert "$.photo: expected bytes in base64" in caught.value.details[0]


@pytest.mark.parametrize(
    ("method", "content_type"), [("PUT", ""), ("POST", "image/jpeg"), ("PUT", "application/octet-stream")]
)
@pytest.mark.parametrize("place", [0, 3, 4])
def test_torchserve_takes_a_photo_as_it_is(server: Server, method: str, content_type: str, place: int) -> None:
    headers = {"content-type": content_type} if content_type else {}
    got = server.ask(method, "/predictions/photos", PHOTOS[place], headers)
    assert (got.status, got.json) == (200, in_json(WANTED)[place])


def test_torchserve_still_reads_json_where_the_only_input_is_bytes(server: Server) -> None:
    got = server.ask("PUT", "/predictions/photos", b'{"photo": "%b"}' % base64.b64encode(FLOWER), {})
    assert (got.status, got.json) == (200, in_json(WANTED)[0])
    begins_like_json = server.ask("POST", "/predictions/photos", b"{", {"content-type": "application/octet-stream"})
    assert (begins_like_json.status, begins_like_json.json["length"]) == (200, 1)
