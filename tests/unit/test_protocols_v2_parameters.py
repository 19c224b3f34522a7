"""The parameters of V2 over HTTP that change what is meant: nulls, base64, sequences."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from salver.protocols.v2.codec import PROTOCOL
from salver.signature import Column, Field, Signature, Tensor
from tests.unit.asked import PREDICTION, Asked, one_input

FORMAT = Asked(PROTOCOL)
INT = Column("x", "int", nullable=True, minimum=1, enforce=True)
TEXT = Column("x", "str", nullable=True)


def request(datatype: str, shape: list[int], data: Any, **said: Any) -> tuple[bytes, dict[str, str]]:
    """A request of one input x; bytes are sent as binary data."""
    tensor: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": shape, "parameters": said}
    if not isinstance(data, bytes):
        return json.dumps({"inputs": [tensor | {"data": data}]}).encode(), {}
    tensor["parameters"] = {**said, "binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + data, {"header_length": str(len(head))}


def given(field: Field, asked: tuple[bytes, dict[str, str]]) -> Any:
    """What the model gets."""
    decoded = FORMAT.codec(one_input(field)).decode([asked[0]], asked[1])
    assert [part.failure for part in decoded.parts] == [None]
    return decoded.columns["x"].tolist()


def refused(field: Field, asked: tuple[bytes, dict[str, str]]) -> str:
    (answer,) = FORMAT.answers(one_input(field), [asked[0]], options=asked[1])
    assert answer.status == 400
    return str(json.loads(answer.body)["error"])


def texts(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def ints(*values: int) -> bytes:
    return np.array(values, "<i8").tobytes()


@pytest.mark.parametrize(
    ("field", "datatype", "shape", "data", "expected"),
    [
        (INT, "INT64", [3], ints(5, 0, 7), [5, None, 7]),
        (INT, "INT64", [3], [5, 0, 7], [5, None, 7]),
        (INT, "INT64", [3, 1], [[5], [0], [7]], [5, None, 7]),
        (INT, "INT64", [3, 1], ints(5, 0, 7), [5, None, 7]),
        (TEXT, "BYTES", [3], texts(b"a", b"", b"b"), ["a", None, "b"]),
        (TEXT, "BYTES", [3], ["a", "", "b"], ["a", None, "b"]),
        (Column("x", "bool", optional=True), "BOOL", [3], b"\1\0\0", [True, None, False]),
        (Column("x", "float", nullable=True), "FP32", [3], [1.5, 0, 2.5], [1.5, None, 2.5]),
        (Column("x", "float", nullable=True), "FP16", [3], np.array([1.5, 0, 2.5], "<f2").tobytes(), [1.5, None, 2.5]),
    ],
)
def test_rows_that_are_said_to_be_null_are_null_whatever_stands_there(
    field: Field, datatype: str, shape: list[int], data: Any, expected: list[Any]
) -> None:
    got = given(field, request(datatype, shape, data, nulls="1"))
    assert [None if value != value else value for value in got] == expected


@pytest.mark.parametrize(
    ("field", "asked", "words"),
    [
        (Column("x", "int"), request("INT64", [1], ints(1), nulls="0"), "'x' may not be null"),
        (Column("x", "int"), request("INT64", [1], [1], nulls="0"), "'x' may not be null"),
        (Tensor("x", "float32", (-1,)), request("FP32", [1], [1], nulls="0"), "'x' may not be null"),
        (INT, request("INT64", [1], ints(1), nulls="1"), "lists a row that there is not"),
        (INT, request("INT64", [1], [1], nulls="-1"), "lists a row that there is not"),
        (INT, request("INT64", [1], [1], nulls="all"), "must list rows, like 0,3"),
        (INT, request("INT64", [1], [1], nulls=[0]), "expected str"),
        (INT, request("INT64", [2], [1], nulls="0"), "needs 2 elements, data has 1"),
        (INT, request("INT64", [1], {"a": 1}, nulls="0"), "expected array"),
        (INT, request("FP64", [1], [1.5], nulls="0"), "FP64"),
        (TEXT, request("BYTES", [1], ["?"], content_type="base64"), "content_type is base64, and a value is not"),
        (TEXT, request("BYTES", [1], [1], content_type="base64"), "content_type is base64, and a value is not"),
        (TEXT, request("BYTES", [1], ["/w=="], content_type="base64"), "must be UTF-8"),
        (TEXT, request("BYTES", [1], texts(b"?"), content_type="base64"), "content_type is base64, and a value is not"),
        (TEXT, request("BYTES", [1], texts(b"/w=="), content_type="base64"), "must be UTF-8"),
        (INT, request("INT64", [1], [1], content_type="base64"), "base64 is for BYTES, not INT64"),
        (Tensor("x", "float32", (-1,)), request("FP32", [1], [1], content_type="base64"), "base64 is for BYTES"),
    ],
)
def test_what_parameters_say_must_fit(field: Field, asked: tuple[bytes, dict[str, str]], words: str) -> None:
    assert words in refused(field, asked)


@pytest.mark.parametrize(
    ("field", "shape", "values", "expected"),
    [
        (TEXT, [2], ["w6Q=", ""], ["ä", ""]),
        (Column("x", "category", categories=("b",), enforce=True), [2], ["Yg==", "Yg=="], ["b", "b"]),
        (Tensor("x", "str", (-1, 1)), [2, 1], ["Yg==", "Yw=="], [["b"], ["c"]]),
    ],
)
def test_text_that_says_it_came_as_base64_reaches_the_model_as_text(
    field: Field, shape: list[int], values: list[str], expected: list[Any]
) -> None:
    for data in (values, texts(*map(str.encode, values))):
        assert given(field, request("BYTES", shape, data, content_type="base64")) == expected
    nested = [[value] for value in values]
    if len(shape) == 2:
        assert given(field, request("BYTES", shape, nested, content_type="base64")) == expected
    assert given(TEXT, request("BYTES", [2], ["Yg==", None], content_type="base64")) == ["b", None]


@pytest.mark.parametrize("content_type", ["str", "np", "pd", "datetime", "mine", 7, None])
def test_other_content_types_say_what_the_signature_knows(content_type: Any) -> None:
    assert given(TEXT, request("BYTES", [1], ["Yg=="], content_type=content_type)) == ["Yg=="]


def test_nulls_of_the_matrix_of_all_columns_are_refused() -> None:
    signature = Signature(inputs=tuple(Column(name, "float", nullable=True) for name in "ab"), outputs=PREDICTION)
    body, _ = request("FP64", [1, 2], [1, 2], nulls="0")
    assert "a tensor of its own to state nulls" in FORMAT.said(signature, body)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"sequence_id": 7, "sequence_start": True, "sequence_end": False}, "sequence_id"),
        ({"sequence_id": "a"}, "sequence_id"),
        ({"sequence_start": True}, "sequence_start"),
        ({"sequence_end": 1}, "sequence_end"),
        ({"sequence_id": 0, "sequence_start": False, "sequence_end": False}, ""),
        ({"sequence_id": "", "priority": 1, "timeout": 500_000}, ""),
    ],
)
def test_a_part_of_a_sequence_is_refused(parameters: dict[str, Any], named: str) -> None:
    inputs = [{"name": "x", "datatype": "INT64", "shape": [1], "data": [5]}]
    (answer,) = FORMAT.answers(one_input(INT), [json.dumps({"inputs": inputs, "parameters": parameters}).encode()])
    assert answer.status == (501 if named else 200)
    if named:
        assert f"parameters.{named}: sequences are not served" in json.loads(answer.body)["error"]
