"""What is asked to tell two models apart, and when two answers count as the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from salver.accelerate import compare, edges
from salver.accelerate.evidence import FORMAT, Compared, Evidence
from salver.release import Tolerance
from salver.signature import Column, Tensor

AGE = Column("age", "float", nullable=True, minimum=18.0, maximum=68.0)
JOB = Column("job", "category", categories=("fixed", "other"))
ROWS = [{"age": 20.0, "job": "fixed"}, {"age": None, "job": "other"}, {"age": 60.5, "job": "fixed"}]
TIGHT = {"score": Tolerance(1e-5, 1e-6)}


def floats(*values: float) -> dict[str, Any]:
    return {"score": np.array(values)}


def test_edge_rows_hold_nulls_unseen_categories_and_values_beyond_both_ends() -> None:
    rows = edges.edge_rows((AGE, JOB), ROWS)
    ages = [row["age"] for row in rows]
    numbers = [age for age in ages if age is not None]
    assert None in ages
    assert min(numbers) < 18 < 68 < max(numbers)
    assert {"", "fixed", "other"} < {row["job"] for row in rows}


def test_edge_rows_hold_neighbours_that_only_a_double_tells_apart() -> None:
    values = [value for value in edges.specials(AGE) if value is not None]
    rounded = {float(np.float32(value)) for value in values if abs(value) < 1e30}
    assert len(rounded) < len(values)


def test_the_same_sample_gives_the_same_edge_rows() -> None:
    assert edges.edge_rows((AGE, JOB), ROWS) == edges.edge_rows((AGE, JOB), ROWS)


def test_an_enforced_column_gets_no_value_that_would_be_refused() -> None:
    field = Column("age", "float", minimum=0.0, maximum=1.0, enforce=True)
    assert all(0 <= value <= 1 for value in edges.specials(field))
    assert list(edges.specials(Column("job", "category", categories=("a",), enforce=True))) == ["a"]


def test_a_column_without_null_never_gets_one() -> None:
    assert all(row["job"] is not None for row in edges.edge_rows((AGE, JOB), ROWS))


def test_the_split_of_a_step_function_is_found_to_the_last_bit() -> None:
    threshold = 41.123456789
    columns = {"age": np.array([20.0, 30.0]), "job": np.array(["fixed", "other"], object)}

    def scores(given: Any, count: int) -> Any:
        del count
        return (given["age"] <= threshold).astype(float).reshape(-1, 1)

    rows = edges.split_rows(scores, (AGE, JOB), columns, [{"age": 20.0, "job": "fixed"}, {"age": 30.0, "job": "other"}])
    found = {row["age"] for row in rows}
    assert threshold in found
    assert float(np.nextafter(threshold, np.inf)) in found


def test_a_model_without_jumps_has_no_rows_beside_splits() -> None:
    columns = {"age": np.array([20.0])}
    rows = edges.split_rows(lambda _, count: np.zeros((count, 1)), (AGE,), columns, [{"age": 20.0}])
    assert rows == []


def test_answers_are_equal_close_or_neither() -> None:
    found = compare.alike(floats(1.0, 1.0, 1.0, np.nan), floats(1.0, 1.000001, 1.1, np.nan), TIGHT, 4)
    assert found.equal.tolist() == [True, False, False, True]
    assert found.close.tolist() == [True, True, False, True]


def test_a_class_is_never_merely_close() -> None:
    one, other = {"prediction": np.array(["a"], object)}, {"prediction": np.array(["b"], object)}
    assert not compare.alike(one, other, {}, 1).close[0]


def test_a_number_between_the_originals_own_answers_nearby_is_at_a_boundary() -> None:
    assert compare.near_boundary(floats(1.0, 2.0), floats(1.5), TIGHT)
    assert not compare.near_boundary(floats(1.0, 2.0), floats(2.1), TIGHT)


def test_a_class_is_at_a_boundary_only_where_the_original_gives_it_nearby_or_ties() -> None:
    near = {"prediction": np.array(["a", "a"], object), "shares": np.array([[0.6, 0.4], [0.6, 0.4]])}
    allowed = {"shares": Tolerance(1e-5, 1e-6)}
    answer = {"prediction": np.array(["b"], object), "shares": np.array([[0.6, 0.4]])}
    assert not compare.near_boundary(near, answer, allowed)
    assert compare.near_boundary({**near, "prediction": np.array(["a", "b"], object)}, answer, allowed)
    tie = np.array([[0.5, 0.5], [0.5, 0.5]])
    assert compare.near_boundary({**near, "shares": tie}, {**answer, "shares": tie[:1]}, allowed)


def test_neighbours_differ_from_a_row_by_no_more_than_the_distance() -> None:
    row = {"age": np.array([40.0]), "job": np.array(["fixed"], object)}
    near, count = compare.around(row, (AGE, JOB), 1e-6)
    assert count == len(near["age"]) > 30
    assert 0 < np.abs(near["age"] - 40.0).max() <= 40.0 * 1.001e-6
    assert set(near["job"]) == {"fixed"}


def test_whole_numbers_have_no_neighbours() -> None:
    near, _ = compare.around({"n": np.array([3.0])}, (Column("n", "int", nullable=True),), 1e-6)
    assert set(near["n"]) == {3.0}


def test_tolerances_are_stated_for_outputs_of_fractions_only() -> None:
    outputs = (Column("prediction", "str"), Tensor("probabilities", "float64", (-1, 2)))
    expected = {"prediction": np.array(["a"], object), "probabilities": np.array([[0.25, 0.75]])}
    found = compare.tolerances(outputs, expected, 1e-5)
    assert found == {"probabilities": Tolerance(1e-5, 7.5e-7)}


def test_one_different_row_forbids_the_acceleration_and_boundaries_do_not() -> None:
    def evidence(**counts: int) -> Evidence:
        compared = Compared("examples", 10, **{"equal": 9, "close": 0, "boundary": 0, "refused": 0, **counts})
        return Evidence(FORMAT, "sha256:0", {}, 1e-6, {}, {}, [compared], [])

    assert evidence(boundary=1, different=0).holds
    assert not evidence(different=1).holds
