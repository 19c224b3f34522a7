"""V2 JSON: requests as the field's clients send them, every refusal with its words, answers byte for byte."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris

from salver.errors import error
from salver.protocols import Encoded
from salver.protocols.v2.codec import PROTOCOL
from salver.signature import Column, Field, Signature, Tensor
from tests.unit.asked import PREDICTION, Asked, one_input

FORMAT = Asked(PROTOCOL)
answers = FORMAT.answers
columns = FORMAT.columns
said = FORMAT.said
FLOATS = Signature(inputs=(Column("a", "float"), Column("b", "float")), outputs=PREDICTION)
HEAD = '{"model_name":"churn","model_version":"7",'


def tensor(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    """One tensor of a request."""
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    """A request."""
    return json.dumps({"inputs": inputs, **more}).encode()


A, B = tensor("a", "FP64", [2], [1, 2]), tensor("b", "FP32", [2, 1], [[3], [4]])


def test_each_column_is_a_tensor_and_the_answer_names_model_version_and_outputs() -> None:
    assert columns(FLOATS, body(B, A)) == {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    (answer,) = answers(FLOATS, [body(A, B)])
    assert answer == Encoded(
        200,
        (HEAD + '"outputs":[{"name":"prediction","shape":[2],"datatype":"FP64","data":[0.0,1.0]}]}').encode(),
    )


def test_the_id_is_echoed_and_parameters_are_ignored() -> None:
    given = {"parameters": {"a": 1, "b": "x", "c": True, "d": 1.5, "e": None, "f": {"g": []}}}
    (answer,) = answers(FLOATS, [body(A | given, B, id='a"b', **given)])
    assert answer.body.decode().startswith(HEAD + '"id":"a\\"b","outputs":[')


def test_requests_of_a_batch_get_their_own_rows() -> None:
    one = [tensor("a", "FP64", [1], [9]), tensor("b", "FP64", [1], [9])]
    got = answers(FLOATS, [body(*one), body(), body(A, B, id="2"), b"{", body(*one)])
    data = [json.loads(answer.body)["outputs"][0]["data"] for answer in got if answer.status == 200]
    assert data == [[0.0], [1.0, 2.0], [3.0]]
    assert [answer.status for answer in got] == [200, 400, 200, 400, 200]


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("name", ["predict", "a"])
def test_one_tensor_of_all_columns_is_their_matrix(nested: bool, name: str) -> None:
    data = load_iris().data
    fields = tuple(Column(name, "float") for name in ("a", "b", "c", "d"))
    values = data.tolist() if nested else data.ravel().tolist()
    request = body(tensor(name, "FP64", list(data.shape), values))
    got = columns(Signature(inputs=fields, outputs=PREDICTION), request, request)
    assert np.array_equal(np.array(list(got.values())).T, np.concatenate([data, data]))


def test_a_matrix_checks_each_column_like_its_own_tensor() -> None:
    signature = Signature(
        inputs=(Column("a", "float", nullable=True), Column("b", "float", minimum=0.0, enforce=True)),
        outputs=PREDICTION,
    )
    got = columns(signature, body(tensor("x", "FP64", [2, 2], [None, 1, 2, 3])))
    assert got["b"] == [1.0, 3.0]
    assert np.isnan(got["a"][0])
    refused = said(signature, body(tensor("x", "FP64", [2, 2], [1, 1, 2, -3])))
    assert refused == "$.inputs[0].data, column 'b' [1]: expected float >= 0.0"
    refused = said(signature, body(tensor("x", "FP64", [1, 2], [1, None])))
    assert refused == "$.inputs[0].data, column 'b' [0]: expected float, got null"


def test_a_lone_tensor_under_the_name_of_the_only_column_is_that_column() -> None:
    assert columns(one_input(Column("a", "float")), body(tensor("a", "FP64", [2, 1], [1, 2])))["a"] == [1.0, 2.0]
    assert columns(one_input(Column("a", "float")), body(tensor("other", "FP64", [2, 1], [1, 2])))["a"] == [1.0, 2.0]


def test_a_matrix_is_refused_where_columns_are_not_all_floats() -> None:
    signature = Signature(inputs=(Column("a", "float"), Column("b", "int")), outputs=PREDICTION)
    refused = said(signature, body(tensor("x", "FP64", [1, 2], [1, 2])))
    assert refused == (
        "2 inputs are invalid: $.inputs: required input 'a' is missing; $.inputs: required input 'b' is missing"
        " (the inputs are a, b)"
    )


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        (Column("x", "float"), tensor("x", "FP64", [2], [1, 2.5]), [1.0, 2.5]),
        (Column("x", "float"), tensor("x", "INT8", [2], [1, -128]), [1.0, -128.0]),
        (Column("x", "float"), tensor("x", "UINT64", [1], [7]), [7.0]),
        (Column("x", "float"), tensor("x", "FP32", [1], [1e300]), [1e300]),
        (Column("x", "int"), tensor("x", "INT64", [2, 1], [[1], [2**63 - 1]]), [1, 2**63 - 1]),
        (Column("x", "int"), tensor("x", "UINT16", [1], [65535]), [65535]),
        (Column("x", "bool"), tensor("x", "BOOL", [2], [True, False]), [True, False]),
        (Column("x", "str"), tensor("x", "BYTES", [2], ["a,b", "[["]), ["a,b", "[["]),
        (Column("x", "str", nullable=True), tensor("x", "BYTES", [2], ["a", None]), ["a", None]),
        (Column("x", "category", categories=("a",), enforce=True), tensor("x", "BYTES", [1], ["a"]), ["a"]),
        (Tensor("x", "float32", (-1, 2)), tensor("x", "FP32", [2, 2], [1, 2, 3, 4]), [[1.0, 2.0], [3.0, 4.0]]),
        (Tensor("x", "float32", (-1, 2)), tensor("x", "FP64", [1, 2], [[1, 2]]), [[1.0, 2.0]]),
        (Tensor("x", "float16", (-1, 1)), tensor("x", "FP32", [1, 1], [0.5]), [[0.5]]),
        (Tensor("x", "uint8", (-1, -1, 2)), tensor("x", "UINT8", [1, 1, 2], [[[1, 255]]]), [[[1, 255]]]),
        (Tensor("x", "uint64", (-1,)), tensor("x", "UINT64", [1], [2**64 - 1]), [2**64 - 1]),
        (Tensor("x", "bool", (-1, 1)), tensor("x", "BOOL", [1, 1], [True]), [[True]]),
        (Tensor("x", "str", (-1, 2)), tensor("x", "BYTES", [1, 2], ["a", "b"]), [["a", "b"]]),
        (Column("x", "float"), tensor("x", "FP64", [0], []), []),
        (Tensor("x", "float32", (-1, 2)), tensor("x", "FP32", [0, 2], []), []),
    ],
)
def test_a_tensor_that_fits_its_field_reaches_the_model(field: Field, given: dict[str, Any], expected: Any) -> None:
    assert columns(one_input(field), body(given))["x"] == expected
    assert columns(one_input(field), body(given), body(given))["x"] == expected * 2


def test_times_come_as_text() -> None:
    decoded = FORMAT.codec(one_input(Column("x", "datetime"))).decode(
        [body(tensor("x", "BYTES", [2], ["2024-01-31", "2024-01-31T12:00:00+01:00"]))]
    )
    assert decoded.columns["x"].astype(str).tolist() == ["2024-01-31T00:00:00.000000", "2024-01-31T11:00:00.000000"]


@pytest.mark.parametrize(
    ("field", "given", "words"),
    [
        (Column("x", "float"), tensor("x", "FP64", [3], [1]), "$.inputs[0]: shape [3] needs 3 elements, data has 1"),
        (Column("x", "float"), tensor("x", "FP64", [1], [1, 2]), "$.inputs[0]: shape [1] needs 1 elements, data has 2"),
        (Column("x", "float"), tensor("x", "FP64", [1, 2], [1, 2]), "$.inputs[0]: shape [1, 2] of 'x' must be [n]"),
        (Column("x", "float"), tensor("x", "FP64", [], [1]), "$.inputs[0]: shape [] of 'x' must be [n]"),
        (Column("x", "float"), tensor("x", "FP64", [-1], []), "$.inputs[0]: shape [-1] has a negative size"),
        (Column("x", "float"), tensor("x", "FP64", [2], [1, "x"]), "$.inputs[0].data[1]: expected float, got str"),
        (Column("x", "float"), tensor("x", "FP64", [1], [None]), "$.inputs[0].data[0]: expected float, got null"),
        (Column("x", "float"), tensor("x", "FP64", [1], 7), "$.inputs[0].data: expected array, got int"),
        (Column("x", "float"), tensor("x", "INT8", [1], [128]), "$.inputs[0].data[0]: expected int <= 127"),
        (Column("x", "float"), tensor("x", "INT8", [1], [0.5]), "$.inputs[0].data[0]: expected int, got float"),
        (
            Column("x", "float", minimum=-1.5, enforce=True),
            tensor("x", "INT8", [1], [-2]),
            "$.inputs[0].data[0]: expected int >= -1",
        ),
        (Column("x", "int"), tensor("x", "UINT8", [1], [-1]), "$.inputs[0].data[0]: expected int >= 0"),
        (
            Column("x", "int"),
            tensor("x", "FP64", [1], [1]),
            "$.inputs[0]: 'x' is int; datatype 'FP64' must be INT64 or INT32 or INT16 or INT8 or UINT64 or UINT32 or"
            " UINT16 or UINT8",
        ),
        (Column("x", "str"), tensor("x", "FP64", [1], [1]), "$.inputs[0]: 'x' is str; datatype 'FP64' must be BYTES"),
        (
            Column("x", "bool"),
            tensor("x", "int", [1], [1]),
            "$.inputs[0]: 'x' is bool; unknown datatype 'int' must be BOOL",
        ),
        (
            Column("x", "float"),
            tensor("x", "FP16", [1], [1]),
            "$.inputs[0]: FP16 data can't be sent as JSON (send FP32)",
        ),
        (
            Column("x", "float"),
            tensor("x", "BF16", [1], [1]),
            "$.inputs[0]: BF16 data can't be sent as JSON (send FP32)",
        ),
        (
            Column("x", "category", categories=("a",), enforce=True, private=True),
            tensor("x", "BYTES", [2], ["a", "hunter2 - at `$[7]`"]),
            "$.inputs[0].data[1]: expected a known category",
        ),
        (
            Column("x", "datetime"),
            tensor("x", "BYTES", [1], ["x"]),
            "$.inputs[0].data[0]: expected datetime in ISO 8601, got other text",
        ),
        (
            Tensor("x", "float32", (-1, 2)),
            tensor("x", "FP32", [1, 3], [1, 2, 3]),
            "$.inputs[0]: shape [1, 3] of 'x' must be [n, 2]",
        ),
        (
            Tensor("x", "float32", (-1, 2)),
            tensor("x", "FP32", [2, 2], [[1, 2], [3]]),
            "$.inputs[0].data: shape [2, 2] needs arrays of length 2, one has length 1",
        ),
        (
            Tensor("x", "float32", (-1, 2)),
            tensor("x", "FP32", [2, 2], [[1, 2]]),
            "$.inputs[0].data: shape [2, 2] needs 2 arrays, data has 1",
        ),
        (
            Tensor("x", "float32", (-1, 2)),
            tensor("x", "FP32", [1, 2], [[1, "a"]]),
            "$.inputs[0].data[0][1]: expected float, got str",
        ),
        (
            Tensor("x", "float32", (-1,)),
            tensor("x", "FP32", [2], [1, 1e300]),
            "$.inputs[0].data: expected float32, got a number out of range",
        ),
        (Tensor("x", "uint8", (-1,)), tensor("x", "INT64", [1], [256]), "$.inputs[0].data[0]: expected int <= 255"),
        (
            Tensor("x", "uint64", (-1,)),
            tensor("x", "UINT64", [1], [2**64]),
            "$.inputs[0].data: expected uint64, got a number out of range",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_its_field_is_refused(field: Field, given: dict[str, Any], words: str) -> None:
    assert said(one_input(field), body(given)) == words


@pytest.mark.parametrize(
    ("request_body", "words"),
    [
        (b"", "the body is not JSON: it ends too early, at byte 0"),
        (b"{}", "$: required field inputs is missing"),
        (b"[]", "$: expected object, got array"),
        (body(A), "$.inputs: required input 'b' is missing"),
        (body(A, A, B), "$.inputs: two tensors have the same name"),
        (body(A, B, id=7), "$.id: expected str | null, got int"),
        (
            body(A | {"parameters": {"binary_data_size": "x"}}, B),
            "$.inputs[0].parameters.binary_data_size: expected int | null, got str",
        ),
        (
            body(A | {"parameters": {"binary_data_size": 8}}, {"name": "b", "shape": [1], "datatype": "FP64"}),
            "$.inputs[1]: required field data is missing",
        ),
        (body(A | {"shape": [1.5]}, B), "$.inputs[0].shape[0]: expected int, got float"),
        (body({"name": "a"}), "$.inputs[0]: required field shape is missing"),
        (
            body(A, tensor("b", "FP64", [1], [1])),
            "$.inputs: tensors differ in rows: 'a' has 2, 'b' has 1",
        ),
        (
            body(A, B, outputs=[{"name": "x"}]),
            "$.outputs: no output is named 'x' (outputs: prediction)",
        ),
        (b'{"inputs":[],"zz":' + b"[" * 100_000, "the body is not JSON: nested too deeply"),
        (
            b'{"inputs":[{"name":"a","shape":[1],"datatype":"FP64","data":[NaN]}]}',
            "the body is not JSON: NaN at byte 61 (JSON has no NaN and no infinity; a missing value is null)",
        ),
    ],
)
def test_a_request_that_is_no_v2_is_refused(request_body: bytes, words: str) -> None:
    assert said(FLOATS, request_body) == words


def test_every_invalid_input_is_named() -> None:
    refused = said(FLOATS, body(tensor("a", "FP64", [1], ["x"]), tensor("b", "FP64", [2], [1])))
    assert refused == (
        "2 inputs are invalid: $.inputs[0].data[0]: expected float, got str;"
        " $.inputs[1]: shape [2] needs 2 elements, data has 1"
        " (the inputs are a, b, or all in one of shape [n, 2])"
    )


def test_an_optional_input_may_be_left_out_and_unknown_ones_are_ignored() -> None:
    signature = Signature(inputs=(Column("a", "float"), Column("s", "str", optional=True)), outputs=PREDICTION)
    unknown = tensor("zz", "FP16", [9], [])
    assert columns(signature, body(A, unknown)) == {"a": [1.0, 2.0], "s": [None, None]}


def test_no_rows_are_answered_with_no_rows() -> None:
    signature = Signature(
        inputs=(Column("a", "float"),), outputs=(Column("prediction", "float"), Tensor("p", "float32", (-1, 3, -1)))
    )
    (answer,) = answers(signature, [body(tensor("a", "FP64", [0], []))], {})
    assert [output["shape"] for output in json.loads(answer.body)["outputs"]] == [[0], [0, 3, 0]]


OUTPUTS = Signature(
    inputs=(Column("a", "float"),),
    outputs=(
        Column("label", "category"),
        Tensor("p", "float32", (-1, 2)),
        Column("n", "int", nullable=True),
        Column("when", "datetime"),
        Tensor("t", "float16", (-1,)),
    ),
)
ROWS = {
    "label": np.array(["a,b", "]"], object),
    "p": np.array([[0.25, 0.75], [1, 0]], np.float32),
    "n": np.array([np.nan, 3.0]),
    "when": np.array(["2024-01-31", "2024-02-01"], "datetime64[us]"),
    "t": np.array([0.5, 1.5], np.float16),
}


def test_every_type_of_output_is_a_flat_tensor() -> None:
    (answer,) = answers(OUTPUTS, [body(tensor("a", "FP64", [2], [1, 2]))], ROWS)
    assert answer.body.decode() == HEAD + (
        '"outputs":[{"name":"label","shape":[2],"datatype":"BYTES","data":["a,b","]"]},'
        '{"name":"p","shape":[2,2],"datatype":"FP32","data":[0.25,0.75,1.0,0.0]},'
        '{"name":"n","shape":[2],"datatype":"INT64","data":[null,3]},'
        '{"name":"when","shape":[2],"datatype":"BYTES",'
        '"data":["2024-01-31T00:00:00.000000Z","2024-02-01T00:00:00.000000Z"]},'
        '{"name":"t","shape":[2],"datatype":"FP32","data":[0.5,1.5]}]}'
    )


def test_asked_outputs_come_once_in_the_order_asked() -> None:
    asked = [{"name": "n"}, {"name": "label", "parameters": {"binary_data": False}}, {"name": "n"}]
    (answer,) = answers(OUTPUTS, [body(tensor("a", "FP64", [2], [1, 2]), outputs=asked)], ROWS)
    assert [output["name"] for output in json.loads(answer.body)["outputs"]] == ["n", "label"]


def test_a_non_finite_number_that_an_output_allows_is_null() -> None:
    signature = Signature(inputs=(Column("a", "float"),), outputs=(Column("prediction", "float", non_finite=True),))
    (answer,) = answers(signature, [body(tensor("a", "FP64", [1], [1]))], {"prediction": np.array([np.nan])})
    assert json.loads(answer.body)["outputs"][0]["data"] == [None]


def test_one_failing_row_fails_its_request_and_no_other() -> None:
    problem = error("model-error", "the model raised ValueError for this row", hint="see the log")
    first, second = answers(FLOATS, [body(A, B), body(A, B)], failures={1: problem})
    assert first == Encoded(
        500,
        b'{"error":"1 of 2 rows is refused: the model raised ValueError for this row (see the log)"}',
        row_errors=1,
        code="model-error",
    )
    assert second.status == 200


def test_a_batch_that_fails_as_a_whole_needs_no_outputs() -> None:
    problem = error("model-error", "no")
    (answer,) = answers(FLOATS, [body(A, B)], {}, {0: problem, 1: problem})
    assert (answer.status, answer.row_errors) == (500, 2)


def test_rows_of_an_output_that_differ_in_shape_can_only_be_sent_one_by_one() -> None:
    signature = Signature(inputs=(Column("a", "float"),), outputs=(Tensor("p", "float64", (-1, -1)),))
    ragged = np.empty(3, object)
    ragged[0], ragged[1], ragged[2] = np.ones(1), np.ones(2), np.ones(2)
    one, two = body(tensor("a", "FP64", [1], [1])), body(tensor("a", "FP64", [2], [1, 2]))
    single, pair = answers(signature, [one, two], {"p": ragged})
    assert json.loads(single.body)["outputs"][0] == {"name": "p", "shape": [1, 1], "datatype": "FP64", "data": [1.0]}
    assert json.loads(pair.body)["outputs"][0]["shape"] == [2, 2]
    (three,) = answers(signature, [body(tensor("a", "FP64", [3], [1, 2, 3]))], {"p": ragged})
    assert (three.status, three.code) == (500, "bad-output")
