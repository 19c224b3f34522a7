"""Fields that the signature does not have: ignored in answers, counted after them, in every wire format."""

from __future__ import annotations

import json
from typing import Any

import pytest

from salver.protocols import Codec, Subject
from salver.protocols.extra import MOST_NAMES, MOST_TYPES, ExtraFields
from salver.protocols.native import PROTOCOL as NATIVE
from salver.protocols.rows import RowType
from salver.protocols.v1 import PROTOCOL as V1
from salver.protocols.v2.codec import PROTOCOL as V2
from salver.signature import Column, Signature, Tensor

INPUTS = (Column("a", "float"), Column("b", "int", optional=True))
SUBJECT = Subject("m", 1, "function", Signature(inputs=INPUTS, outputs=(Column("y", "float"),)))
ROW = {"a": 1.5, "b": 2}


def counted(codec: Codec, *bodies: Any, options: dict[str, str] | None = None) -> int:
    """Decode the bodies as one batch and count; text stands for itself, anything else for its JSON."""
    data = [body.encode() if isinstance(body, str) else json.dumps(body).encode() for body in bodies]
    decoded = codec.decode(data, options)
    return decoded.extra() if decoded.extra is not None else 0


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        (ROW, 0),
        ({"a": 1}, 0),
        (ROW | {"x": 1}, 1),
        (ROW | {"x": {"deep": [1, {"er": None}]}, "y": None}, 2),
        ({"a": 1, "x": 1}, 1),
        ('{"a": 1, "a": 2}', 0),
        ('{"a": 1, "x": 1, "x": 2}', 1),
        ('{"a": 1, "x": 1e999}', 1),
        ([ROW, ROW | {"x": 1}, {"a": 1, "y": 2, "z": 3}], 3),
        ([], 0),
        ([ROW | {"x": 1}, {"b": 1, "x": 2}, 7], 2),
    ],
)
def test_native_rows_count_the_keys_that_are_no_fields(body: Any, extra: int) -> None:
    codec = NATIVE.codec(SUBJECT)
    for _ in range(3):  # strictly, with nothing learned, and with what was learned
        assert counted(codec, body) == extra


def test_a_refused_request_counts_nothing() -> None:
    codec = NATIVE.codec(SUBJECT)
    assert counted(codec, {"b": 1, "x": 1}) == 0
    assert counted(codec, '{"a": 1, "x": 1') == 0
    assert counted(codec, [ROW | {"x": 1}, {}], options={"strict": "true"}) == 0
    assert counted(codec, [ROW | {"x": 1}], options={"strict": "true"}) == 1


def test_a_batch_counts_all_its_requests_whatever_each_of_them_is() -> None:
    codec = NATIVE.codec(SUBJECT)
    batch = (ROW, ROW | {"x": 1}, [ROW | {"x": 1, "y": 2}, ROW], {"a": "bad", "x": 1}, ROW | {"z": 1})
    for _ in range(3):
        assert counted(codec, *batch) == 4
        assert counted(codec, *[ROW] * 64) == 0
        assert counted(codec, *[ROW] * 63, ROW | {"x": 1}) == 1


def test_rows_and_errors_are_the_same_with_and_without_extra_fields_seen_before() -> None:
    bodies = [
        json.dumps(body).encode()
        for body in (ROW | {"x": 1}, {"a": 1, "x": 2}, {"a": "t", "x": 1}, {"x": 1}, [ROW, {"a": None, "x": 1}], 7)
    ] + [b'{"a": 1, "a": 2, "x": 3}', b'{"x": 1, "a": 1', b'{"x": "\xff", "a": 1}']
    codec = NATIVE.codec(SUBJECT)
    seen = []
    for _ in range(3):
        one_by_one = [codec.decode([body]) for body in bodies]
        together = codec.decode(bodies)
        seen.append(
            [
                [(part.failure, part.errors, part.rows) for each in one_by_one for part in each.parts],
                [(part.failure, part.errors, part.rows) for part in together.parts],
                {name: values.tolist() for name, values in together.columns.items() if name == "a"},
            ]
        )
        assert together.extra is not None
        together.extra()
    assert repr(seen[0]) == repr(seen[1]) == repr(seen[2])
    assert seen[0][2] == {"a": [1.5, 1.0, 1.5, 2.0, 1.0]}


def test_without_extra_fields_nothing_is_left_to_count() -> None:
    assert NATIVE.codec(SUBJECT).decode([b'{"a": 1}'] * 3).extra is None
    assert V1.codec(SUBJECT).decode([b'{"instances": [{"a": 1}, {"a": 1, "b": 2}]}']).extra is None
    assert V1.codec(SUBJECT).decode([b'{"instances": [[1, 2], [3, null]]}']).extra is None


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        ({"instances": [ROW, {"a": 1}]}, 0),
        ({"instances": [ROW | {"x": 1}, {"a": 1, "y": 2}]}, 2),
        ({"instances": [[1, 2], ROW | {"x": 1}]}, 1),
        ({"instances": [[1, 2]], "more": 1}, 0),
        ('{"instances": [{"a": NaN, "x": Infinity}]}', 1),
        ({"inputs": {"a": [1, 2], "b": [3, None]}}, 0),
        ({"inputs": {"a": [1, 2], "x": ["p", "q"]}}, 1),
        ({"instances": [ROW | {"x": 1}, {"x": 1}]}, 0),
        ({"instances": []}, 0),
    ],
)
def test_v1_counts_the_keys_of_instances_and_the_columns_that_are_no_fields(body: Any, extra: int) -> None:
    codec = V1.codec(SUBJECT)
    for _ in range(3):
        assert counted(codec, body) == extra


def test_v1_values_of_an_only_field_have_no_keys() -> None:
    only = Signature(inputs=(Tensor("t", "float32", (-1, 2)),), outputs=(Column("y", "float"),))
    codec = V1.codec(Subject("m", 1, "function", only))
    assert counted(codec, {"instances": [[1, 2], [3, 4]]}) == 0
    assert counted(codec, {"inputs": [[1, 2], [3, 4]]}) == 0
    assert counted(codec, {"instances": [{"t": [1, 2], "x": [[1], [2]]}]}) == 1


def test_v2_counts_the_inputs_that_are_no_fields() -> None:
    codec = V2.codec(SUBJECT)
    a = {"name": "a", "shape": [2], "datatype": "FP64", "data": [1, 2]}
    assert counted(codec, {"inputs": [a]}) == 0
    assert counted(codec, {"inputs": [a, a | {"name": "x"}, a | {"name": "y"}]}, {"inputs": [a]}) == 2
    assert counted(codec, {"inputs": [a | {"name": "x"}]}) == 0  # refused


def test_a_v2_matrix_of_all_columns_has_no_extra_field_whatever_its_name() -> None:
    floats = Signature(inputs=(Column("a", "float"), Column("b", "float")), outputs=(Column("y", "float"),))
    codec = V2.codec(Subject("m", 1, "function", floats))
    assert counted(codec, {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}) == 0


def test_names_are_learned_within_limits_and_counted_exactly_beyond_them() -> None:
    extra = ExtraFields(RowType(INPUTS))
    many = json.dumps({"a": 1} | {f"x{i}": i for i in range(MOST_NAMES + 1)}).encode()
    assert [extra.count([many]) for _ in range(3)] == [MOST_NAMES + 1] * 3
    for number in range(MOST_TYPES + 5):
        assert extra.count([json.dumps({"a": 1, f"new{number}": 1}).encode()]) == 1
    assert extra.count([b'{"a": 1, "new0": 1, "new99": 1, "\\"": 0}']) == 3
