"""The limits of the native format: one less, exactly, one more."""

from __future__ import annotations

import pytest

from salver.errors import error
from salver.protocols import Part
from salver.protocols.rows import MAX_ROWS
from tests.unit.test_protocols_native import AGE, answers


@pytest.mark.parametrize("options", [None, {"strict": "true"}])
@pytest.mark.parametrize(("rows", "status"), [(MAX_ROWS - 1, 200), (MAX_ROWS, 200), (MAX_ROWS + 1, 413)])
def test_a_list_may_have_ten_thousand_rows(rows: int, status: int, options: dict[str, str] | None) -> None:
    for row in (b'{"age":1}', b'{"age":1,"zz":"{{{{"}'):
        (answer,) = answers(AGE, [b" [" + b",".join([row] * rows) + b"]"], options=options)
        assert answer.status == status
        assert answer.code == ("" if status == 200 else "too-many-rows")


@pytest.mark.parametrize(("rows", "status"), [(MAX_ROWS, 200), (MAX_ROWS + 1, 413)])
@pytest.mark.parametrize("padding", [1, 200])
def test_rows_are_counted_whether_they_are_good_or_bad(rows: int, status: int, padding: int) -> None:
    # With the padding the body is above one MiB, where rows are counted without being held.
    (answer,) = answers(AGE, [b"[" + b",".join([b"7" + b" " * padding] * rows) + b"]"])
    assert answer.status == status
    assert answer.row_errors == (rows if status == 200 else 0)


def test_a_large_single_row_is_no_list() -> None:
    (answer,) = answers(AGE, [b'{"zz":[' + b",".join([b"{}"] * (MAX_ROWS + 5)) + b'],"age":1}'])
    assert answer.status == 200


def test_a_part_starts_without_errors_of_its_own() -> None:
    one, two = Part(), Part()
    one.errors[0] = error("invalid-row", "x")
    assert two.errors == {}
