"""The limits of the V2 format: one less, exactly, one more."""

from __future__ import annotations

import pytest

from salver.protocols.rows import MAX_ROWS
from salver.protocols.v2.datatypes import MAX_TENSORS
from salver.signature import Column, Tensor
from tests.unit.asked import one_input
from tests.unit.test_protocols_v2 import FORMAT, answers, body, said, tensor


@pytest.mark.parametrize(("rows", "status"), [(MAX_ROWS - 1, 200), (MAX_ROWS, 200), (MAX_ROWS + 1, 413)])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_request_may_have_ten_thousand_rows(rows: int, status: int, depth: int) -> None:
    given = tensor("a", "FP64", [rows] + [1] * (depth - 1), [1] * rows)
    (answer,) = answers(one_input(Column("a", "float")), [body(given)])
    assert answer.status == status


@pytest.mark.parametrize(("count", "status"), [(MAX_TENSORS - 1, 200), (MAX_TENSORS, 200), (MAX_TENSORS + 1, 413)])
def test_a_request_may_have_256_tensors(count: int, status: int) -> None:
    more = [tensor(f"t{number}", "FP64", [1], [1]) for number in range(count - 1)]
    (answer,) = answers(one_input(Column("a", "float")), [body(tensor("a", "FP64", [1], [1]), *more)])
    assert answer.status == status


@pytest.mark.parametrize(("width", "status"), [(4096, 400), (4097, 413)])
def test_a_tensor_may_promise_sixteen_mebi_elements(width: int, status: int) -> None:
    # 4,096 x 4,096 is the limit; the data itself is absent, which is only found for a shape that is allowed.
    given = tensor("x", "FP32", [4096, width], [])
    (answer,) = answers(one_input(Tensor("x", "float32", (-1, -1))), [body(given)])
    assert answer.status == status
    assert answer.code == ("bad-protocol-body" if status == 400 else "too-large")


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ([1, 2**40, 2**40], "too-large"),
        ([1, 2**63 - 1, 2**63 - 1], "too-large"),
        ([0, 2**63 - 1, 1], "too-large"),
        ([0, 4097, 4096], "too-large"),
        ([1, 2**63, 1], "bad-protocol-body"),
        ([1, 10**4000, 10**4000], "bad-protocol-body"),
        ([1, -(2**63), 2**63 - 1], "bad-protocol-body"),
        ([1, 0, -1], "bad-protocol-body"),
        ([1] * 100_000, "bad-protocol-body"),
    ],
)
def test_a_huge_shape_is_refused_by_arithmetic_alone(shape: list[int], code: str) -> None:
    signature = one_input(Tensor("x", "float32", (-1, -1, -1)))
    given = tensor("x", "FP32", shape, [])
    (answer,) = answers(signature, [body(given)])
    assert answer.code == code
    del given["data"]
    head = body({**given, "parameters": {"binary_data_size": 0}})
    (answer,) = FORMAT.answers(signature, [head], options={"header_length": str(len(head))})
    assert answer.code == code


def test_long_data_that_does_not_match_its_shape_is_refused_before_it_is_read() -> None:
    given = tensor("x", "FP64", [2], [1] * 600_000)
    refused = said(one_input(Column("x", "float")), body(given))
    assert refused == "$.inputs[0]: shape [2] needs 2 elements, data has 600000"
    fine = tensor("x", "FP64", [1000, 600], [1] * 600_000)
    assert answers(one_input(Tensor("x", "float64", (-1, 600))), [body(fine)])[0].status == 200
