"""What the client sends, when it asks again and what it makes of an answer, without a socket."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from salver.client.exchange import Response, Retry, Schema, pause_before_retry, read_prediction
from salver.client.rows import encode
from salver.errors import Broken, Busy, SalverError, UserError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIGNATURE = {
    "inputs": [{"kind": "column", "name": "age", "type": "int"}],
    "outputs": [{"kind": "column", "name": "prediction", "type": "float"}],
}
WIDER = {**SIGNATURE, "inputs": [{"kind": "column", "name": "age", "type": "float"}]}


def response(status: int, body: Any = None, **headers: str) -> Response:
    return Response(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, msgspec.json.encode(body)
    )


def pause(answer: Response, attempt: int = 1, chance: float = 1.0, **retry: Any) -> float | None:
    return pause_before_retry(answer, attempt, Retry(**retry), now=NOW, chance=chance)


@pytest.mark.parametrize("status", [200, 400, 404, 422, 500, 504])
def test_only_a_refusal_for_now_is_tried_again(status: int) -> None:
    assert pause(response(status, retry_after="0")) is None
    assert pause(response(503, retry_after="0")) == 0
    assert pause(response(429, retry_after="0")) == 0


def test_the_server_says_how_long_to_wait() -> None:
    assert pause(response(503, retry_after="2")) == 2
    assert pause(response(503, retry_after="Thu, 01 Jan 2026 00:00:03 GMT")) == 3
    assert pause(response(503, retry_after="Wed, 31 Dec 2025 00:00:00 GMT")) == 0


def test_nobody_waits_longer_than_agreed_or_for_a_time_that_makes_no_sense() -> None:
    assert pause(response(503, retry_after="6"), longest=5.0) is None
    assert pause(response(503, retry_after="soon")) is None


def test_without_a_word_of_the_server_pauses_double_up_to_the_longest_and_are_spread() -> None:
    assert [pause(response(503), attempt, first=0.1, longest=0.3) for attempt in (1, 2, 3)] == [0.1, 0.2, 0.3]
    assert pause(response(503), chance=0.0, first=0.1) == 0.05


def test_the_last_attempt_is_the_last() -> None:
    assert pause(response(503, retry_after="0"), 3, attempts=3) is None


def test_a_request_whose_worker_died_is_not_sent_twice() -> None:
    assert pause(response(503, {"code": "worker-died"}, retry_after="0")) is None


def test_one_row_gives_one_value_and_a_list_gives_a_list() -> None:
    single = read_prediction(response(200, {"prediction": "yes", "share": 0.5}, x_salver_release="churn@7"))
    assert (single.prediction, single["share"], single.release, len(single)) == ("yes", 0.5, "churn@7", 1)
    many = read_prediction(response(200, [{"prediction": 1}, {"prediction": 2}], x_salver_prediction_id="0190"))
    assert (many.prediction, many.prediction_id) == ([1, 2], "0190")


def test_a_failed_row_keeps_its_place_and_has_its_error() -> None:
    answer = read_prediction(response(200, [{"prediction": 1}, {"error": {"code": "invalid-row", "detail": "age"}}]))
    assert answer.prediction == [1, None]
    assert list(answer.errors) == [1]
    assert answer.errors[1].code == "invalid-row"


def test_an_output_named_error_is_an_output() -> None:
    assert read_prediction(response(200, {"error": 0.25}))["error"] == 0.25


def test_an_unknown_output_names_those_there_are() -> None:
    with pytest.raises(UserError, match="it has prediction"):
        read_prediction(response(200, {"prediction": 1}))["score"]


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (404, {"code": "no-such-model", "detail": "no model x", "hint": "try y"}, UserError, "no-such-model"),
        (503, {"code": "overloaded", "detail": "full"}, Busy, "overloaded"),
        (500, {"code": "model-error", "detail": "boom"}, Broken, "model-error"),
        (503, {"code": "a-code-of-the-future", "detail": "later"}, Busy, "overloaded"),
        (418, {"detail": "teapot"}, UserError, "bad-request"),
        (502, "<html>bad gateway</html>", Broken, "internal"),
    ],
)
def test_an_error_of_the_server_is_ours_with_its_code(status: int, body: Any, kind: type, code: str) -> None:
    with pytest.raises(SalverError) as caught:
        read_prediction(response(status, body))
    assert type(caught.value) is kind
    assert caught.value.code == code


def test_an_answer_that_is_no_json_is_an_error_and_no_crash() -> None:
    with pytest.raises(Broken, match="is this address a Salver server"):
        read_prediction(Response(200, {}, b"<html>"))


def test_the_signature_is_asked_for_once_and_again_when_rows_no_longer_fit() -> None:
    schema = Schema("churn")
    description = {"name": "churn", "live": None, "signature": SIGNATURE, "loaded": []}
    steps = schema.predict({"age": 1}, timeout=1.0, strict=False)
    assert next(steps)[:2] == ("GET", "/models/churn")
    request = steps.send(response(200, description))
    assert (request.method, request.path, request.body) == ("POST", "/models/churn/predict", b'{"age":1}')
    assert next(schema.predict({"age": 2}, timeout=1.0, strict=True)).path == "/models/churn/predict?strict=true"
    steps = schema.predict({"age": 1.5}, timeout=1.0, strict=False)
    assert next(steps).method == "GET"
    assert steps.send(response(200, {**description, "signature": WIDER})).body == b'{"age":1.5}'


def test_rows_that_do_not_fit_are_never_sent() -> None:
    steps = Schema("churn").predict([{"age": 1}, {"age": "x"}, {}], timeout=1.0, strict=False)
    next(steps)
    with pytest.raises(UserError, match="nothing was sent") as caught:
        steps.send(response(200, {"name": "churn", "signature": SIGNATURE}))
    assert caught.value.code == "invalid-row"
    assert len(caught.value.details) == 2
    assert caught.value.details == ("$[1].age: expected int, got str", "$[2].age: required field is missing")


def test_a_pinned_release_has_its_own_address() -> None:
    request = next(Schema("churn@7").predict({"age": 1}, timeout=1.0, strict=False))
    assert request.path == "/models/churn/releases/7/predict"
    assert request.headers["x-request-timeout-ms"] == "1000"


def test_a_name_can_not_reach_another_path() -> None:
    assert next(Schema("../x?y").describe()).path == "/models/..%2Fx%3Fy"


def test_numpy_and_missing_values_become_json() -> None:
    row = {
        "a": np.int64(1),
        "b": np.float32(0.5),
        "c": float("nan"),
        "d": np.array([1, 2]),
        "e": pd.Timestamp(0),
        "f": pd.NA,
    }
    assert msgspec.json.decode(encode(row)) == {
        "a": 1,
        "b": 0.5,
        "c": None,
        "d": [1, 2],
        "e": "1970-01-01T00:00:00",
        "f": None,
    }


def test_a_frame_becomes_rows_and_gaps_do_not_turn_integers_into_floats() -> None:
    frame = pd.DataFrame(
        {"age": [1, None], "name": ["a", None], "when": pd.to_datetime(["2024-01-01", None]), "f": [1.0, 2.0]}
    )
    assert msgspec.json.decode(encode(frame)) == [
        {"age": 1, "name": "a", "when": "2024-01-01T00:00:00", "f": 1.0},
        {"age": None, "name": None, "when": None, "f": 2.0},
    ]


@pytest.mark.parametrize("rows", [7, "row", [1, 2], None])
def test_rows_of_no_known_kind_are_refused(rows: Any) -> None:
    with pytest.raises(UserError, match="rows can't be"):
        encode(rows)


def test_a_value_without_a_json_form_is_refused() -> None:
    with pytest.raises(UserError, match="of type object"):
        encode({"a": object()})


def test_bytes_are_sent_as_base64_and_read_as_bytes() -> None:
    rows = [{"x": b"\xff\0"}, {"x": bytearray(b"a")}, {"x": np.bytes_(b"b")}, {"x": None}]
    assert encode(rows) == b'[{"x":"/wA="},{"x":"YQ=="},{"x":"Yg=="},{"x":null}]'
    answers = [{"y": "/wA=", "z": "YQ=="}, {"error": {"code": "invalid-row", "detail": "x"}}, {"y": None, "z": ""}]
    answer = read_prediction(response(200, answers), {"y"})
    assert answer.rows == [{"y": b"\xff\0", "z": "YQ=="}, None, {"y": None, "z": ""}]
