"""V1 JSON: instances and inputs in every spelling, the tokens JSON lacks, every refusal with its words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris

from salver.errors import error
from salver.protocols import Encoded
from salver.protocols.rows import MAX_ROWS
from salver.protocols.v1 import PROTOCOL
from salver.signature import Column, Field, Signature, Tensor
from tests.unit.asked import PREDICTION, Asked, one_input

FORMAT = Asked(PROTOCOL)
answers = FORMAT.answers
columns = FORMAT.columns
said = FORMAT.said
TFSERVING = {"dialect": "tfserving"}
FLOATS = Signature(inputs=(Column("a", "float"), Column("b", "float")), outputs=PREDICTION)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":[{"a":1,"b":2},{"b":4,"a":3}]}',
        b'{"instances":[[1,2],[3,4]]}',
        b'{"instances":[[1,2],{"a":3,"b":4}],"signature_name":"serving_default"}',
        b'{"inputs":{"b":[2,4],"a":[1,3],"zz":"ignored"}}',
    ],
)
def test_rows_come_as_objects_or_lists_and_columns_as_arrays(body: bytes) -> None:
    assert columns(FLOATS, body) == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_a_matrix_of_real_rows_arrives_whole() -> None:
    data = load_iris().data
    signature = Signature(inputs=tuple(Column(name, "float") for name in "abcd"), outputs=PREDICTION)
    got = columns(signature, json.dumps({"instances": data.tolist()}).encode())
    assert np.array_equal(np.array(list(got.values())).T, data)


@pytest.mark.parametrize(
    ("field", "body", "expected"),
    [
        (Column("x", "float"), b'{"instances":[1,2.5,[3],{"x":4}]}', [1.0, 2.5, 3.0, 4.0]),
        (Column("x", "str", nullable=True), b'{"instances":["a",null,[null],{"x":"b"}]}', ["a", None, None, "b"]),
        (Column("x", "str", optional=True), b'{"instances":[{},"a"]}', [None, "a"]),
        (Column("x", "float"), b'{"inputs":[1,2]}', [1.0, 2.0]),
        (Column("x", "float"), b'{"inputs":{"x":[1,2]}}', [1.0, 2.0]),
        (Column("x", "category", categories=("a",), enforce=True), b'{"instances":["a",["a"]]}', ["a", "a"]),
        (Tensor("x", "int64", (-1, 2)), b'{"instances":[[1,2],{"x":[3,4]}]}', [[1, 2], [3, 4]]),
        (Tensor("x", "int64", (-1, 2)), b'{"inputs":[[1,2],[3,4]]}', [[1, 2], [3, 4]]),
        (Tensor("x", "int64", (-1,)), b'{"instances":[1,{"x":2}]}', [1, 2]),
        (Tensor("x", "int64", (-1, -1, -1)), b'{"instances":[[[1],[2]],{"x":[[3],[4]]}]}', [[[1], [2]], [[3], [4]]]),
        (Tensor("x", "int64", (-1, -1, -1)), b'{"inputs":[[[1],[2]]]}', [[[1], [2]]]),
        (Tensor("x", "str", (-1, 1)), b'{"instances":[["a"]]}', [["a"]]),
    ],
)
def test_the_only_field_may_come_bare(field: Field, body: bytes, expected: list[Any]) -> None:
    assert columns(one_input(field), body)["x"] == expected


def test_times_come_bare_too() -> None:
    decoded = FORMAT.codec(one_input(Column("x", "datetime"))).decode(
        [b'{"instances":["2024-01-31",["2024-01-31T00:00Z"],{"x":"2024-01-31 01:00+01:00"}]}']
    )
    assert decoded.columns["x"].astype(str).tolist() == ["2024-01-31T00:00:00.000000"] * 3


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":[[NaN,1],[Infinity,-Infinity]]}',
        b'{"instances":[{"a":NaN,"b":1},{"a":Infinity,"b":-Infinity}]}',
        b'{"inputs":{"a":[NaN,Infinity],"b":[1,-Infinity]}}',
    ],
)
def test_tokens_that_json_lacks_are_read(body: bytes) -> None:
    got = columns(FLOATS, body)
    assert np.isnan(got["a"][0])
    assert (got["a"][1], got["b"]) == (np.inf, [1.0, -np.inf])


def test_tokens_in_a_tensor_are_read() -> None:
    for body in (b'{"instances":[[NaN,-Infinity]]}', b'{"inputs":[[NaN,-Infinity]]}'):
        (row,) = columns(one_input(Tensor("x", "float32", (-1, 2))), body)["x"]
        assert np.isnan(row[0])
        assert row[1] == -np.inf


def test_a_token_is_no_int_no_text_and_no_way_around_a_range() -> None:
    assert said(one_input(Column("x", "int")), b'{"instances":[NaN]}') == "$.instances[0]: expected int, got float"
    assert said(one_input(Column("x", "str")), b'{"instances":[NaN]}') == "$.instances[0]: expected str, got float"
    ranged = Column("x", "float", minimum=0.0, enforce=True)
    assert said(one_input(ranged), b'{"instances":[{"x":NaN}]}') == "$.instances[0].x: expected float >= 0.0"


def test_the_word_nan_in_text_is_text() -> None:
    assert columns(one_input(Column("x", "str")), b'{"instances":["NaN","Infinity"]}')["x"] == ["NaN", "Infinity"]


def test_instances_give_predictions_and_inputs_give_outputs() -> None:
    got = answers(FLOATS, [b'{"instances":[[1,2],[3,4]]}', b'{"inputs":{"a":[1],"b":[2]}}', b'{"instances":[]}'])
    assert got == [
        Encoded(200, b'{"predictions":[0.0,1.0]}'),
        Encoded(200, b'{"outputs":[2.0]}'),
        Encoded(200, b'{"predictions":[]}'),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[[1,2],[3,4]]}',
        b'{"inputs":[{"a":1,"b":2},{"b":4,"a":3,"zz":0}]}',
        b'{"inputs":[{"a":{"b64":"MQ=="},"b":2}]}',
        b'{"inputs":[[NaN,2]]}',
        b'{"inputs":[]}',
    ],
)
def test_inputs_that_are_a_list_mean_what_instances_mean(body: bytes) -> None:
    as_instances = body.replace(b'"inputs"', b'"instances"')
    signature = Signature(inputs=(Column("a", "float", nullable=True), Column("b", "float")), outputs=PREDICTION)
    (answer,) = answers(signature, [body])
    (other,) = answers(signature, [as_instances])
    assert (answer.status, answer.body.replace(b"$.inputs", b"$.instances")) == (other.status, other.body)
    assert answer.body.startswith((b'{"predictions":', b'{"error":'))
    if answer.status == 200:
        assert str(columns(signature, body)) == str(columns(signature, as_instances))


def test_in_the_dialect_of_tf_serving_inputs_are_columns_even_as_a_list() -> None:
    signature = one_input(Column("x", "float"))
    (kserve,) = answers(signature, [b'{"inputs":[1,2]}'])
    (tfserving,) = answers(signature, [b'{"inputs":[1,2]}'], options=TFSERVING)
    assert (kserve.body, tfserving.body) == (b'{"predictions":[0.0,1.0]}', b'{"outputs":[0.0,1.0]}')
    (refused,) = answers(FLOATS, [b'{"inputs":[[1,2],[3,4]]}'], options=TFSERVING)
    assert (refused.status, b"expected object with one array per field" in refused.body) == (400, True)


def test_extra_fields_of_inputs_are_counted_like_those_of_instances() -> None:
    codec = FORMAT.codec(FLOATS)
    for body, extra in ((b'{"inputs":[{"a":1,"b":2,"c":3},[1,2]]}', 1), (b'{"inputs":{"a":[1],"b":[2],"c":[3]}}', 1)):
        decoded = codec.decode([body])
        assert decoded.extra is not None
        assert decoded.extra() == extra


EVENT = b'{"specversion":"1.0","type":"t","source":"s","id":"1","data":{"instances":[[1,2]]}%b}'


@pytest.mark.parametrize("more", [b"", b',"x":{"b64":"MQ=="}'])
def test_a_structured_event_is_refused_by_name(more: bytes) -> None:
    (answer,) = answers(FLOATS, [EVENT % more])
    assert answer.status == 415
    assert b"CloudEvent" in answer.body
    named = b'{"specversion":"1.0","instances":[[1,2]]}'
    assert answers(FLOATS, [named])[0].status == 200  # rows are there: it is a field like any other


OUTPUTS = Signature(
    inputs=(Column("a", "float"),),
    outputs=(
        Column("label%", "category"),
        Tensor("p", "float64", (-1, 2), non_finite=True),
        Column("score", "float", non_finite=True, nullable=True),
    ),
)
ROWS = {
    "label%": np.array(["a", "null"], object),
    "p": np.array([[0.25, np.inf], [1, 0]]),
    "score": np.array([-np.inf, np.nan]),
}


def test_several_outputs_are_objects_by_row_or_arrays_by_column() -> None:
    bodies = (b'{"instances":[1,2]}', b'{"inputs":{"a":[1,2]}}')
    rows, by_column = (answers(OUTPUTS, [body], ROWS)[0].body for body in bodies)
    assert rows == (
        b'{"predictions":[{"label%":"a","p":[0.25,Infinity],"score":-Infinity},'
        b'{"label%":"null","p":[1.0,0.0],"score":null}]}'
    )
    assert by_column == (
        b'{"outputs":{"label%":["a","null"],"p":[[0.25,Infinity],[1.0,0.0]],"score":[-Infinity,null]}}'
    )


def test_a_non_finite_number_that_an_output_allows_is_a_token() -> None:
    signature = Signature(inputs=(Column("a", "float"),), outputs=(Column("prediction", "float", non_finite=True),))
    outputs = {"prediction": np.array([np.nan, np.inf, 1.0])}
    (answer,) = answers(signature, [b'{"instances":[1,2,3]}'], outputs)
    assert answer.body == b'{"predictions":[NaN,Infinity,1.0]}'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is not JSON: it ends too early, at byte 0"),
        (b'{"instances":[[1,NaN]', "the body is not JSON: invalid character at byte 17"),
        (b'{"instances":[[1,NaN' + b"[" * 100_000, "the body is not JSON: invalid character at byte 17"),
        (b'{"instances":[NaN,"\xff"]}', "the body is not JSON: invalid character at byte 14"),
        (b'{"instances":' + b"[" * 100_000, "the body is not JSON: nested too deeply"),
        (b"[[1,2]]", "$: expected object, got array"),
        (b"[NaN]", "$: expected object, got array"),
        (b"{}", "$: expected exactly one of instances and inputs"),
        (b'{"instances":[],"inputs":[]}', "$: expected exactly one of instances and inputs"),
        (b'{"instances":[[1,2]],"inputs":{"a":[1],"b":[2]}}', "$: expected exactly one of instances and inputs"),
        (b'{"instances":3}', "$.instances: expected array, got int"),
        (b'{"instances":{"a":NaN}}', "$.instances: expected array, got object"),
        (b'{"instances":[7]}', "$.instances[0]: expected object or array of 2 values, got number"),
        (b'{"instances":[NaN]}', "$.instances[0]: expected object or array of 2 values, got float"),
        (b'{"instances":[[1]]}', "$.instances[0]: expected array of 2 values, got 1 (the values are a, b)"),
        (b'{"instances":[[1,"x"]]}', "$.instances[0][1]: expected float, got str"),
        (b'{"instances":[[NaN,"x"]]}', "$.instances[0][1]: expected float, got str"),
        (b'{"instances":[{"a":1}]}', "$.instances[0].b: required field is missing (the fields are a, b)"),
        (b'{"instances":[{"a":NaN}]}', "$.instances[0].b: required field is missing (the fields are a, b)"),
        (
            b'{"instances":[[1,2],[true,2],[1,2],["x",null]]}',
            "2 of 4 rows are refused: $.instances[1][0]: expected float, got bool;"
            " $.instances[3]: 2 fields are invalid: $.instances[3][0]: expected float, got str;"
            " $.instances[3][1]: expected float, got null",
        ),
        (b'{"inputs":[1]}', "$.inputs[0]: expected object or array of 2 values, got number"),
        (b'{"inputs":1}', "$.inputs: expected object with one array per field, got number"),
        (b'{"inputs":{"a":[1]}}', "$.inputs.b: required input is missing"),
        (b'{"inputs":{"a":[1],"b":[1,2]}}', "$.inputs: arrays differ in length: $.inputs.a has 1, $.inputs.b has 2"),
        (
            b'{"inputs":{"a":[1,"x"],"b":2}}',
            "$.inputs: 2 fields are invalid: $.inputs.a[1]: expected float, got str;"
            " $.inputs.b: expected array, got int",
        ),
        (b'{"inputs":{"a":[NaN,"x"],"b":[1,2]}}', "$.inputs.a[1]: expected float, got str"),
    ],
)
def test_what_does_not_fit_is_refused_as_a_whole(body: bytes, words: str) -> None:
    assert said(FLOATS, body) == words


def test_the_value_of_a_private_field_is_never_in_the_error() -> None:
    field = Column("x", "category", categories=("red",), enforce=True, private=True)
    for body in (
        b'{"instances":["hunter2"]}',
        b'{"instances":[{"x":"hunter2"}],"zz":NaN}',
        b'{"inputs":["hunter2 - at `$[7]`"]}',
        b'{"inputs":["hunter2 - at `$[7]`"],"zz":NaN}',
    ):
        assert said(one_input(field), body).endswith(": expected a known category")
        assert "hunter2" not in said(one_input(field), body)


def test_requests_of_a_batch_get_their_own_rows() -> None:
    got = answers(FLOATS, [b'{"instances":[[1,2]]}', b'{"instances":[[1,2],[3]]}', b'{"inputs":{"a":[1,2],"b":[3,4]}}'])
    assert [answer.status for answer in got] == [200, 400, 200]
    assert got[1].row_errors == 1
    assert got[2].body == b'{"outputs":[1.0,2.0]}'


def test_one_failing_row_fails_its_request_and_no_other() -> None:
    problem = error("non-finite-output", "churn@7 returned NaN")
    first, second = answers(FLOATS, [b'{"instances":[[1,2],[3,4]]}'] * 2, failures={3: problem})
    assert first.status == 200
    assert second == Encoded(
        500, b'{"error":"1 of 2 rows is refused: churn@7 returned NaN"}', row_errors=1, code="non-finite-output"
    )


def test_a_batch_that_fails_as_a_whole_needs_no_outputs() -> None:
    (answer,) = answers(FLOATS, [b'{"instances":[[1,2]]}'], {}, {0: error("model-error", "no")})
    assert (answer.status, answer.body) == (500, b'{"error":"no"}')


@pytest.mark.parametrize(("rows", "status"), [(MAX_ROWS - 1, 200), (MAX_ROWS, 200), (MAX_ROWS + 1, 413)])
@pytest.mark.parametrize(
    ("field", "form", "row"),
    [
        (Column("x", "float"), "instances", b"1"),
        (Column("x", "str"), "instances", b'"a,b,c"'),
        (Column("x", "float"), "instances", b'{"x":1,"zz":[1,{}]}'),
        (Column("x", "float"), "inputs", b"1"),
        (Tensor("x", "float32", (-1, 1, 1)), "instances", b"[[1]]"),
        (Tensor("x", "float32", (-1, 1)), "inputs", b"[1]"),
    ],
)
def test_a_request_may_have_ten_thousand_rows(field: Field, form: str, row: bytes, rows: int, status: int) -> None:
    body = b'{"%b":[%b]}' % (form.encode(), b",".join([row] * rows))
    (answer,) = answers(one_input(field), [body])
    assert answer.status == status
    assert answer.code == ("" if status == 200 else "too-many-rows")


@pytest.mark.parametrize(("rows", "status"), [(MAX_ROWS, 200), (MAX_ROWS + 1, 413)])
@pytest.mark.parametrize("form", [b"instances", b"inputs"])
def test_rows_are_counted_beside_tokens_too(rows: int, status: int, form: bytes) -> None:
    body = b'{"%b":[%b]}' % (form, b",".join([b"NaN"] * rows))
    assert answers(one_input(Column("x", "float")), [body])[0].status == status
