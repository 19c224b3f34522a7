"""SageMaker's records in RecordIO, judged by protobuf itself: what a record means, and which are refused with why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from salver import plugins
from salver.errors import SalverError
from salver.limits import BODY
from salver.protocols import Part, Subject
from salver.protocols.recordio import MOST_FIELDS
from salver.protocols.rows import MAX_ROWS
from salver.signature import Column, Field, Signature, Tensor
from tests.unit.records import MAGIC, Record, UnpackedRecord, frame, framed, labels, record

NUMBERS: tuple[Field, ...] = (Column("a", "float"), Column("b", "int"), Column("c", "float", nullable=True))
GOOD = record([1.5, 2, 3])
SEAM = MAGIC.to_bytes(4, "little")


def read(body: bytes, *fields: Field) -> tuple[Part, dict[str, list[Any]]]:
    part, columns, _ = counted(body, *fields)
    return part, columns


def counted(body: bytes, *fields: Field) -> tuple[Part, dict[str, list[Any]], int]:
    signature = Signature(fields or NUMBERS, (Column("p", "float"),))
    codec = plugins.protocol("recordio").codec(Subject("m", 1, "function", signature))
    decoded = codec.decode([body], {"endpoint": "invocations"})
    extra = decoded.extra() if decoded.extra is not None else 0
    return decoded.parts[0], {name: array.tolist() for name, array in decoded.columns.items()}, extra


def refused(body: bytes, *fields: Field) -> SalverError:
    failure = read(body, *fields)[0].failure
    assert failure is not None
    return failure


@pytest.mark.parametrize("of", [Record, UnpackedRecord])
@pytest.mark.parametrize("kind", ["float32_tensor", "float64_tensor", "int32_tensor"])
def test_a_dense_record_holds_the_columns_in_order_in_any_tensor_packed_or_not(kind: str, of: Any) -> None:
    body = framed(record([5, 2, -3], kind=kind, of=of), record([7, -(2**31), 4], kind=kind, of=of))
    part, columns = read(body)
    assert part.failure is None, part.failure
    assert columns == {"a": [5.0, 7.0], "b": [2, -(2**31)], "c": [-3.0, 4.0]}


@pytest.mark.parametrize("of", [Record, UnpackedRecord])
def test_a_sparse_record_names_places_and_lacks_nulls_or_zeros(of: Any) -> None:
    body = framed(record([8], [1], [3], of=of), record([9, 5], [2, 0], of=of), record([], [], [3], of=of))
    part, columns = read(body)
    assert part.failure is None, part.failure
    assert (columns["a"], columns["b"]) == ([0.0, 5.0, 0.0], [8, 0, 0])
    assert str(columns["c"]) == "[nan, 9.0, nan]"


def test_many_places_are_read_as_few_are() -> None:
    keys = np.random.default_rng(7).permutation(70_000)[:5000].tolist()
    part, columns = read(framed(record(range(5000), keys, [70_000])), Tensor("x", "int32", (-1, 70_000)))
    assert part.failure is None, part.failure
    row = np.zeros(70_000)
    row[keys] = range(5000)
    assert columns["x"] == [row.tolist()]


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_a_record_is_a_row_of_the_only_tensor(shape: tuple[int, ...]) -> None:
    part, columns = read(framed(record(range(6), (), shape)), Tensor("x", "uint8", (-1, 2, 3)))
    assert part.failure is None, part.failure
    assert columns == {"x": [[[0, 1, 2], [3, 4, 5]]]}


def test_a_free_dimension_is_what_the_records_say() -> None:
    free = Tensor("x", "float32", (-1, -1))
    assert read(framed(record([1, 2]), record([3], [1], [2])), free)[1] == {"x": [[1.0, 2.0], [0.0, 3.0]]}
    assert "that of the first [2]" in refused(framed(record([1, 2]), record([1, 2, 3])), free).message
    assert "sparse and has no shape" in refused(framed(record([1], [1])), free).message
    assert (
        "expected shape [-1, 2], got [4]" in refused(framed(record(range(4))), Tensor("x", "int8", (-1, -1, 2))).message
    )


def test_labels_are_ignored_and_other_features_counted() -> None:
    made = Record.FromString(GOOD)
    made.features["age"].int32_tensor.values.append(1)
    part, columns, extra = counted(framed(made.SerializeToString(), GOOD))
    assert part.failure is None, part.failure
    assert (columns["a"], extra) == ([1.5, 1.5], 1)


def test_parts_of_a_message_are_merged_as_protobuf_does() -> None:
    twice = record([1.0]) + record([2, 3, 4])  # of equal keys of a map the last counts
    other = Record()
    other.features["values"].bytes.value.append(b"x")
    for payload in (twice, other.SerializeToString() + record([2, 3, 4])):
        assert read(framed(payload))[1]["a"] == [2.0]
    wrong = refused(framed(record([2, 3, 4]) + other.SerializeToString()))
    assert "no feature 'values'" in wrong.message


def test_what_sagemakers_sdk_wrote_is_read() -> None:
    """Bytes of its `write_numpy_to_dense_tensor` with labels, and of its `write_spmatrix_to_sparse_tensor`."""
    dense = bytes.fromhex(
        "0a23d7ce300000000a1a0a0676616c7565731210120e0a0c0000c03f000000400000404012120a06"
        "76616c756573120812060a040000803f"
    )
    sparse = bytes.fromhex(
        "0a23d7ce200000000a1e0a0676616c75657312143a120a0afeffffffffffffffff011201011a0103"
        "0a23d7ce110000000a0f0a0676616c75657312053a031a0103000000"
    )
    part, columns = read(dense + sparse)
    assert part.failure is None, part.failure
    assert (columns["a"], columns["b"]) == ([1.5, 0.0, 0.0], [2, -2, 0])
    assert str(columns["c"]) == "[3.0, nan, nan]"


def test_a_record_that_mxnet_split_at_the_magic_number_is_whole() -> None:
    torn = bytes.fromhex("0a23d7ce100000200a1a0a0676616c7565731210120e0a0c0a23d7ce0a00006000000040000040401a000000")
    part, columns = read(torn + frame(GOOD))
    assert part.failure is None, part.failure
    assert columns["a"] == [float(np.frombuffer(SEAM, "<f4")[0]), 1.5]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"x", "ends within its head"),
        (frame(GOOD)[:-4], "longer than the body"),
        (frame(GOOD) + b"\0\0\0\0", "ends within its head"),
        (b"\0" + frame(GOOD), "does not begin with 0a23d7ce"),
        (frame(GOOD, 1), "ends within a record of several parts"),
        (frame(GOOD, 2), "no part of a record that can stand there"),
        (frame(GOOD, 3), "no part of a record that can stand there"),
        (frame(GOOD, 5), "no part of a record that can stand there"),
        (frame(GOOD, 1) + frame(GOOD), "no part of a record that can stand there"),
        (framed(GOOD, GOOD[:-3]), "record 2: "),
        (framed(GOOD, b""), "record 2: it has no feature 'values'"),
        (framed(GOOD, b"\xff" * 8), "record 2: "),
        (framed(GOOD, record([1, 2, 3], feature="other")), "record 2: it has no feature 'values'"),
        (framed(record([1, 2])), "expected 3 values, got 2"),
        (framed(record([1, 2, 3, 4])), "4 numbers, more than 3"),
        (framed(record([])), "expected 3 values, got 0"),
        (framed(record([1], [3], [3])), "from 0 to 2"),
        (framed(record([1], [2**64 - 1], [3])), "from 0 to 2"),
        (framed(record([1, 2], [1, 1], [3])), "there once"),
        (framed(record([1, 2], [1], [3])), "1 keys and 2 values"),
        (framed(record([1], [1], [4])), "expected shape [3], got [4]"),
        (framed(record([1, 2, 3], [], [1, 3])), "expected shape [3], got [1, 3]"),
        (framed(record([1, 2, 3], [], [1] * 33)), "33 numbers, more than 32"),
        (framed(b"\x0a\x0e\x0a\x06values\x12\x04\x12\x02\x0a\x00\x00"), "record 1: "),
        (framed(b"\x0a\x11\x0a\x06values\x12\x07\x12\x05\x0a\x03abc"), "in the middle of one"),
        (framed(b"\x0a\x10\x0a\x06values\x12\x06\x3a\x04\x0a\x02\x01\xff"), "in the middle of one"),
    ],
)
def test_what_is_no_frame_or_no_record_refuses_the_body_and_is_named(body: bytes, said: str) -> None:
    failure = refused(body)
    assert failure.code == "bad-protocol-body"
    assert failure.message.startswith("the body is no RecordIO of protobuf records: ")
    assert said in failure.message


def test_a_value_that_does_not_fit_its_column_is_a_bad_row() -> None:
    nan = float("nan")
    part, columns = read(framed(GOOD, record([nan, 2, nan]), record([1, 2.5, 3]), record([1, 2, nan])))
    assert part.failure is None
    assert (part.rows, list(part.errors), columns["a"]) == (4, [1, 2], [1.5, 1.0])
    assert part.errors[1].message == "row 2, column a: expected float, got null"
    assert part.errors[2].message == "row 3, column b: expected int of 64 bits, got another number"


@pytest.mark.parametrize("value", [1.5, 300, float("nan"), float("inf"), -1])
def test_a_tensor_of_integers_takes_whole_numbers_in_its_range(value: float) -> None:
    assert refused(framed(record([value, 1])), Tensor("x", "uint8", (-1, 2))).code == "invalid-row"


@pytest.mark.parametrize("field", [Column("s", "str"), Tensor("x", "str", (-1, 2)), Tensor("x", "bool", (-1, 2))])
def test_a_signature_that_no_record_can_hold_is_told_what_can(field: Field) -> None:
    assert refused(framed(GOOD), field).hint == "send JSON, CSV or Arrow"


def test_rows_and_values_are_counted_before_they_are_made() -> None:
    assert read(framed(GOOD) * MAX_ROWS)[0].rows == MAX_ROWS
    assert read(b"")[0].rows == 0
    assert refused(framed(GOOD) * MAX_ROWS + b"x").code == "too-many-rows"
    assert refused(frame(b"", 1) + frame(b"", 2) * 3 * MAX_ROWS).code == "too-many-rows"
    wide = Tensor("x", "float32", (-1, BODY.elements // 8))
    assert refused(framed(record([1], [0], [BODY.elements // 8])) * 9, wide).code == "too-large"
    free = Tensor("x", "float32", (-1, -1, -1))
    for shape in ([2**63, 2], [2**32, 2**32], [BODY.elements, 2]):
        assert refused(framed(record([1], [0], shape)), free).code == "too-large"


def test_fields_are_counted_in_all_records_together() -> None:
    odd = b"\x30\x01" * 200_000  # an unknown field
    assert refused(framed(*[odd + GOOD] * (MOST_FIELDS // 200_000 + 1))).code == "too-large"


def written(outputs: tuple[Field, ...], **arrays: Any) -> list[dict[str, tuple[str, list[float], list[int]]]]:
    given = {name: np.asarray(array) for name, array in arrays.items()}
    count = len(next(iter(given.values())))
    return labels(plugins.protocol("recordio").writer(outputs).write(given, count, "invocations"))


def test_an_only_output_is_the_score_or_the_label_that_was_predicted() -> None:
    assert written((Column("p", "float"),), p=[0.5, 2.0]) == [
        {"score": ("float32_tensor", [0.5], [])},
        {"score": ("float32_tensor", [2.0], [])},
    ]
    assert written((Column("p", "int"),), p=[3]) == [{"predicted_label": ("float32_tensor", [3.0], [])}]
    assert written((Column("p", "bool", nullable=True),), p=np.array([True], object)) == [
        {"predicted_label": ("float32_tensor", [1.0], [])}
    ]
    assert written((Tensor("p", "float64", (-1, 2)),), p=[[0.25, 0.75]]) == [
        {"score": ("float32_tensor", [0.25, 0.75], [])}
    ]
    assert written((Column("p", "float"),), p=np.empty(0)) == []


def test_several_outputs_have_their_names_and_a_matrix_its_shape() -> None:
    outputs = (Column("score", "float"), Column("predicted_label", "int"), Tensor("m", "float32", (-1, 2, 200)))
    (row,) = written(outputs, score=[0.5], predicted_label=[1], m=np.arange(400.0, dtype="f4").reshape(1, 2, 200))
    assert row == {
        "score": ("float32_tensor", [0.5], []),
        "predicted_label": ("float32_tensor", [1.0], []),
        "m": ("float32_tensor", list(range(400)), [2, 200]),
    }


def test_what_32_bits_would_change_or_overflow_has_64() -> None:
    nullable = Column("p", "int", nullable=True)
    assert written((Column("p", "int"),), p=[1, 2**24 + 1])[1]["predicted_label"][:2] == ("float64_tensor", [2**24 + 1])
    assert written((nullable,), p=[np.nan, 2.0**24 + 1])[1]["predicted_label"][0] == "float64_tensor"
    assert written((nullable,), p=[np.nan, 5.0])[1]["predicted_label"][:2] == ("float32_tensor", [5.0])
    assert written((Column("p", "float"),), p=[1e300])[0]["score"][:2] == ("float64_tensor", [1e300])
    assert written((Column("p", "float"),), p=[np.inf])[0]["score"][:2] == ("float32_tensor", [np.inf])


@pytest.mark.parametrize("field", [Column("p", "str"), Column("p", "datetime"), Tensor("p", "float32", (-1, -1))])
def test_outputs_that_are_no_numbers_are_not_acceptable(field: Field) -> None:
    with pytest.raises(SalverError) as caught:
        plugins.protocol("recordio").writer((field,))
    assert caught.value.code == "not-acceptable"
