"""Golden rows: what counts as the same answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from salver import golden
from salver.errors import SalverError
from salver.golden import Row, Rule
from salver.release import Manifest, Tolerance
from salver.signature import Column, Signature, Tensor

SIGNATURE = Signature(
    (Column("age", "int"),),
    (Column("prediction", "float"), Tensor("shares", "float64", (-1, 2)), Column("name", "str", private=True)),
)


def manifest(**changes: Any) -> Manifest:
    return Manifest(1, "churn", SIGNATURE, "function", "m:C", (), "3.11", "sha256:0", **changes)


def answer(prediction: Any = 0.5, shares: Any = None, name: str = "Ada") -> dict[str, Any]:
    return {"prediction": prediction, "shares": shares or [0.25, 0.75], "name": name}


def problems_of(got: list[Any], wanted: list[Any], **rule: Any) -> list[str]:
    rows = [Row({"age": number}, each) for number, each in enumerate(wanted)]
    return golden.compare(msgspec.json.encode(got), rows, manifest(**rule))


def test_rows_survive_writing_and_reading() -> None:
    rows = [Row({"age": 1, "ü\u2028": None}, answer(1e-320)), Row({"age": 2**63}, answer(0.1 + 0.2))]
    assert golden.parse(golden.dump(rows), "golden.jsonl") == rows
    assert msgspec.json.decode(golden.request_body(rows)) == [row.request for row in rows]


@pytest.mark.parametrize("line", [b'{"request": 1}', b'{"request":"\xff","answer":1}', b"\xff\xfe", b"[" * 100_000])
def test_a_line_that_is_no_golden_row_is_named(line: bytes) -> None:
    with pytest.raises(SalverError, match=r"golden.jsonl, line 2") as caught:
        golden.parse(golden.dump([Row(1, 2)]) + line + b"\n", "golden.jsonl")
    assert caught.value.code == "corrupt"


def test_equal_answers_have_no_problems() -> None:
    assert problems_of([answer(), answer()], [answer(), answer()]) == []


@pytest.mark.parametrize(
    ("wanted", "got", "fine"),
    [
        (0.5, 0.5 + 1e-9, True),
        (0.5692410469055176, 0.5692411065101624, True),
        (0.5, 0.50001, False),
        (2, 3, False),
        (2**53, 2**53 + 1, False),
        ("a", "b", False),
    ],
)
def test_an_exact_release_may_differ_as_processors_round_and_no_more(wanted: Any, got: Any, fine: bool) -> None:
    assert (problems_of([answer(got)], [answer(wanted)]) == []) is fine


def test_every_difference_is_listed_with_its_place() -> None:
    got = [answer(0.79), {"prediction": 0.5, "shares": [0.25, 0.5], "extra": 1}]
    assert problems_of(got, [answer(0.81), answer()]) == [
        "row 0, prediction: expected 0.81, got 0.79",
        "row 1, shares[1]: expected 0.75, got 0.5",
        "row 1, name: missing",
        "row 1, extra: not expected",
    ]


def test_a_private_output_is_never_shown() -> None:
    assert problems_of([answer(name="Eve")], [answer()]) == ["row 0, name: differs (private, so not shown)"]


def test_a_failed_row_says_why() -> None:
    failed = {"error": {"code": "model-error", "detail": "the model raised ValueError for this row"}}
    assert problems_of([failed], [answer()]) == ["row 0: model-error: the model raised ValueError for this row"]


def test_too_few_answers_are_a_problem() -> None:
    assert problems_of([answer()], [answer(), answer()]) == ["expected 2 rows, got 1"]


@pytest.mark.parametrize("body", [b"{", b"[1", b"", b'{"prediction": 1}', b"3"])
def test_a_body_that_is_no_list_of_rows_is_a_problem_not_a_crash(body: bytes) -> None:
    assert len(golden.compare(body, [Row({}, answer())], manifest())) == 1


def test_a_refusal_of_the_whole_request_is_quoted() -> None:
    body = b'{"error": {"code": "bad-json", "detail": "no"}}'
    assert golden.compare(body, [Row({}, answer())], manifest()) == ["the request was refused: bad-json: no"]


@pytest.mark.parametrize(("got", "fine"), [(1.0 + 1e-7, True), (1.0 + 1e-5, False), ("1.0", False), (None, False)])
def test_a_tolerance_is_kept_and_not_exceeded(got: Any, fine: bool) -> None:
    rule = {"determinism": "tolerance", "tolerances": {"prediction": Tolerance(1e-6, 0.0)}}
    assert (problems_of([answer(got)], [answer(1.0)], **rule) == []) is fine


def test_an_output_without_a_tolerance_is_exact() -> None:
    rule = {"determinism": "tolerance", "tolerances": {"prediction": Tolerance(1e-6, 0.0)}}
    assert problems_of([answer(shares=[0.25, 0.7500001])], [answer()], **rule)


@pytest.mark.parametrize(("got", "fine"), [(9.5, True), (None, True), ("text", False), (True, False), ([1.0], False)])
def test_schema_only_checks_the_type_and_nothing_else(got: Any, fine: bool) -> None:
    assert (problems_of([answer(got)], [answer(0.5)], determinism="schema-only") == []) is fine


def test_a_bool_is_no_number() -> None:
    assert golden.differences([{"a": True}], [{"a": 1}], Rule()) == ["row 0, a: expected 1, got true"]


def test_two_equal_runs_are_exact() -> None:
    assert golden.classify([answer()], [answer()]) == ("exact", {})


def test_runs_that_differ_in_rounding_get_a_tolerance_with_room() -> None:
    first, second = [answer(100.0)], [answer(100.0 + 1e-9)]
    determinism, tolerances = golden.classify(first, second)
    assert determinism == "tolerance"
    assert tolerances["prediction"] == Tolerance(1e-6, pytest.approx(1e-7))
    assert golden.differences(second, first, Rule(determinism, tolerances)) == []


def test_the_tolerance_grows_with_the_noise() -> None:
    _, tolerances = golden.classify([answer(1.0)], [answer(1.0 + 1e-5)])
    assert tolerances["prediction"].rtol == 1e-4


def test_a_whole_number_that_never_moved_gets_no_tolerance() -> None:
    _, tolerances = golden.classify([{"id": 10**9, "p": 0.5}], [{"id": 10**9, "p": 0.5 + 1e-12}])
    assert list(tolerances) == ["p"]


@pytest.mark.parametrize("second", [answer(0.6), answer(name="Bob"), {"prediction": 0.5}, {"error": {"code": "x"}}])
def test_runs_that_differ_in_more_than_rounding_are_schema_only(second: Any) -> None:
    assert golden.classify([answer()], [second]) == ("schema-only", {})


def test_runs_of_unequal_length_are_schema_only() -> None:
    assert golden.classify([answer()], [answer(), answer()]) == ("schema-only", {})


def test_values_near_zero_may_move_by_what_cancellation_leaves() -> None:
    first = [{"p": 1000.0}, {"p": 0.0}]
    second = [{"p": 1000.0}, {"p": 1e-12}]
    determinism, tolerances = golden.classify(first, second)
    assert determinism == "tolerance"
    assert golden.differences(second, first, Rule(determinism, tolerances)) == []
