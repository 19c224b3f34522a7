"""`/invocations`, V1 and `/predictions` over real sockets, with a classifier of real data, as peers' clients ask."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import dump_svmlight_file, load_iris
from sklearn.linear_model import LogisticRegression

import salver
from tests.integration.server import Server
from tests.unit.records import framed, labels, record

JSON = {"content-type": "application/json"}
CSV = {"content-type": "text/csv"}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return load_iris(as_frame=True).data


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame) -> Any:
    return LogisticRegression(max_iter=500).fit(frame, load_iris().target)


@pytest.fixture(scope="module")
def irises(tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame, model: Any) -> Path:
    """A registry with one model, iris@1."""
    registry = tmp_path_factory.mktemp("irises") / "registry"
    salver.release("iris", model, examples=frame.head(8), registry=str(registry))
    return registry


@pytest.fixture(scope="module")
def served(irises: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(irises, "--workers", "1", log=tmp_path_factory.mktemp("served") / "log") as running:
        yield running


def test_mlflows_forms_all_mean_the_same_rows(served: Server, frame: pd.DataFrame, model: Any) -> None:
    rows = frame.iloc[::10]
    expected = model.predict(rows).tolist()
    bodies = [
        {"dataframe_split": json.loads(rows.to_json(orient="split"))},
        {"dataframe_split": json.loads(rows[rows.columns[::-1]].to_json(orient="split"))},
        {"dataframe_records": json.loads(rows.to_json(orient="records"))},
        {"instances": rows.to_numpy().tolist()},
        {"inputs": rows.to_numpy().tolist()},
        {"inputs": {name: rows[name].tolist() for name in rows}},
        rows.to_numpy().tolist(),
    ]
    for body in bodies:
        got = served.post("/invocations", body)
        assert (got.status, got.json) == (200, {"predictions": expected}), got.body
        assert got.headers["x-salver-release"] == "iris@1"


def test_csv_comes_with_a_header_as_mlflow_sends_it_or_without_as_sagemaker_does(
    served: Server, frame: pd.DataFrame, model: Any
) -> None:
    rows = frame.iloc[::10]
    expected = model.predict(rows).tolist()
    reverse, bare = rows[rows.columns[::-1]], rows.to_csv(header=False, index=False)
    for body in (rows.to_csv(index=False), reverse.to_csv(index=False), bare):
        got = served.ask("POST", "/invocations", body.encode(), CSV)
        assert (got.status, got.json) == (200, {"predictions": expected}), got.body
    got = served.ask("POST", "/invocations", bare.encode(), {**CSV, "accept": "text/csv"})
    assert got.headers["content-type"].startswith("text/csv")
    assert [int(line) for line in got.body.decode().split()] == expected  # one record a line, no header


def test_sagemakers_forms_hold_the_values_in_order(served: Server, frame: pd.DataFrame, model: Any) -> None:
    rows = frame.iloc[::10]
    values, expected = rows.to_numpy(), model.predict(rows).tolist()
    libsvm, npz = io.BytesIO(), io.BytesIO()
    dump_svmlight_file(values, np.zeros(len(rows)), libsvm)
    np.savez(npz, values)
    bodies = {
        "application/jsonlines": "\n".join(map(json.dumps, values.tolist())).encode(),
        "text/libsvm": libsvm.getvalue(),
        "text/x-libsvm": b"\n".join(line.partition(b" ")[2] for line in libsvm.getvalue().splitlines()),
        "application/x-npz": npz.getvalue(),
        "application/x-recordio-protobuf": framed(*(record(row, kind="float64_tensor") for row in values)),
    }
    for kind, body in bodies.items():
        got = served.ask("POST", "/invocations", body, {"content-type": kind})
        assert (got.status, got.json) == (200, {"predictions": expected}), (kind, got.body)
    assert served.ask("POST", "/invocations", b"x", {"content-type": "application/octet-stream"}).status == 415


def test_records_are_answered_by_records_that_protobuf_reads(served: Server, frame: pd.DataFrame, model: Any) -> None:
    kind = "application/x-recordio-protobuf"
    rows = frame.iloc[::10]
    sparse = [record(row[row > 1], np.flatnonzero(row > 1), [4]) for row in rows.to_numpy()]
    expected = model.predict(rows.where(rows > 1, 0)).tolist()
    for path in ("/invocations", "/models/iris/predict"):
        got = served.ask("POST", path, framed(*sparse), {"content-type": kind, "accept": kind})
        assert (got.status, got.headers["content-type"]) == (200, kind), got.body
        assert labels(got.body) == [{"predicted_label": ("float32_tensor", [each], [])} for each in expected]
    for body, status in ((framed(sparse[0])[:-4], 400), (framed(record([float("nan")] * 4)), 400)):
        got = served.ask("POST", "/invocations", body, {"content-type": kind, "accept": kind})
        assert (got.status, set(got.json)) == (status, {"error_code", "message"})


def test_a_list_among_json_lines_is_a_row_like_any_other(served: Server, frame: pd.DataFrame, model: Any) -> None:
    rows = frame.iloc[[0, 60, 120]]
    first, _, third = (json.dumps(row) for row in rows.to_numpy().tolist())
    named = rows.to_json(orient="records", lines=True).splitlines()
    headers = {"content-type": "application/jsonlines", "accept": "application/jsonlines"}
    body = "\n".join([first, named[1], "[5.1, 3.5]", third, '["5.1", 1, 2, 3]'])
    got = served.ask("POST", "/invocations", body.encode(), headers)
    answers = [json.loads(line) for line in got.body.splitlines()]
    assert [answers[at]["prediction"] for at in (0, 1, 3)] == model.predict(rows).tolist()
    assert answers[2]["error"]["detail"] == "line 3: $: expected array of 4 values, got 2"
    assert answers[4]["error"]["detail"] == "line 5: $[0]: expected float, got str"
    native = served.ask("POST", "/models/iris/predict", first.encode(), headers)
    assert "expected object, got array" in native.body.decode()


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b'{"instances": [], "inputs": []}', JSON, 400, "exactly one"),
        (b'{"rows": []}', JSON, 400, "exactly one"),
        (b'{"instances": [[1, 2]]}', JSON, 400, "4 values"),
        (b"{", JSON, 400, "not JSON"),
        (b"1,2,3,4", {"content-type": "text/csv; charset=latin-1"}, 415, "UTF-8"),
        (b"1,2,3,4", {"content-type": "text/csv; label_size=1"}, 415, "text/csv"),
        (b"1,2,3", {"content-type": "application/x-parquet"}, 415, "application/x-npy"),
        (b"1,2,3,x", CSV, 400, "petal width"),
        (b"1,2,3,4", {**CSV, "accept": "image/png"}, 406, "text/csv"),
    ],
)
def test_what_is_wrong_is_told_in_mlflows_shape(
    served: Server, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    got = served.ask("POST", "/invocations", body, headers)
    assert got.status == status
    assert set(got.json) == {"error_code", "message"}
    assert said in got.json["message"]


def test_v1_names_versions_labels_and_its_signature(served: Server, frame: pd.DataFrame, model: Any) -> None:
    row = frame.iloc[60].tolist()
    (expected,) = model.predict(frame.iloc[[60]]).tolist()
    for which in ("", "/versions/1", "/labels/stable", "/labels/live"):
        assert served.post(f"/v1/models/iris{which}:predict", {"instances": [row]}).json == {"predictions": [expected]}
        assert served.get(f"/v1/models/iris{which}").json == {"name": "iris", "ready": True}
    assert served.post("/v1/models/iris/labels/canary:predict", {"instances": [row]}).status == 404
    named = {"signature_name": "serving_default", "instances": [row]}
    assert served.post("/v1/models/iris:predict", named).status == 200
    assert served.post("/v1/models/iris:predict", {**named, "signature_name": "other"}).status == 400
    said = served.get("/v1/models/iris/metadata").json
    assert said["model_spec"] == {"name": "iris", "signature_name": "", "version": "1"}
    inputs = said["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert list(inputs) == list(frame.columns)
    assert inputs["petal width (cm)"]["dtype"] == "DT_DOUBLE"


def test_torchserves_path_answers_bare_predictions(served: Server, frame: pd.DataFrame, model: Any) -> None:
    rows = frame.iloc[[0, 60, 120]]
    expected = model.predict(rows).tolist()
    records = json.loads(rows.to_json(orient="records"))
    assert served.post("/predictions/iris", records[0]).json == expected[0]
    assert served.post("/predictions/iris/1", records).json == expected
    assert served.post("/predictions/iris", {"instances": rows.to_numpy().tolist()}).json == expected
    assert served.post("/predictions/iris", {"data": records}).json == expected
    bad = served.post("/predictions/iris", {"petal length (cm)": 1})
    assert (bad.status, bad.json["code"], bad.json["type"]) == (400, 400, "invalid-row")
    plain = served.ask("PUT", "/predictions/iris", b"\xff\xd8", {"content-type": "image/jpeg"})
    assert (plain.status, plain.json["code"]) == (415, 415)
    put = served.ask("PUT", "/predictions/iris", json.dumps(records[0]).encode())
    assert put.json == expected[0]
    unknown = served.post("/predictions/nobody", records)
    assert (unknown.status, unknown.json["code"]) == (404, 404)


def test_health_is_sagemakers_by_default(served: Server) -> None:
    ping = served.get("/ping")
    assert (ping.status, ping.body) == (200, b"")
    transform = served.get("/execution-parameters").json  # one worker; 10,000 rows of 4 values are less than a MB
    assert transform == {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1}
    assert served.get("/version").status == 404


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame, model: Any) -> Path:
    """A registry with two models, iris@1 and twin@1."""
    registry = tmp_path_factory.mktemp("both") / "registry"
    for name in ("iris", "twin"):
        salver.release(name, model, examples=frame.head(8), registry=str(registry))
    return registry


def test_several_models_are_told_apart_by_a_header(
    both: Path, start: Callable[..., Server], frame: pd.DataFrame
) -> None:
    server = start("--workers", "1", "--dialect", "mlflow", registry=both)
    body = frame.head(3).to_numpy().tolist()
    refused = server.post("/invocations", body)
    assert refused.status == 400
    for named in ("iris", "twin", "x-salver-model"):
        assert named in refused.json["message"]
    for _ in range(2):  # the second time the head is known
        for name in ("iris", "twin"):
            got = server.post("/invocations", body, {"x-salver-model": name})
            assert got.headers["x-salver-release"] == f"{name}@1"
    assert server.post("/invocations", body, {"x-salver-model": "nobody"}).status == 404
    for path in ("/ping", "/health"):
        assert (server.get(path).status, server.get(path).body) == (200, b"\n")
    assert server.get("/version").body.decode() == salver.__version__


def test_errors_of_the_model_have_mlflows_status_in_its_dialect_only(start: Callable[..., Server]) -> None:
    csv = {"content-type": "text/csv", "accept": "text/csv"}
    for dialect, status, death in (("mlflow", 400, 400), ("sagemaker", 500, 422)):
        server = start("--workers", "1", "--dialect", dialect)
        raised = server.post("/invocations", [{"key": 1, "act": "raise"}, {"key": 2, "act": ""}])
        assert (raised.status, raised.json["error_code"]) == (status, "MODEL_ERROR")
        assert set(raised.json) == {"error_code", "message"}
        raised = server.ask("POST", "/invocations", b"1,raise\n", csv)
        assert (raised.status, raised.json["error_code"]) == (status, "MODEL_ERROR")
        assert server.post("/models/oracle/predict", {"key": 1, "act": "raise"}).status == 500
        assert server.post("/invocations", [{"key": "x", "act": ""}]).status == 400
        late = server.post("/invocations", [{"key": 1, "act": "sleep"}], {"x-request-timeout-ms": "100"})
        assert (late.status, late.json["error_code"]) == (504, "DEADLINE_EXCEEDED")
        fatal = server.post("/invocations", [{"key": 1, "act": "exit"}])
        assert (fatal.status, fatal.json["error_code"]) == (death, "POISON_REQUEST")


def test_tf_servings_dialect_gives_its_status(irises: Path, start: Callable[..., Server]) -> None:
    server = start("--workers", "1", "--dialect", "tfserving", registry=irises)
    (status,) = server.get("/v1/models/iris").json["model_version_status"]
    assert (status["version"], status["state"]) == ("1", "AVAILABLE")
