"""Columns: dtypes follow the signature, all-float rows are one matrix, and outputs are held to the signature."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_iris, load_wine

from salver import tables
from salver.errors import SalverError
from salver.signature import Column, Signature, Tensor

FLOATS = (Column("a", "float"), Column("b", "float", nullable=True))


def _signature(*outputs: Column | Tensor) -> Signature:
    return Signature(inputs=(Column("x", "float"),), outputs=outputs)


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        (Column("x", "float"), [1.5, 2.0], np.array([1.5, 2.0])),
        (Column("x", "float", nullable=True), [1.5, None], np.array([1.5, np.nan])),
        (Column("x", "int"), [1, 2**62], np.array([1, 2**62], np.int64)),
        (Column("x", "int", nullable=True), [1, 2], np.array([1.0, 2.0])),
        (Column("x", "int", optional=True), [1, None], np.array([1.0, np.nan])),
        (Column("x", "bool"), [True, False], np.array([True, False])),
        (Column("x", "bool", nullable=True), [True, None], np.array([True, None], object)),
        (Column("x", "str"), ["é", ""], np.array(["é", ""], object)),
        (Column("x", "category", nullable=True), ["a", None], np.array(["a", None], object)),
        (
            Column("x", "datetime", nullable=True),
            [datetime(2024, 1, 31, 12), None],
            np.array(["2024-01-31T12:00:00", "NaT"], "datetime64[us]"),
        ),
        (Column("x", "bytes", nullable=True), [b"a\0", b"", None], np.array([b"a\0", b"", None], object)),
        (Tensor("x", "uint8", (-1, 2)), [[1, 2], [3, 255]], np.array([[1, 2], [3, 255]], np.uint8)),
        (Tensor("x", "str", (-1, 1)), [["a"], ["b"]], np.array([["a"], ["b"]], object)),
        (Tensor("x", "float32", (-1, -1, 2)), [[[1, 2]], [[3, 4]]], np.array([[[1, 2]], [[3, 4]]], np.float32)),
    ],
)
def test_a_column_has_the_dtype_its_field_asks_for(field: Any, values: list[Any], expected: Any) -> None:
    array = tables.column(field, values)
    assert array.dtype == expected.dtype
    assert_array_equal(array, expected)
    assert tables.column(field, []).dtype == expected.dtype
    assert len(tables.column(field, [])) == 0


def test_a_tensor_without_rows_keeps_its_fixed_dimensions() -> None:
    assert tables.column(Tensor("x", "float64", (-1, 3, 4)), []).shape == (0, 3, 4)
    assert tables.column(Tensor("x", "float64", (-1, -1, 4)), []).shape == (0, 0, 4)
    assert tables.column(Tensor("x", "float64", (-1, -1, 4)), [[], []]).shape == (2, 0, 4)


def test_rows_of_a_tensor_that_differ_in_shape_stand_in_an_object_array() -> None:
    array = tables.column(Tensor("x", "int64", (-1, -1)), [[1], [2, 3]])
    assert array.dtype == object
    assert [row.tolist() for row in array] == [[1], [2, 3]]
    assert tables.rows_between({"x": array}, 1, 2)["x"].tolist() == [[2, 3]]
    assert tables.rows_between({"x": array}, 1, 2)["x"].dtype == np.int64


def test_all_float_rows_become_views_of_one_writable_matrix() -> None:
    data = load_iris().data
    names = ["sl", "sw", "pl", "pw"]
    columns = tables.builder(tuple(Column(name, "float") for name in names), tuple)(data.tolist())
    block = tables.matrix(columns, names)
    assert_array_equal(block, data)
    assert block is tables.matrix(columns, tuple(names))
    assert all(np.shares_memory(columns[name], block) for name in names)
    columns["sl"][0] = -1.0
    assert block[0, 0] == -1.0


def test_rows_are_read_from_structs_in_the_order_of_the_fields() -> None:
    row = msgspec.defstruct("Row", [("f0", float), ("f1", str)])
    columns = tables.builder((Column("a", "float"), Column("b", "str")))([row(1.0, "x"), row(2.0, "y")])
    assert {name: values.tolist() for name, values in columns.items()} == {"a": [1.0, 2.0], "b": ["x", "y"]}


def test_a_null_among_floats_is_nan() -> None:
    columns = tables.builder(FLOATS, tuple)([(1.0, None), (2.0, 3.0)])
    assert_array_equal(tables.matrix(columns, ["a", "b"]), [[1.0, np.nan], [2.0, 3.0]])


def test_no_rows_have_columns_all_the_same() -> None:
    assert tables.matrix(tables.builder(FLOATS, tuple)([]), ["a", "b"]).shape == (0, 2)
    mixed = tables.builder((Column("a", "int"), Column("b", "str")), tuple)([])
    assert mixed["a"].dtype == np.int64
    assert len(mixed["b"]) == 0


def test_a_matrix_never_shows_a_column_that_was_replaced_or_moved() -> None:
    columns: Any = tables.builder(FLOATS, tuple)([(1.0, 2.0)])
    assert tables.matrix(columns, ["b", "a"]).tolist() == [[2.0, 1.0]]
    assert tables.matrix(columns, ["b"]).tolist() == [[2.0]]
    columns["a"], columns["b"] = columns["b"], columns["a"]
    assert tables.matrix(columns, ["a", "b"]).tolist() == [[2.0, 1.0]]
    assert tables.rows_between(columns, 0, 1)["a"].tolist() == [2.0]
    assert tables.matrix(tables.concat([columns, columns]), ["a", "b"]).tolist() == [[2.0, 1.0]] * 2


def test_a_matrix_of_numbers_and_bools_is_float64_and_one_of_text_is_refused() -> None:
    columns = {"a": np.array([1, 2]), "b": np.array([True, False])}
    assert tables.matrix(columns, ["a", "b"]).tolist() == [[1.0, 1.0], [2.0, 0.0]]
    with pytest.raises(ValueError):
        tables.matrix({"a": np.array(["x"], object)}, ["a"])


def test_a_slice_of_a_matrix_is_a_matrix_without_a_copy() -> None:
    columns = tables.builder(FLOATS, tuple)([(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)])
    part = tables.rows_between(columns, 1, 3)
    assert tables.matrix(part, ["a", "b"]).tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert np.shares_memory(tables.matrix(part, ["a", "b"]), columns["a"])


def test_concat_keeps_the_order_of_rows_and_dtypes() -> None:
    build = tables.builder(FLOATS, tuple)
    one, two = build([(1.0, 2.0)]), build([(3.0, None), (5.0, 6.0)])
    whole = tables.concat([one, two])
    assert_array_equal(tables.matrix(whole, ["a", "b"]), [[1, 2], [3, np.nan], [5, 6]])
    assert tables.concat([one]) is one
    mixed = tables.concat([{"s": np.array(["x"], object)}, {"s": np.array(["y", "z"], object)}])
    assert mixed["s"].tolist() == ["x", "y", "z"]


def test_concat_of_tensors_whose_rows_differ_keeps_each_row() -> None:
    field = Tensor("x", "int64", (-1, -1))
    parts = [tables.column(field, [[1, 2]]), tables.column(field, [[3]]), tables.column(field, [[4], [5, 6]])]
    whole = tables.concat([{"x": part} for part in parts])["x"]
    assert [row.tolist() for row in whole] == [[1, 2], [3], [4], [5, 6]]
    same = tables.concat([{"x": parts[0]}, {"x": parts[0]}])["x"]
    assert same.tolist() == [[1, 2], [1, 2]]


def test_a_dataframe_has_the_fields_in_their_order_and_pandas_own_text_dtype() -> None:
    fields = (Column("n", "int"), Column("s", "category", categories=("a", "b")), Tensor("t", "float64", (-1, 2)))
    columns = {"s": np.array(["b", "z"], object), "t": np.ones((2, 2)), "n": np.array([1, 2]), "other": np.zeros(2)}
    frame = tables.to_dataframe(columns, fields)
    assert list(frame.columns) == ["n", "s", "t"]
    assert frame["n"].dtype == np.int64
    assert frame["s"].dtype == pd.Series(["b", "z"]).dtype
    assert frame["t"][0].tolist() == [1.0, 1.0]


def test_a_named_categorical_gets_the_signatures_categories() -> None:
    fields = (Column("s", "category", categories=("a", "b")),)
    frame = tables.to_dataframe({"s": np.array(["b", "z"], object)}, fields, categorical={"s"})
    assert list(frame["s"].cat.categories) == ["a", "b"]
    assert frame["s"].isna().tolist() == [False, True]


def test_a_dataframe_of_floats_is_the_matrix_itself() -> None:
    columns = tables.builder(FLOATS, tuple)([(1.0, 2.0)])
    frame = tables.to_dataframe(columns, FLOATS)
    assert np.shares_memory(frame.to_numpy(), tables.matrix(columns, ["a", "b"]))
    assert list(frame.columns) == ["a", "b"]


def test_values_outside_the_training_range_are_counted() -> None:
    watch = tables.unseen_counter(
        (
            Column("a", "float", minimum=0.0, maximum=1.0, nullable=True),
            Column("c", "category", categories=("x",), nullable=True),
            Column("n", "int", maximum=9.0),
            Column("e", "float", minimum=0.0, enforce=True),
            Column("f", "category", categories=("x",), enforce=True),
        )
    )
    assert watch is not None
    columns = {
        "a": np.array([-0.1, 0.0, 1.0, 1.1, np.nan]),
        "c": np.array(["x", "y", None, "z", "x"], object),
        "n": np.array([-(2**62), 9, 10, 0, 0]),
        "e": np.full(5, -1.0),
        "f": np.array(["no"] * 5, object),
    }
    count = watch(columns)
    columns["a"][:], columns["c"][:] = 0.5, "x"  # what a model does with its rows afterwards
    assert count() == 2 + 2 + 1
    assert watch(columns)() == 1


def test_a_matrix_counts_only_in_columns_that_have_a_range_and_do_not_enforce_it() -> None:
    fields = (
        Column("a", "float", minimum=0.0),
        Column("free", "float", nullable=True),
        Column("b", "float", maximum=1.0, nullable=True),
        Column("e", "float", minimum=0.0, maximum=1.0, enforce=True),
    )
    watch = tables.unseen_counter(fields)
    assert watch is not None
    columns = tables.builder(fields, tuple)([(-1.0, -9e9, 2.0, 5.0), (0.0, None, None, 5.0), (1e308, np.inf, 1.0, 5.0)])
    assert isinstance(columns, tables.MatrixColumns)
    count = watch(columns)
    columns.block[:] = 0.5
    assert count() == 2
    assert watch(columns)() == 0
    assert watch(tables.concat([columns, columns]))() == 0


def test_a_signature_without_ranges_has_nothing_to_count() -> None:
    assert tables.unseen_counter((Column("a", "float"), Tensor("t", "float32", (-1,)))) is None


@pytest.mark.parametrize(
    ("field", "raw", "expected"),
    [
        (Column("y", "float"), np.array([1, 2]), np.array([1.0, 2.0])),
        (Column("y", "float"), [0.5, 1], np.array([0.5, 1.0])),
        (Column("y", "float"), np.array([[1.0], [2.0]], np.float32), np.array([1.0, 2.0])),
        (Column("y", "float", nullable=True), [0.5, None], np.array([0.5, np.nan])),
        (Column("y", "float"), pd.Series([0.5, 1.5]), np.array([0.5, 1.5])),
        (Column("y", "float"), pd.DataFrame({"any name": [0.5, 1.5]}), np.array([0.5, 1.5])),
        (Column("y", "float"), {"y": [0.5, 1.5]}, np.array([0.5, 1.5])),
        (Column("y", "int"), np.array([1, 2], np.uint8), np.array([1, 2], np.int64)),
        (Column("y", "int"), np.array([1.0, 2.0]), np.array([1, 2], np.int64)),
        (Column("y", "int", nullable=True), [1, None], np.array([1.0, np.nan])),
        (Column("y", "int", nullable=True), pd.array([1, None], "Int64"), np.array([1.0, np.nan])),
        (Column("y", "bool"), np.array([True, False]), np.array([True, False])),
        (Column("y", "bool", nullable=True), [True, None], np.array([True, None], object)),
        (Column("y", "str"), np.array(["a", "bb"]), np.array(["a", "bb"], object)),
        (Column("y", "category"), pd.Series(["a", "b"], dtype="category"), np.array(["a", "b"], object)),
        (Column("y", "str", nullable=True), pd.Series(["a", None]), np.array(["a", None], object)),
        (
            Column("y", "datetime"),
            [datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), datetime(2024, 1, 2)],
            np.array(["2024-01-01", "2024-01-02"], "datetime64[us]"),
        ),
        (
            Column("y", "datetime", nullable=True),
            pd.Series([pd.Timestamp("2024-01-01T00:00:00Z"), pd.NaT]),
            np.array(["2024-01-01", "NaT"], "datetime64[us]"),
        ),
        (Column("y", "bytes"), [b"a\0", b""], np.array([b"a\0", b""], object)),
        (Column("y", "bytes"), {"y": (b"a\0", b"")}, np.array([b"a\0", b""], object)),
        (Column("y", "bytes"), np.array([b"a", b"bb"]), np.array([b"a", b"bb"], object)),
        (Column("y", "bytes", nullable=True), pd.Series([b"a\0", None]), np.array([b"a\0", None], object)),
        (Tensor("y", "float32", (-1, 2)), [[1.5, 2.0], [3.0, 4.0]], np.array([[1.5, 2], [3, 4]], np.float32)),
        (Tensor("y", "str", (-1, 1)), np.array([["a"], ["b"]]), np.array([["a"], ["b"]], object)),
    ],
)
def test_what_a_model_returns_becomes_a_column_of_the_signature(field: Any, raw: Any, expected: Any) -> None:
    columns = tables.outputs_from(raw, (field,), 2)
    assert list(columns) == ["y"]
    assert columns["y"].dtype == expected.dtype
    assert_array_equal(columns["y"], expected)


@pytest.mark.parametrize(
    ("raw"),
    [
        {"a": [1.0, 2.0], "b": [3.0, 4.0]},
        pd.DataFrame({"b": [3.0, 4.0], "a": [1.0, 2.0]}),
        np.array([[1.0, 3.0], [2.0, 4.0]]),
        [[1.0, 3.0], [2.0, 4.0]],
        (np.array([1.0, 2.0]), [3.0, 4.0]),
    ],
)
def test_several_outputs_come_by_name_by_matrix_or_by_tuple(raw: Any) -> None:
    columns = tables.outputs_from(raw, (Column("a", "float"), Column("b", "float")), 2)
    assert {name: values.tolist() for name, values in columns.items()} == {"a": [1.0, 2.0], "b": [3.0, 4.0]}


@pytest.mark.parametrize(
    ("field", "raw", "code", "words"),
    [
        (Column("y", "float"), [1.0], "row-count", "1 entries of 'y' for 2 rows"),
        (Column("y", "float"), np.zeros(3), "row-count", "3 entries"),
        (Column("y", "float"), 1.0, "bad-output", "one float for 'y'"),
        (Column("y", "float"), None, "bad-output", "one NoneType"),
        (Column("y", "float"), {"z": [1.0, 2.0]}, "bad-output", "columns ['z']; the signature's outputs are ['y']"),
        (Column("y", "float"), {"y": [1.0, 2.0], "z": [1.0, 2.0]}, "bad-output", "columns ['y', 'z']"),
        (Column("y", "float"), ["1.5", "2"], "bad-output", "expected float, got <U3"),
        (Column("y", "float"), [True, False], "bad-output", "expected float, got bool"),
        (Column("y", "float"), np.array([1.0, "x"], object), "bad-output", "expected float, got float and str"),
        (Column("y", "float"), np.zeros((2, 3)), "bad-output", "expected one value per row, got shape [2, 3]"),
        (Column("y", "float"), [[1.0], [2.0, 3.0]], "bad-output", "expected float, got ndarray"),
        (Column("y", "int"), [1.5, 2.0], "bad-output", "numbers that aren't whole"),
        (Column("y", "int"), [np.nan, 2.0], "bad-output", "numbers that aren't whole"),
        (Column("y", "int"), np.array([1, 2**63], np.uint64), "bad-output", "above 2^63 - 1"),
        (Column("y", "int"), np.array([1, 2**64], object), "bad-output", "outside 64 bits"),
        (Column("y", "int"), np.array([1, None], object), "bad-output", "aren't whole"),
        (Column("y", "bool"), [0, 1], "bad-output", "expected bool, got int64"),
        (Column("y", "str"), [1, 2], "bad-output", "expected str, got int64"),
        (Column("y", "str"), np.array(["a", None], object), "bad-output", "expected str, got null and str"),
        (Column("y", "str"), ["a", "\ud800"], "bad-output", "lone surrogate"),
        (Column("y", "datetime"), ["2024-01-01", "x"], "bad-output", "expected datetime, got <U10"),
        (Column("y", "datetime"), np.array(["2024-01-01", "NaT"], "datetime64[us]"), "bad-output", "got NaT"),
        (Column("y", "bytes"), ["a", "b"], "bad-output", "expected bytes, got str"),
        (Column("y", "bytes"), [b"a", None], "bad-output", "expected bytes, got bytes and null"),
        (Column("y", "bytes"), np.zeros(2), "bad-output", "expected bytes, got float64"),
        (Tensor("y", "float32", (-1, 2)), np.zeros((2, 3)), "bad-output", "rows of shape [2], got [3]"),
        (Tensor("y", "int64", (-1,)), np.zeros(2), "bad-output", "expected int64, got float64"),
        (Tensor("y", "str", (-1,)), np.zeros(2), "bad-output", "expected str, got float64"),
    ],
)
def test_what_does_not_fit_the_signature_is_refused_with_words(field: Any, raw: Any, code: str, words: str) -> None:
    with pytest.raises(SalverError) as caught:
        tables.outputs_from(raw, (field,), 2)
    assert caught.value.code == code
    assert words in caught.value.message


def test_every_output_that_does_not_fit_is_named() -> None:
    with pytest.raises(SalverError) as caught:
        tables.outputs_from({"a": ["x"], "b": [1]}, (Column("a", "float"), Column("b", "str")), 1)
    assert caught.value.message == "output 'a': expected float, got <U1; output 'b': expected str, got int64"


def test_rows_of_a_free_tensor_output_may_differ_in_shape() -> None:
    field = Tensor("y", "float64", (-1, -1))
    rows = tables.outputs_from([[1.0], [2.0, 3.0]], (field,), 2)["y"]
    assert [row.tolist() for row in rows] == [[1.0], [2.0, 3.0]]


def test_a_models_predictions_on_real_data_pass_unchanged() -> None:
    target = load_wine().target
    columns = tables.outputs_from(target, (Column("class", "int"),), len(target))
    assert columns["class"].dtype == np.int64
    assert_array_equal(columns["class"], target)


@pytest.mark.parametrize(
    ("field", "values", "bad"),
    [
        (Column("y", "float"), np.array([1.0, np.nan, np.inf, -np.inf]), [1, 2, 3]),
        (Column("y", "float"), np.array([1.0, 2.0]), []),
        (Column("y", "float", non_finite=True), np.array([np.nan, np.inf]), []),
        (Column("y", "float", nullable=True), np.array([np.nan, np.inf]), [1]),
        (Column("y", "int", nullable=True), np.array([np.nan, 1.0]), []),
        (Column("y", "int"), np.array([1, 2]), []),
        (Column("y", "str"), np.array(["nan", "x"], object), []),
        (Tensor("y", "float32", (-1, 2)), np.array([[1, 2], [np.nan, 2]], np.float32), [1]),
        (Tensor("y", "float32", (-1, 2), non_finite=True), np.array([[np.nan, 2]], np.float32), []),
        (Tensor("y", "int64", (-1, 1)), np.array([[1]]), []),
        (
            Tensor("y", "float64", (-1, -1)),
            tables.column(Tensor("y", "float64", (-1, -1)), [[1.0], [np.inf, 1.0]]),
            [1],
        ),
    ],
)
def test_rows_with_a_non_finite_output_are_found_unless_it_is_allowed(field: Any, values: Any, bad: list[int]) -> None:
    assert tables.check_finite({"y": values}, _signature(field)) == bad


def test_a_row_is_bad_when_any_of_its_outputs_is() -> None:
    outputs = {"a": np.array([1.0, np.nan, 1.0]), "b": np.array([np.inf, 1.0, 1.0])}
    assert tables.check_finite(outputs, _signature(Column("a", "float"), Column("b", "float"))) == [0, 1]


def test_an_aware_time_and_its_utc_time_are_the_same_output() -> None:
    field = (Column("y", "datetime"),)
    aware = tables.outputs_from([datetime(2024, 1, 1, tzinfo=UTC)], field, 1)
    naive = tables.outputs_from([datetime(2024, 1, 1)], field, 1)
    assert_array_equal(aware["y"], naive["y"])
