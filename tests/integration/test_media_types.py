"""Bodies and answers in every form, from CSV to RecordIO and Arrow, over real sockets: any of them in, any out."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import salver
from tests.integration.server import Answer, Server
from tests.unit.records import framed, labels, record

PREDICT = "/models/iris/predict"
ARROW = "application/vnd.apache.arrow.stream"
RECORDIO = "application/x-recordio-protobuf"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return load_iris(as_frame=True).data


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame) -> Any:
    return LogisticRegression(max_iter=500).fit(frame, load_iris().target)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame, model: Any) -> Iterator[Server]:
    """iris@1 has pyarrow in its environment, plain@1 has not."""
    folder = tmp_path_factory.mktemp("media")
    registry = folder / "registry"
    salver.release("iris", model, examples=frame.head(8), registry=str(registry), packages=("pyarrow",))
    salver.release("plain", model, examples=frame.head(8), registry=str(registry))
    with Server(registry, "--workers", "1", log=folder / "log") as running:
        yield running


def _npy(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    np.save(file, frame.to_numpy())
    return file.getvalue()


def _npz(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **{name: frame[name].to_numpy() for name in frame})
    return file.getvalue()


def _arrow(frame: pd.DataFrame) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


BODIES: dict[str, Any] = {
    "application/json": lambda frame: frame.to_json(orient="records").encode(),
    "text/csv": lambda frame: frame.to_csv(index=False).encode(),
    "application/jsonlines": lambda frame: frame.to_json(orient="records", lines=True).encode(),
    "application/x-npy": _npy,
    "application/x-npz": _npz,
    RECORDIO: lambda frame: framed(*(record(row, kind="float64_tensor") for row in frame.to_numpy())),
    ARROW: _arrow,
}
READ: dict[str, Any] = {
    RECORDIO: lambda body: [row["predicted_label"][1][0] for row in labels(body)],
    "application/json": lambda body: [row["prediction"] for row in json.loads(body)],
    "text/csv": lambda body: pd.read_csv(io.BytesIO(body))["prediction"].tolist(),
    "application/jsonlines": lambda body: [json.loads(line)["prediction"] for line in body.splitlines()],
    "application/x-npy": lambda body: np.load(io.BytesIO(body), allow_pickle=False).tolist(),
    "application/x-npz": lambda body: np.load(io.BytesIO(body), allow_pickle=False)["prediction"].tolist(),
    ARROW: lambda body: pa.ipc.open_stream(body).read_all()["prediction"].to_pylist(),
}


def _ask(server: Server, body: bytes, sent: str, wanted: str, path: str = PREDICT) -> Answer:
    return server.ask("POST", path, body, {"content-type": sent, "accept": wanted})


@pytest.mark.parametrize("wanted", READ)
@pytest.mark.parametrize("sent", BODIES)
def test_any_form_in_gives_any_form_out(
    served: Server, frame: pd.DataFrame, model: Any, sent: str, wanted: str
) -> None:
    got = _ask(served, BODIES[sent](frame), sent, wanted)
    assert got.status == 200, got.body
    assert got.headers["content-type"].partition(";")[0] == wanted
    assert READ[wanted](got.body) == model.predict(frame).tolist()


def test_a_bad_row_is_answered_in_its_place_where_there_is_room_and_refuses_the_request_elsewhere(
    served: Server, frame: pd.DataFrame
) -> None:
    lines = frame.head(3).to_csv(index=False).splitlines()
    lines[2] = "1,2,3,many"
    body = "\n".join(lines).encode()
    for wanted in ("application/json", "application/jsonlines"):
        got = _ask(served, body, "text/csv", wanted)
        assert (got.status, got.headers["x-salver-row-errors"]) == (200, "1")
        rows = json.loads(got.body) if wanted.endswith("json") else [json.loads(line) for line in got.body.splitlines()]
        assert rows[1]["error"]["detail"] == "row 2, column petal width (cm): expected float, got other text"
        assert "prediction" in rows[2]
    for wanted in ("text/csv", "application/x-npy", "application/x-npz", ARROW):
        got = _ask(served, body, "text/csv", wanted)
        assert (got.status, got.json["code"]) == (422, "invalid-row")


def test_a_release_without_pyarrow_says_so_and_goes_on(served: Server, frame: pd.DataFrame) -> None:
    got = _ask(served, _arrow(frame), ARROW, "*/*", "/models/plain/predict")
    assert (got.status, got.json["code"]) == (501, "not-implemented")
    assert "pyarrow" in got.json["hint"]
    assert _ask(served, _npy(frame), "application/x-npy", "*/*", "/models/plain/predict").status == 200


def test_what_is_not_supported_is_told_with_what_is(served: Server) -> None:
    got = _ask(served, b"x", "application/x-parquet", "*/*")
    assert got.status == 415
    assert "text/csv" in got.json["hint"]
    got = _ask(served, b"{}", "application/json", "text/html")
    assert got.status == 406
    assert "application/x-npy" in got.json["hint"]


def test_the_api_document_lists_every_form(served: Server) -> None:
    operation = served.get("/openapi.json").json["paths"]["/models/iris/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == set(BODIES)
    assert set(operation["responses"]["200"]["content"]) == set(READ)
