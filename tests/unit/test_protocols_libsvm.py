"""LIBSVM text: what a line means, and which lines and which signatures it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from salver import plugins
from salver.limits import BODY
from salver.protocols import Part, Subject
from salver.protocols.rows import MAX_ROWS
from salver.signature import Column, Field, Signature, Tensor

NUMBERS: tuple[Field, ...] = (Column("a", "float"), Column("b", "int"), Column("c", "float", nullable=True))


def read(body: bytes, *fields: Field) -> tuple[Part, dict[str, list[Any]]]:
    signature = Signature(fields or NUMBERS, (Column("p", "float"),))
    codec = plugins.protocol("libsvm").codec(Subject("m", 1, "function", signature))
    decoded = codec.decode([body], {"endpoint": "invocations"})
    return decoded.parts[0], {name: array.tolist() for name, array in decoded.columns.items()}


def test_indexes_begin_at_0_and_the_label_is_ignored_wherever_it_is() -> None:
    part, columns = read(b"1 0:5.5 1:2 2:1e-3\n0:7 1:3 2:4\n\n-1.5 2:9 1:8 0:6 # a comment\n")
    assert part.failure is None
    assert columns == {"a": [5.5, 7.0, 6.0], "b": [2, 3, 8], "c": [1e-3, 4.0, 9.0]}


def test_what_a_line_lacks_is_null_where_null_is_allowed_and_0_else() -> None:
    part, columns = read(b"0\n1 0:1\n")
    assert (part.rows, columns["a"], columns["b"]) == (2, [0.0, 1.0], [0, 0])
    assert str(columns["c"]) == "[nan, nan]"


@pytest.mark.parametrize(("dtype", "expected"), [("float32", [0.0, 0.0, 5.0]), ("uint8", [0, 0, 5])])
def test_a_line_is_a_row_of_the_only_tensor(dtype: str, expected: list[float]) -> None:
    part, columns = read(b"1 2:5\n", Tensor("x", dtype, (-1, 3)))
    assert part.failure is None
    assert columns == {"x": [expected]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"3:1", "from 0 to 2"),
        (b"-1:1", "from 0 to 2"),
        (b"0:1 0:2", "there once"),
        (b"0:1 1:1 2:1 2:1", "at most 3 pairs"),
        (b"1:2:3 4", "no label and pairs"),
        (b"0:1_0", "at most 3 pairs"),
        (b"label 0:1", "no label and pairs"),
        (b"qid:1 0:1", "no label and pairs"),
        (b"0:", "no label and pairs"),
        (b"0:nan", "not finite"),
        (b"0:1e999", "not finite"),
        (b"9" * 5000 + b":1", "no label and pairs"),
    ],
)
def test_a_line_that_is_none_refuses_the_body_and_is_named(line: bytes, said: str) -> None:
    part, _ = read(b"0:1\n" + line)
    assert part.failure is not None
    assert part.failure.code == "bad-protocol-body"
    assert part.failure.message.startswith("line 2 is no LIBSVM")
    assert said in part.failure.message


def test_a_value_that_does_not_fit_its_column_is_a_bad_row() -> None:
    part, columns = read(b"0:1 1:2\n0:1 1:2.5\n0:3 1:4\n")
    assert (part.rows, list(part.errors), columns["a"]) == (3, [1], [1.0, 3.0])
    assert "row 2, column b" in part.errors[1].message


@pytest.mark.parametrize(
    "field",
    [
        Column("s", "str"),
        Tensor("x", "float32", (-1, 2, 2)),
        Tensor("x", "float32", (-1, -1)),
        Tensor("x", "str", (-1, 2)),
    ],
)
def test_a_signature_that_no_line_can_hold_is_told_what_can(field: Field) -> None:
    part, _ = read(b"0:1\n", field)
    assert part.failure is not None
    assert part.failure.hint == "send JSON, CSV or Arrow"


def test_rows_and_values_are_counted_before_a_line_is_read() -> None:
    assert read(b"0:1\n" * MAX_ROWS)[0].rows == MAX_ROWS
    too_many, _ = read(b"x\n" * (MAX_ROWS + 1))
    assert too_many.failure is not None
    assert too_many.failure.code == "too-many-rows"
    wide = Tensor("x", "float32", (-1, BODY.elements // 8))
    assert read(b"0:1\n" * 8, wide)[0].failure is None
    large, _ = read(b"x\n" * 9, wide)
    assert large.failure is not None
    assert large.failure.code == "too-large"
