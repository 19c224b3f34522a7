"""The native format: every rule with the exact bytes of its answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from salver.errors import SalverError
from salver.protocols import Encoded
from salver.protocols.native import PROTOCOL
from salver.signature import Column, Field, Signature, Tensor
from tests.unit.asked import PREDICTION, Asked, one_input

FORMAT = Asked(PROTOCOL)
answers = FORMAT.answers
AGE = Signature(inputs=(Column("age", "int"),), outputs=PREDICTION)


def refused(signature: Signature, body: bytes, options: dict[str, str] | None = None) -> dict[str, Any]:
    """The problem that a request with this body gets."""
    (answer,) = answers(signature, [body], options=options)
    assert answer.content_type == "application/problem+json"
    problem: dict[str, Any] = json.loads(answer.body)
    assert problem["status"] == answer.status
    assert problem["code"] == answer.code
    return problem


def value(field: Field, text: str) -> Any:
    """What the model gets for one row whose only field is this JSON text."""
    decoded = FORMAT.codec(one_input(field)).decode([b'{"x":%b}' % text.encode()])
    assert decoded.parts[0].failure is None, decoded.parts[0].failure
    return decoded.columns["x"].tolist()[0]


def complaint(field: Field, text: str) -> str:
    """What is said of a row whose only field is this JSON text."""
    return str(refused(one_input(field), b'{"x":%b}' % text.encode())["detail"])


def test_a_row_is_answered_with_an_object() -> None:
    assert answers(AGE, [b'{"age":3}']) == [Encoded(200, b'{"prediction":0.0}')]


def test_a_list_is_answered_with_a_list_of_the_same_length_in_order() -> None:
    (answer,) = answers(AGE, [b'[{"age":3},{"age":4},{"age":5}]'])
    assert answer == Encoded(200, b'[{"prediction":0.0},{"prediction":1.0},{"prediction":2.0}]')


def test_an_empty_list_is_answered_with_an_empty_list() -> None:
    assert answers(AGE, [b" [ ]"]) == [Encoded(200, b"[]")]


def test_each_output_is_a_key_in_the_signatures_order() -> None:
    signature = Signature(
        inputs=(Column("age", "int"),),
        outputs=(Column("label", "category"), Tensor("p", "float64", (-1, 2)), Column("größe%", "int", nullable=True)),
    )
    outputs = {
        "größe%": np.array([3.0, np.nan]),
        "p": np.array([[0.25, 0.75], [1.0, 0.0]]),
        "label": np.array(['a"\n', "b"], object),
    }
    (answer,) = answers(signature, [b'[{"age":1},{"age":2}]'], outputs)
    assert answer.body.decode() == (
        '[{"label":"a\\"\\n","p":[0.25,0.75],"größe%":3},{"label":"b","p":[1.0,0.0],"größe%":null}]'
    )


def test_times_are_answered_in_utc() -> None:
    signature = Signature(inputs=(Column("age", "int"),), outputs=(Column("when", "datetime", nullable=True),))
    outputs = {"when": np.array(["2024-01-31T12:00:00.5", "NaT"], "datetime64[us]")}
    (answer,) = answers(signature, [b'[{"age":1},{"age":2}]'], outputs)
    assert answer.body == b'[{"when":"2024-01-31T12:00:00.500000Z"},{"when":null}]'


def test_a_non_finite_number_that_an_output_allows_is_null() -> None:
    signature = Signature(inputs=(Column("age", "int"),), outputs=(Column("prediction", "float", non_finite=True),))
    (answer,) = answers(signature, [b'[{"age":1},{"age":2}]'], {"prediction": np.array([np.nan, -np.inf])})
    assert answer.body == b'[{"prediction":null},{"prediction":null}]'


def test_requests_of_a_batch_get_their_own_rows() -> None:
    bodies = [b'{"age":1}', b"[]", b'[{"age":2},{"age":3}]', b"x", b'{"age":4}']
    got = answers(AGE, bodies)
    assert [answer.body for answer in got if answer.status == 200] == [
        b'{"prediction":0.0}',
        b"[]",
        b'[{"prediction":1.0},{"prediction":2.0}]',
        b'{"prediction":3.0}',
    ]
    assert got[3].status == 400


def test_a_body_that_would_be_two_rows_when_joined_to_others_is_refused() -> None:
    got = answers(AGE, [b'{"age":1},{"age":2}', b'{"age":3}'])
    assert [answer.status for answer in got] == [400, 200]
    assert got[1].body == b'{"prediction":0.0}'


def test_parts_tell_where_the_valid_rows_are() -> None:
    decoded = FORMAT.codec(AGE).decode([b'{"age":1}', b'[{"age":"x"},{"age":2},{}]', b"[", b'{"age":5}'])
    assert decoded.count == 3
    assert decoded.columns["age"].tolist() == [1, 2, 5]
    assert [(part.start, part.count, part.rows) for part in decoded.parts] == [
        (0, 1, 1),
        (1, 1, 3),
        (0, 0, 0),
        (2, 1, 1),
    ]
    assert sorted(decoded.parts[1].errors) == [0, 2]


def test_a_bad_row_in_a_list_is_answered_in_its_place() -> None:
    (answer,) = answers(AGE, [b'[{"age":1},{"age":"x"},7,{"age":2}]'])
    assert answer.status == 200
    assert answer.row_errors == 2
    assert answer.body == (
        b'[{"prediction":0.0},'
        b'{"error":{"code":"invalid-row","detail":"$[1].age: expected int, got str"}},'
        b'{"error":{"code":"invalid-row","detail":"$[2]: expected object, got int"}},'
        b'{"prediction":1.0}]'
    )


def test_a_list_of_bad_rows_only_needs_no_outputs() -> None:
    (answer,) = answers(AGE, [b"[{}]"], {})
    assert (answer.status, answer.row_errors) == (200, 1)


def test_strict_refuses_the_whole_list_and_names_all_bad_rows() -> None:
    problem = refused(AGE, b'[{"age":1},{"age":"x"},7]', {"strict": "true"})
    assert problem == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "code": "invalid-row",
        "detail": "2 of 3 rows are refused",
        "details": ["$[1].age: expected int, got str", "$[2]: expected object, got int"],
    }


@pytest.mark.parametrize(("bad", "told"), [(19, 19), (20, 20), (21, 21)])
def test_strict_names_up_to_twenty_bad_rows(bad: int, told: int) -> None:
    details = refused(AGE, b"[" + b",".join([b"7"] * bad) + b"]", {"strict": "true"})["details"]
    assert len(details) == told
    assert details[-1] == ("and 1 more" if bad > 20 else f"$[{bad - 1}]: expected object, got int")


def test_a_strict_list_without_bad_rows_is_answered() -> None:
    (answer,) = answers(AGE, [b'[{"age":1}]'], options={"strict": "true"})
    assert answer == Encoded(200, b'[{"prediction":0.0}]')


def test_strict_can_only_be_true_or_false() -> None:
    assert answers(AGE, [b'[{"age":1},{}]'], options={"strict": "false"})[0].row_errors == 1
    assert refused(AGE, b"[]", {"strict": "maybe"})["detail"] == "strict is 'maybe'; it can be true or false"


def test_rows_refused_under_strict_never_reach_the_model() -> None:
    decoded = FORMAT.codec(AGE).decode([b'[{"age":1},{}]', b'{"age":9}'], {"strict": "true"})
    assert decoded.columns["age"].tolist() == [9]
    assert decoded.parts[1].start == 0


def test_a_single_bad_row_is_a_422_with_every_problem() -> None:
    signature = Signature(
        inputs=(Column("age", "int"), Column("name", "str"), Column("x", "float")), outputs=PREDICTION
    )
    problem = refused(signature, b'{"age":1.5,"x":[1]}')
    assert problem["status"] == 422
    assert problem["detail"] == "$: 3 fields are invalid"
    assert problem["details"] == [
        "$.age: expected int, got float",
        "$.name: required field is missing",
        "$.x: expected float, got array",
    ]
    assert problem["hint"] == "the fields are age, name, x"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is not JSON: it ends too early, at byte 0"),
        (b'{"age":', "the body is not JSON: it ends too early, at byte 7"),
        (b'{"age":1,}', "the body is not JSON: trailing comma in object at byte 9"),
        (b'{"age":NaN}', "the body is not JSON: NaN at byte 7"),
        (b'[{"age":1},{"age":Infinity}]', "the body is not JSON: Infinity at byte 18"),
        (b'{"age":-Infinity}', "the body is not JSON: -Infinity at byte 8"),
        (b"NaN", "the body is not JSON: NaN at byte 0"),
        (b'{"age":N}', "the body is not JSON: invalid character at byte 7"),
        (b'[{"age":1},', "the body is not JSON: it ends too early, at byte 11"),
        (b'[{"age":"x"},{"age":}]', "the body is not JSON: invalid character at byte 20"),
        (b"\xff", "the body is not JSON: invalid character at byte 0"),
        (b"\xef\xbb\xbf{}", "the body is not JSON: invalid character at byte 0"),
        (b'{"zz":' + b"[" * 100_000, "the body is not JSON: nested too deeply"),
        (b"[" * 100_000, "the body is not JSON: nested too deeply"),
        (b'{"zz":' * 100_000, "the body is not JSON: nested too deeply"),
    ],
)
def test_a_body_that_is_not_json_is_a_400_with_its_position(body: bytes, detail: str) -> None:
    problem = refused(AGE, body)
    assert (problem["status"], problem["code"], problem["detail"]) == (400, "bad-json", detail)


def test_a_number_that_json_lacks_is_named_with_what_to_send() -> None:
    assert refused(AGE, b'{"age":NaN}')["hint"] == "JSON has no NaN and no infinity; a missing value is null"
    assert "hint" not in refused(AGE, b'{"age":N}')


def test_what_follows_a_row_is_not_overlooked() -> None:
    assert refused(AGE, b'{"age":1} {"age":2}')["detail"].startswith(
        "the body is not JSON: trailing characters at byte "
    )


def test_text_that_is_not_utf8_is_a_400_with_its_position() -> None:
    problem = refused(one_input(Column("x", "str")), b'{"x":"ab\xffcd"}')
    assert (problem["code"], problem["detail"]) == ("bad-json", "the body is not JSON: not UTF-8 at byte 8")


def test_a_row_that_is_not_json_refuses_the_whole_list_whatever_the_other_rows_are() -> None:
    for body in (b'[{"x":"a"},{"x":"ab\xff"}]', b'[{"x":7},{"x":"ab\xff"}]'):
        problem = refused(one_input(Column("x", "str")), body)
        assert (problem["status"], problem["code"]) == (400, "bad-json")
        assert " is not JSON: not UTF-8 at byte " in problem["detail"]
    assert answers(one_input(Column("x", "str")), [b'[{"x":"a"},{"x":"ab\xff"}]', b'{"x":"b"}'])[1].status == 200


@pytest.mark.parametrize("body", [b"3", b'"x"', b"null", b"true"])
def test_a_body_that_is_neither_row_nor_list_is_a_422(body: bytes) -> None:
    assert refused(AGE, body)["code"] == "invalid-row"


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        (Column("x", "float"), "1", 1.0),
        (Column("x", "float"), "-1.5e-3", -0.0015),
        (Column("x", "float"), "123456789012345678901234567890", 1.2345678901234568e29),
        (Column("x", "int"), str(2**63 - 1), 2**63 - 1),
        (Column("x", "int"), str(-(2**63)), -(2**63)),
        (Column("x", "bool"), "true", True),
        (Column("x", "str"), '"\\u00e9\\ud83d\\ude00"', "é😀"),
        (Column("x", "str"), '""', ""),
        (Column("x", "str", nullable=True), "null", None),
        (Column("x", "bool", nullable=True), "null", None),
        (Column("x", "category", categories=("a",)), '"never seen"', "never seen"),
        (Column("x", "category", categories=("a", "b"), enforce=True), '"b"', "b"),
        (Column("x", "float", minimum=0.0, maximum=1.0), "7", 7.0),
        (Column("x", "float", minimum=0.0, maximum=1.0, enforce=True), "1", 1.0),
        (Column("x", "int", minimum=0.5, maximum=2.5, enforce=True), "1", 1),
        (Tensor("x", "uint8", (-1, 2)), "[0,255]", [0, 255]),
        (Tensor("x", "float32", (-1, 1, 2)), "[[1,0.5]]", [[1.0, 0.5]]),
        (Tensor("x", "bool", (-1,)), "true", True),
        (Tensor("x", "str", (-1, 1)), '["a"]', ["a"]),
        (Tensor("x", "uint64", (-1, 1)), f"[{2**64 - 1}]", [2**64 - 1]),
        (Tensor("x", "uint64", (-1,)), f"{2**64 - 1}", 2**64 - 1),
        (Tensor("x", "int64", (-1, -1, 2)), "[[1,2],[3,4]]", [[1, 2], [3, 4]]),
        (Tensor("x", "int64", (-1, -1, -1)), "[[1,2],[3,4]]", [[1, 2], [3, 4]]),
        (Tensor("x", "int64", (-1, -1)), "[]", []),
    ],
)
def test_a_value_of_the_right_type_reaches_the_model(field: Field, text: str, expected: Any) -> None:
    assert value(field, text) == expected


def test_a_null_number_reaches_the_model_as_nan() -> None:
    assert np.isnan(value(Column("x", "float", nullable=True), "null"))
    assert np.isnan(value(Column("x", "int", nullable=True), "null"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-31T12:00:00Z", "2024-01-31T12:00:00"),
        ("2024-01-31T12:00:00.123456", "2024-01-31T12:00:00.123456"),
        ("2024-01-31T12:00+02:00", "2024-01-31T10:00"),
        ("2024-01-31 12:00", "2024-01-31T12:00"),
        ("2024-01-31", "2024-01-31"),
    ],
)
def test_iso_8601_times_reach_the_model_in_utc(text: str, expected: str) -> None:
    decoded = FORMAT.codec(one_input(Column("x", "datetime"))).decode([json.dumps({"x": text}).encode()])
    assert decoded.columns["x"][0] == np.datetime64(expected, "us")


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        (Column("x", "float"), '"1.5"', "$.x: expected float, got str"),
        (Column("x", "float"), "true", "$.x: expected float, got bool"),
        (Column("x", "float"), "null", "$.x: expected float, got null"),
        (Column("x", "float"), "1e999", "$.x: number out of range"),
        (Column("x", "float", nullable=True), '"1.5"', "$.x: expected float | null, got str"),
        (Column("x", "int"), "true", "$.x: expected int, got bool"),
        (Column("x", "int"), "1.0", "$.x: expected int, got float"),
        (Column("x", "int"), str(2**63), "$.x: expected int <= 9223372036854775807"),
        (Column("x", "int"), str(-(2**63) - 1), "$.x: expected int >= -9223372036854775808"),
        (Column("x", "int"), "9" * 5000, "$.x: integer value out of range"),
        (Column("x", "bool"), "1", "$.x: expected bool, got int"),
        (Column("x", "str"), "1", "$.x: expected str, got int"),
        (Column("x", "datetime"), '"31.1.2024"', "$.x: expected datetime in ISO 8601, got other text"),
        (Column("x", "datetime"), '"0001-01-01T00:00+14:00"', "$.x: expected datetime in ISO 8601, got other text"),
        (Column("x", "datetime"), "1706702400", "$.x: expected datetime, got int"),
        (Column("x", "category", categories=("a", "b"), enforce=True), '"c"', "$.x: expected one of 'a', 'b'"),
        (Column("x", "float", minimum=0.0, enforce=True), "-0.1", "$.x: expected float >= 0.0"),
        (Column("x", "int", minimum=0.5, maximum=2.5, enforce=True), "3", "$.x: expected int <= 2"),
        (Tensor("x", "uint8", (-1, 2)), "[0,256]", "$.x[1]: expected int <= 255"),
        (Tensor("x", "float32", (-1, 2)), "[0,1e39]", "$.x[1]: expected float <= 3.4028234663852886e+38"),
        (Tensor("x", "float32", (-1, 2)), "[0]", "$.x: expected array of length >= 2"),
        (Tensor("x", "float32", (-1, 2, 1)), '[[0],["a"]]', "$.x[1][0]: expected float, got str"),
        (Tensor("x", "float32", (-1, 2)), "3", "$.x: expected array, got int"),
        (Tensor("x", "uint64", (-1, 1)), f"[{2**64}]", "$.x: expected uint64, got a number out of range"),
        (
            Tensor("x", "int64", (-1, -1, -1)),
            "[[1],[2,3]]",
            "$.x: expected arrays of equal length, got different lengths",
        ),
        (Tensor("x", "int64", (-1, -1, -1)), '[[1],["a"]]', "$.x[1][0]: expected int, got str"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_path(field: Field, text: str, said: str) -> None:
    assert complaint(field, text) == said


def test_the_value_of_a_field_is_never_in_the_error_even_if_it_looks_like_a_path() -> None:
    field = Column("x", "category", categories=("red", "green"), enforce=True, private=True)
    for secret in ("hunter2", "x - at `$.hunter2`", "x' - at `$[7]`"):
        assert complaint(field, json.dumps(secret)) == "$.x: expected a known category"


def test_a_missing_field_is_refused_unless_it_is_optional() -> None:
    signature = Signature(
        inputs=(
            Column("a", "float", nullable=True),
            Column("b", "float", optional=True),
            Column("c", "str", optional=True),
        ),
        outputs=PREDICTION,
    )
    assert refused(signature, b'{"b":1}')["detail"] == "$.a: required field is missing"
    decoded = FORMAT.codec(signature).decode([b'{"a":null}', b'{"a":1,"b":null,"c":"x"}'])
    assert np.isnan(decoded.columns["b"]).all()
    assert decoded.columns["c"].tolist() == [None, "x"]


def test_extra_fields_are_ignored() -> None:
    assert answers(AGE, [b'{"zz":{"age":[1,"x"]},"age":3,"":null}'])[0].status == 200


@pytest.mark.parametrize("body", [b'{"age":1,"age":2}', b'{"age":"x","age":2}', b'[{"age":null,"age":2}]'])
def test_the_last_of_duplicate_keys_wins(body: bytes) -> None:
    assert FORMAT.codec(AGE).decode([body]).columns["age"].tolist() == [2]


@pytest.mark.parametrize("name", ["class", "größe 1", "a.b", "😀", "f0", "self", "0", " ", "%s"])
def test_any_name_that_json_can_spell_plainly_may_be_a_field(name: str) -> None:
    signature = Signature(inputs=(Column(name, "int"), Column("f1", "int")), outputs=(Column(name, "float"),))
    (answer,) = answers(signature, [json.dumps({name: 1, "f1": 2}).encode()], {name: np.array([0.5])})
    assert json.loads(answer.body) == {name: 0.5}


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_name_that_needs_escapes_in_json_is_refused_when_the_release_is_loaded(name: str) -> None:
    with pytest.raises(SalverError) as caught:
        FORMAT.codec(one_input(Column(name, "int")))
    assert caught.value.code == "bad-signature"
