"""V2 over gRPC: messages of the generated classes in, messages of the generated classes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from salver.errors import error
from salver.protocols import Encoded, Subject
from salver.protocols.v2.grpc import PROTOCOL
from salver.signature import Column, Signature, Tensor

NUMBERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
FLOATS = ("FP32", "FP64")
CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint"),
    **{name: name.lower() for name in ("INT64", "UINT64", "FP32", "FP64", "BOOL", "BYTES")},
}
DTYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BOOL": "?"} | {
    name: np.dtype(name.lower()).newbyteorder("<").str for name in NUMBERS
}
MIXED = Signature(
    (
        Column("amount", "float", nullable=True),
        Column("count", "int", optional=True),
        Column("name", "str", nullable=True),
        Column("fine", "bool"),
        Column("at", "datetime"),
    ),
    (Column("score", "float"), Column("label", "str", nullable=True), Column("rank", "int", nullable=True)),
)


ONE = (Column("y", "float"),)


def codec(inputs: Any, outputs: Any = ONE) -> Any:
    return PROTOCOL.codec(Subject("m", 7, "function", Signature(tuple(inputs), tuple(outputs))))


def request(**more: Any) -> Any:
    return service_pb2.ModelInferRequest(model_name="m", **more)


def add(message: Any, name: str, datatype: str, shape: list[int], values: list[Any], *, raw: bool = False) -> Any:
    tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
    if not raw:
        getattr(tensor.contents, CONTENTS[datatype] + "_contents").extend(values)
    elif datatype == "BYTES":
        message.raw_input_contents.append(serialize_byte_tensor(np.array(values, np.object_)).item())
    else:
        message.raw_input_contents.append(np.array(values, DTYPES[datatype]).tobytes())
    return tensor


def decoded(reader: Any, message: Any) -> Any:
    body = message if isinstance(message, bytes) else message.SerializeToString()
    return reader.decode([body])


def problem(reader: Any, message: Any) -> Any:
    [part] = decoded(reader, message).parts
    assert part.failure is not None
    return part.failure


def answers(reader: Any, message: Any, outputs: Mapping[str, Any], failures: Any = None) -> list[Encoded]:
    found: list[Encoded] = reader.encode(decoded(reader, message), outputs, failures or {})
    return found


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("datatype", [*NUMBERS, *FLOATS])
def test_every_number_is_read_as_it_was_sent(datatype: str, raw: bool) -> None:
    kind = np.dtype(DTYPES[datatype])
    values = [1.5, -2.25, 0.0] if datatype in FLOATS else [int(np.iinfo(kind).min), int(np.iinfo(kind).max), 1]
    message = request()
    add(message, "x", datatype, [3], values, raw=raw)
    columns = decoded(codec([Tensor("x", kind.name, (-1,))]), message).columns
    assert columns["x"].tolist() == values


def test_many_packed_integers_are_read_like_few() -> None:
    values = [(-1) ** n * (1 << n % 63) for n in range(500)]
    message = request()
    add(message, "x", "INT64", [500], values)
    assert decoded(codec([Column("x", "int")]), message).columns["x"].tolist() == values


@pytest.mark.parametrize("raw", [False, True])
def test_columns_of_every_type_and_their_nulls(raw: bool) -> None:
    message = request()
    add(message, "amount", "FP64", [2], [1.5, float("nan")], raw=raw)
    add(message, "count", "INT32", [2, 1], [3, 0], raw=raw).parameters["nulls"].string_param = "1"
    add(message, "name", "BYTES", [2], ["ä".encode(), b""], raw=raw).parameters["nulls"].string_param = "1"
    add(message, "fine", "BOOL", [2], [True, False], raw=raw)
    add(message, "at", "BYTES", [2], [b"2020-01-02T03:04:05Z"] * 2, raw=raw)
    reader = PROTOCOL.codec(Subject("m", 7, "function", MIXED))
    columns = decoded(reader, message).columns
    assert columns["amount"][0] == 1.5
    assert np.isnan(columns["amount"][1])
    assert columns["count"][0] == 3
    assert np.isnan(columns["count"][1])
    assert columns["name"].tolist() == ["ä", None]
    assert columns["fine"].tolist() == [True, False]
    assert str(columns["at"][0]).startswith("2020-01-02T03:04:05")


def test_half_precision_is_raw_only() -> None:
    reader = codec([Tensor("x", "float32", (-1,))])
    message = request()
    add(message, "x", "FP16", [2], [1.5, -2.0], raw=True)
    assert decoded(reader, message).columns["x"].tolist() == [1.5, -2.0]
    message = request(raw_input_contents=[(np.array([1.5], "<f4").view("<u4") >> 16).astype("<u2").tobytes()])
    message.inputs.add(name="x", datatype="BF16", shape=[1])
    assert decoded(reader, message).columns["x"].tolist() == [1.5]
    message = request()
    message.inputs.add(name="x", datatype="FP16", shape=[1]).contents.fp32_contents.append(1.5)
    assert "raw_input_contents" in problem(reader, message).message


def test_one_matrix_may_stand_for_all_float_columns() -> None:
    message = request()
    add(message, "anything", "FP32", [2, 3], [1, 2, 3, 4, 5, 6], raw=True)
    columns = decoded(codec([Column(name, "float") for name in "abc"]), message).columns
    assert [columns[name].tolist() for name in "abc"] == [[1, 4], [2, 5], [3, 6]]


def test_unpacked_and_unknown_fields_are_read_as_protobuf_says() -> None:
    tensor = b"\x0a\x01x\x12\x04FP64\x18\x01\x2a\x09\x39" + np.array([2.5]).tobytes()
    body = b"\x0a\x01m\x2a" + bytes([len(tensor)]) + tensor + b"\xf8\x07\x01" + b"\x9b\x06\x08\x01\x9c\x06"
    assert decoded(codec([Column("x", "float")]), body).columns["x"].tolist() == [2.5]


def test_what_breaks_the_rules_is_named() -> None:
    reader = codec([Column("x", "float"), Column("n", "int")])
    both = request()
    add(both, "x", "FP64", [1], [1.0], raw=True)
    add(both, "n", "INT64", [1], [1])
    assert "although raw_input_contents" in problem(reader, both).message
    short = request()
    add(short, "x", "FP64", [2], [1.0])
    add(short, "n", "INT64", [2], [1, 2])
    assert problem(reader, short).message == "inputs[0]: shape (2,) needs 2 elements, data has 1"
    field = request()
    field.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp32_contents.append(1.0)
    add(field, "n", "INT64", [1], [1])
    assert "another field of the contents" in problem(reader, field).message
    wide = request()
    add(wide, "x", "FP64", [1], [1.0])
    wide.inputs.add(name="n", datatype="INT8", shape=[1]).contents.int_contents.append(300)
    assert "out of the range of INT8" in problem(reader, wide).message
    none = request()
    add(none, "x", "FP64", [1], [float("nan")])
    add(none, "n", "INT64", [1], [1])
    assert (problem(reader, none).code, "null (NaN)" in problem(reader, none).message) == ("invalid-row", True)
    assert problem(reader, request()).details == (
        "inputs: required input 'x' is missing",
        "inputs: required input 'n' is missing",
    )
    assert problem(reader, b"\x2a\x05").code == "bad-protocol-body"
    assert problem(reader, b"\x0a\x01m\x28\x01").message.endswith("field 5 has the wrong wire type")
    huge = request()
    add(huge, "x", "FP64", [10_001], [])
    assert problem(codec([Column("x", "float")]), huge).code == "too-many-rows"


def test_a_version_behind_the_inputs_must_be_the_one_that_answers() -> None:
    message = request()
    add(message, "x", "FP64", [1], [1.0])
    reader = codec([Column("x", "float")])
    body = message.SerializeToString()
    assert decoded(reader, body + b"\x12\x017").parts[0].failure is None
    assert "before the inputs" in problem(reader, body + b"\x12\x018").message


@pytest.mark.parametrize("raw", [False, True])
def test_answers_are_written_as_their_requests_were(raw: bool) -> None:
    reader = PROTOCOL.codec(
        Subject("m", 7, "function", Signature((Column("x", "float"),), (*MIXED.outputs, Tensor("t", "int16", (-1, 2)))))
    )
    message = request(id="mine")
    add(message, "x", "FP64", [2], [1.0, 2.0], raw=raw)
    outputs = {
        "score": np.array([0.5, 1.5]),
        "label": np.array(["ä", None], object),
        "rank": np.array([np.nan, 3.0]),
        "t": np.array([[-1, 2], [3, 4]], np.int16),
    }
    [encoded] = answers(reader, message, outputs)
    response = service_pb2.ModelInferResponse.FromString(encoded.body)
    assert (encoded.status, response.model_name, response.model_version, response.id) == (200, "m", "7", "mine")
    assert [(each.name, each.datatype, list(each.shape)) for each in response.outputs] == [
        ("score", "FP64", [2]), ("label", "BYTES", [2]), ("rank", "INT64", [2]), ("t", "INT16", [2, 2])
    ]  # fmt: skip
    assert [each.parameters["nulls"].string_param for each in response.outputs] == ["", "1", "0", ""]
    if raw:
        assert list(response.raw_output_contents) == [
            np.array([0.5, 1.5]).tobytes(),
            b"\x02\x00\x00\x00" + "ä".encode() + b"\x00\x00\x00\x00",
            np.array([0, 3]).tobytes(),
            outputs["t"].tobytes(),
        ]
    else:
        assert not response.raw_output_contents
        assert list(response.outputs[0].contents.fp64_contents) == [0.5, 1.5]
        assert list(response.outputs[1].contents.bytes_contents) == ["ä".encode(), b""]
        assert list(response.outputs[3].contents.int_contents) == [-1, 2, 3, 4]


def test_only_the_outputs_asked_for_are_sent_and_unknown_ones_refused() -> None:
    reader = codec([Column("x", "float")], [Column("y", "float"), Column("z", "float")])
    message = request()
    add(message, "x", "FP64", [1], [1.0])
    message.outputs.add(name="z")
    body = decoded(reader, message).rows({"y": np.array([1.0]), "z": np.array([2.0])})[0]
    assert [each.name for each in service_pb2.ModelInferResponse.FromString(body).outputs] == ["z"]
    message.outputs.add(name="nothing")
    assert "no output is named 'nothing'" in problem(reader, message).message


def test_a_failed_row_fails_its_request_alone() -> None:
    reader = codec([Column("x", "float")])
    message = request()
    add(message, "x", "FP64", [1], [1.0])
    body = message.SerializeToString()
    both = reader.decode([body, body])
    failed, fine = reader.encode(both, {"y": np.array([0.0, 1.0])}, {0: error("model-error", "it raised", hint="look")})
    assert (failed.status, failed.code, failed.body) == (500, "model-error", "it raised · hint: look".encode())
    assert (fine.status, fine.code) == (200, "")


@pytest.mark.parametrize(
    ("name", "kind", "value", "words"),
    [
        ("sequence_id", "int64_param", 7, "parameters.sequence_id: sequences are not served"),
        ("sequence_id", "string_param", "a", "parameters.sequence_id"),
        ("sequence_start", "bool_param", True, "parameters.sequence_start"),
        ("sequence_end", "bool_param", True, "parameters.sequence_end"),
        ("sequence_id", "int64_param", 0, ""),
        ("sequence_id", "string_param", "", ""),
        ("sequence_end", "bool_param", False, ""),
        ("priority", "uint64_param", 1, ""),
        ("anything", "double_param", 1.5, ""),
    ],
)
def test_a_part_of_a_sequence_is_refused_and_other_parameters_say_nothing(
    name: str, kind: str, value: Any, words: str
) -> None:
    message = request()
    setattr(message.parameters[name], kind, value)
    add(message, "x", "FP64", [1], [1.5])
    [part] = decoded(codec([Column("x", "float")]), message).parts
    if words:
        assert part.failure.code == "not-implemented"
        assert words in part.failure.message
    else:
        assert (part.failure, part.rows) == (None, 1)


def test_shared_memory_and_classification_are_refused_since_their_answer_would_be_another() -> None:
    asked = request()
    add(asked, "x", "FP64", [1], [1.5])
    kept = asked.outputs.add(name="y")
    kept.parameters["binary_data"].bool_param = True
    kept.parameters["classification"].int64_param = 0
    assert decoded(codec([Column("x", "float")]), asked).parts[0].failure is None
    kept.parameters["classification"].int64_param = 2
    given = request()
    add(given, "x", "FP64", [1], [1.5]).parameters["shared_memory_region"].string_param = "region"
    stored = request()
    add(stored, "x", "FP64", [1], [1.5])
    stored.outputs.add(name="y").parameters["shared_memory_region"].string_param = "region"
    for message, said in (
        (asked, "output 'y': classification is not offered"),
        (given, "input 'x': shared memory is not offered"),
        (stored, "output 'y': shared memory is not offered"),
    ):
        failure = decoded(codec([Column("x", "float")]), message).parts[0].failure
        assert (failure.code, failure.message) == ("not-implemented", said)


@pytest.mark.parametrize("raw", [False, True])
def test_text_that_says_it_came_as_base64_reaches_the_model_as_text(raw: bool) -> None:
    reader = codec([Column("name", "str", nullable=True), Tensor("t", "str", (-1, 1))])
    message = request()
    name = add(message, "name", "BYTES", [2], [b"w6Q=", b""], raw=raw)
    name.parameters["content_type"].string_param = "base64"
    name.parameters["nulls"].string_param = "1"
    add(message, "t", "BYTES", [2, 1], [b"Yg==", b"Yw=="], raw=raw).parameters["content_type"].string_param = "base64"
    found = decoded(reader, message).columns
    assert (found["name"].tolist(), found["t"].tolist()) == (["ä", None], [["b"], ["c"]])
    for content_type, values, expected in (("str", [b"Yg=="], "Yg=="), ("base64", [b"?"], None)):
        message = request()
        add(message, "name", "BYTES", [1], values, raw=raw).parameters["content_type"].string_param = content_type
        add(message, "t", "BYTES", [1, 1], [b"b"], raw=raw)
        if expected is None:
            assert "content_type is base64, and a value is not" in problem(reader, message).message
        else:
            assert decoded(reader, message).columns["name"].tolist() == [expected]


def test_base64_is_for_bytes_and_neither_it_nor_nulls_are_for_the_matrix_of_all_columns() -> None:
    for width, name, value, words in (
        (1, "content_type", "base64", "content_type base64 is for BYTES, not FP64"),
        (2, "content_type", "base64", "content_type base64 is for BYTES"),
        (2, "nulls", "0", "a tensor of its own to state nulls"),
    ):
        message = request()
        tensor = add(message, "c0", "FP64", [1, width], [1.5] * width)
        tensor.parameters[name].string_param = value
        reader = codec([Column(f"c{place}", "float", nullable=True) for place in range(width)])
        assert words in problem(reader, message).message
