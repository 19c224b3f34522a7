"""Answers of V2 with binary tensors: every datatype, the rows of each request, and nulls that bytes can't say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from salver.protocols import Encoded
from salver.signature import Column, Signature, Tensor
from tests.unit.asked import one_input
from tests.unit.test_protocols_v2_binary import FORMAT, body, little, tensor, texts

BINARY = {"binary_data": True}
F = Column("x", "float")


def opened(answer: Encoded) -> tuple[dict[str, Any], bytes]:
    """The JSON of an answer and the bytes behind it."""
    if not answer.headers:
        return json.loads(answer.body), b""
    assert answer.content_type == "application/octet-stream"
    name, length = answer.headers.removesuffix("\r\n").split(": ")
    assert name == "inference-header-content-length"
    return json.loads(answer.body[: int(length)]), answer.body[int(length) :]


OUTPUTS = Signature(
    inputs=(F,),
    outputs=(
        Column("label", "category", nullable=True),
        Tensor("p", "float32", (-1, 2)),
        Column("n", "int", nullable=True),
        Column("ok", "bool", nullable=True),
        Column("when", "datetime"),
        Tensor("t", "float16", (-1,)),
        Column("z", "float", nullable=True),
    ),
)
ROWS = {
    "label": np.array(["a", "é"], object),
    "p": np.array([[0.25, 0.75], [1, 0]], np.float32),
    "n": np.array([4.0, 3.0]),
    "ok": np.array([True, False], object),
    "when": np.array(["2024-01-31", "2024-02-01"], "datetime64[us]"),
    "t": np.array([0.5, 1.5], np.float16),
    "z": np.array([np.nan, 1.0]),
}
TWO = tensor("x", "FP64", [2], little([1, 2], "<f8"))


def read_back(answer: Encoded) -> dict[str, Any]:
    """The outputs of an answer by name: bytes where they are binary, data where they are JSON."""
    told, data = opened(answer)
    found: dict[str, Any] = {}
    for output in told["outputs"]:
        if "data" in output:
            found[output["name"]] = output["data"]
            continue
        size = output["parameters"]["binary_data_size"]
        found[output["name"]], data = data[:size], data[size:]
    assert data == b""
    return found


def test_a_raw_request_is_answered_in_bytes() -> None:
    given = {"prediction": np.array([5.0])}
    (answer,) = FORMAT.answers(one_input(F), [little([3], "<f8")], given, options={"header_length": "0"})
    told, data = opened(answer)
    assert told["outputs"] == [
        {"name": "prediction", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}}
    ]
    assert data == little([5], "<f8")


def test_every_type_of_output_is_sent_in_bytes() -> None:
    request, options = body(TWO, parameters={"binary_data_output": True})
    (answer,) = FORMAT.answers(OUTPUTS, [request], ROWS, options=options)
    assert read_back(answer) == {
        "label": texts(b"a", "é".encode()),
        "p": little([0.25, 0.75, 1, 0], "<f4"),
        "n": little([4, 3], "<i8"),
        "ok": b"\x01\x00",
        "when": texts(b"2024-01-31T00:00:00.000000Z", b"2024-02-01T00:00:00.000000Z"),
        "t": little([0.5, 1.5], "<f2"),
        "z": little([np.nan, 1], "<f8"),
    }
    assert [output["datatype"] for output in opened(answer)[0]["outputs"]] == (
        ["BYTES", "FP32", "INT64", "BOOL", "BYTES", "FP16", "FP64"]
    )


def test_each_request_of_a_batch_gets_the_bytes_of_its_own_rows() -> None:
    request, options = body(tensor("x", "FP64", [1], little([1], "<f8")), outputs=[{"name": "p", "parameters": BINARY}])
    first, second = FORMAT.answers(OUTPUTS, [request, request], ROWS, options=options)
    assert read_back(first) == {"p": little([0.25, 0.75], "<f4")}
    assert read_back(second) == {"p": little([1, 0], "<f4")}


def test_each_output_says_for_itself_how_it_is_sent() -> None:
    asked = [
        {"name": "n", "parameters": {"binary_data": False}},
        {"name": "t"},
        {"name": "label", "parameters": BINARY},
    ]
    request, options = body(TWO, outputs=asked, parameters={"binary_data_output": True})
    (answer,) = FORMAT.answers(OUTPUTS, [request], ROWS, options=options)
    assert read_back(answer) == {"n": [4, 3], "t": little([0.5, 1.5], "<f2"), "label": texts(b"a", "é".encode())}


def test_a_null_that_bytes_can_not_say_is_sent_as_json() -> None:
    nulls = {
        "label": np.array([None, "b"], object),
        "n": np.array([np.nan, 3.0]),
        "ok": np.array([None, True], object),
    }
    asked = [{"name": name} for name in ("label", "n", "ok")]
    request, options = body(TWO, outputs=asked, parameters={"binary_data_output": True})
    (answer,) = FORMAT.answers(OUTPUTS, [request], ROWS | nulls, options=options)
    assert (answer.content_type, answer.headers) == ("application/json", "")
    assert read_back(answer) == {"label": [None, "b"], "n": [None, 3], "ok": [None, True]}


def test_no_rows_are_answered_with_no_bytes() -> None:
    request, options = body(tensor("x", "FP64", [0], b""), parameters={"binary_data_output": True})
    (answer,) = FORMAT.answers(OUTPUTS, [request], {}, options=options)
    assert [output["shape"] for output in opened(answer)[0]["outputs"]] == [[0], [0, 2], [0], [0], [0], [0], [0]]
    assert set(read_back(answer).values()) == {b""}


def test_rows_of_an_output_that_differ_in_shape_have_no_bytes_together() -> None:
    signature = Signature(inputs=(F,), outputs=(Tensor("p", "float64", (-1, -1)),))
    ragged = np.empty(2, object)
    ragged[0], ragged[1] = np.ones(1), np.ones(2)
    more = {"parameters": {"binary_data_output": True}}
    two, options = body(TWO, **more)
    (refused,) = FORMAT.answers(signature, [two], {"p": ragged}, options=options)
    assert (refused.status, refused.code) == (500, "bad-output")
    one, options = body(tensor("x", "FP64", [1], little([1], "<f8")), **more)
    got = FORMAT.answers(signature, [one, one], {"p": ragged}, options=options)
    assert [opened(answer)[0]["outputs"][0]["shape"] for answer in got] == [[1, 1], [1, 2]]


@pytest.mark.parametrize("parameters", [{"classification": 3}, {"shared_memory_region": "r"}])
def test_what_is_not_offered_for_an_output_is_a_501(parameters: dict[str, Any]) -> None:
    request, options = body(TWO, outputs=[{"name": "p", "parameters": parameters}])
    (answer,) = FORMAT.answers(OUTPUTS, [request], ROWS, options=options)
    assert (answer.status, answer.code) == (501, "not-implemented")
    assert "$.outputs[0]: " in json.loads(answer.body)["error"]
