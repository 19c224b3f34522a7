"""What the model fails on, in the native format: the row, and nothing but the row."""

from __future__ import annotations

import json

from salver.errors import error, problem_json
from tests.unit.test_protocols_native import AGE, answers


def test_a_row_the_model_fails_on_is_answered_in_its_place() -> None:
    problem = error("model-error", "the model raised ValueError for this row")
    one, many, other = answers(
        AGE, [b'{"age":1}', b'[{"age":2},{},{"age":3}]', b'{"age":4}'], failures={0: problem, 2: problem}
    )
    assert (one.status, one.code, one.row_errors) == (500, "model-error", 1)
    assert one.body == problem_json(problem)
    assert (many.status, many.row_errors) == (200, 2)
    assert [list(row) for row in json.loads(many.body)] == [["prediction"], ["error"], ["error"]]
    assert json.loads(many.body)[0] == {"prediction": 1.0}
    assert json.loads(many.body)[2]["error"] == {"code": "model-error", "detail": problem.message}
    assert other.body == b'{"prediction":3.0}'


def test_a_row_the_model_fails_on_refuses_a_strict_list() -> None:
    problem = error("non-finite-output", "churn@7 returned NaN")
    (answer,) = answers(AGE, [b'[{"age":2},{"age":3}]'], failures={1: problem}, options={"strict": "true"})
    assert (answer.status, answer.code, answer.row_errors) == (500, "non-finite-output", 1)
    assert json.loads(answer.body)["detail"] == "1 of 2 rows is refused"


def test_a_batch_that_fails_as_a_whole_needs_no_outputs() -> None:
    problem = error("model-error", "no")
    got = answers(AGE, [b'{"age":1}', b'[{"age":2}]'], {}, failures={0: problem, 1: problem})
    assert [(answer.status, answer.row_errors) for answer in got] == [(500, 1), (200, 1)]
