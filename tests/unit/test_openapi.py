"""The API's description says what its answers hold."""

from __future__ import annotations

import json

from salver.errors import error, problem_json
from salver.gateway.openapi import PROBLEM


def test_the_schema_of_a_problem_has_every_key_that_problems_have() -> None:
    problem = json.loads(problem_json(error("invalid-row", "2 rows are refused", hint="look", details=("a", "b"))))
    assert set(problem) == set(PROBLEM["properties"])
    for key, schema in PROBLEM["properties"].items():
        assert type(problem[key]) is {"string": str, "integer": int, "array": list}[schema["type"]]
