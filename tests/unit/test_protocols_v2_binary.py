"""V2 with binary tensors: every datatype in and out, bytes that don't add up, and what NaN means."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from salver.protocols.v2.codec import PROTOCOL
from salver.signature import Column, Field, Signature, Tensor
from tests.unit.asked import PREDICTION, Asked, one_input

FORMAT = Asked(PROTOCOL)


def texts(*values: bytes) -> bytes:
    """Elements of BYTES."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def tensor(name: str, datatype: str, shape: list[int], data: bytes, size: int | None = None) -> tuple[Any, bytes]:
    """A binary input and its bytes; `size` is what it says of them."""
    given = len(data) if size is None else size
    head = {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": given}}
    return head, data


def body(*inputs: tuple[Any, bytes], **more: Any) -> tuple[bytes, dict[str, str]]:
    """A request and the options that the gateway reads for it."""
    head = json.dumps({"inputs": [one for one, _ in inputs], **more}).encode()
    return head + b"".join(data for _, data in inputs), {"header_length": str(len(head))}


def columns(signature: Signature, request: tuple[bytes, dict[str, str] | None], times: int = 1) -> dict[str, Any]:
    """What the model gets of a request, sent some times at once."""
    decoded = FORMAT.codec(signature).decode([request[0]] * times, request[1])
    assert [part.failure for part in decoded.parts] == [None] * times
    return dict(decoded.columns)


def said(signature: Signature, request: tuple[bytes, dict[str, str]]) -> str:
    """The words a request is refused with."""
    (answer,) = FORMAT.answers(signature, [request[0]], options=request[1])
    assert (answer.status, answer.content_type, answer.headers) == (400, "application/json", "")
    return str(json.loads(answer.body)["error"])


def little(values: list[Any], dtype: str) -> bytes:
    return np.array(values, dtype).tobytes()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("field", "datatype", "shape", "data", "expected"),
    [
        (Column("x", "float"), "FP64", [2], little([1, 2.5], "<f8"), [1.0, 2.5]),
        (Column("x", "float"), "FP32", [2, 1], little([1, 0.1], "<f4"), [1.0, float(np.float32(0.1))]),
        (Column("x", "float"), "FP16", [1], little([0.5], "<f2"), [0.5]),
        (Column("x", "float"), "BF16", [2], b"\x80\x3f\x49\x40", [1.0, 3.140625]),
        (Column("x", "float"), "INT8", [1], b"\xff", [-1.0]),
        (Column("x", "int"), "INT64", [2], little([1, -(2**63)], "<i8"), [1, -(2**63)]),
        (Column("x", "int"), "UINT16", [1], b"\xff\xff", [65535]),
        (Column("x", "int", nullable=True), "INT32", [1], little([7], "<i4"), [7.0]),
        (Column("x", "bool"), "BOOL", [2], b"\x01\x00", [True, False]),
        (Column("x", "bool", nullable=True), "BOOL", [1], b"\x01", [True]),
        (Column("x", "str"), "BYTES", [2], texts("é".encode(), b""), ["é", ""]),
        (Column("x", "category", categories=("a",), enforce=True), "BYTES", [1], texts(b"a"), ["a"]),
        (Tensor("x", "float32", (-1, 2)), "FP32", [1, 2], little([1, 2], "<f4"), [[1.0, 2.0]]),
        (Tensor("x", "float32", (-1, 2)), "FP64", [1, 2], little([1, 2], "<f8"), [[1.0, 2.0]]),
        (Tensor("x", "float32", (-1, 1)), "BF16", [1, 1], b"\x80\x3f", [[1.0]]),
        (Tensor("x", "float16", (-1, 1)), "FP16", [1, 1], little([0.1], "<f2"), [[float(np.float16(0.1))]]),
        (Tensor("x", "float64", (-1, -1)), "UINT64", [1, 1], little([9], "<u8"), [[9.0]]),
        *(
            (Tensor("x", kind, (-1,)), kind.upper(), [1], little([7], kind), [7])
            for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
        ),
        (Tensor("x", "uint8", (-1,)), "INT64", [1], little([255], "<i8"), [255]),
        (Tensor("x", "bool", (-1, 2)), "BOOL", [1, 2], b"\x01\x00", [[True, False]]),
        (Tensor("x", "str", (-1, 2)), "BYTES", [1, 2], texts(b"a", b"b"), [["a", "b"]]),
        (Column("x", "str"), "BYTES", [0], b"", []),
        (Tensor("x", "float32", (-1, 2)), "FP32", [0, 2], b"", []),
    ],
)
def test_a_binary_tensor_reaches_the_model_in_its_fields_dtype(
    field: Field, datatype: str, shape: list[int], data: bytes, expected: list[Any], times: int
) -> None:
    signature = one_input(field)
    got = columns(signature, body(tensor("x", datatype, shape, data)), times)["x"]
    assert got.tolist() == expected * times
    none = FORMAT.codec(signature).decode([]).columns["x"]
    assert got.dtype == none.dtype
    assert got.flags.writeable


def test_times_are_bytes_too() -> None:
    got = columns(one_input(Column("x", "datetime")), body(tensor("x", "BYTES", [1], texts(b"2024-01-31T12:00+01:00"))))
    assert got["x"].tolist()[0].isoformat() == "2024-01-31T11:00:00"


def test_json_and_binary_inputs_mix_and_unknown_ones_are_skipped() -> None:
    signature = Signature(
        inputs=(Column("a", "float"), Column("s", "str"), Column("o", "int", optional=True)), outputs=PREDICTION
    )
    told = {"name": "s", "shape": [2], "datatype": "BYTES", "data": ["x", "y"]}, b""
    unknown = tensor("zz", "FP16", [9], b"abc")
    request = body(unknown, told, tensor("a", "FP64", [2], little([1, 2], "<f8")))
    got = columns(signature, request)
    assert got["a"].tolist() == [1.0, 2.0]
    assert got["s"].tolist() == ["x", "y"]
    assert np.isnan(got["o"]).all()


def test_requests_without_rows_or_sense_leave_the_others_as_they_are() -> None:
    signature = Signature(inputs=(Column("a", "float"), Tensor("t", "float32", (-1, -1))), outputs=PREDICTION)
    a, t = little([1, 2], "<f8"), little([1, 2, 3, 4], "<f4")
    request, options = body(tensor("a", "FP64", [2], a), tensor("t", "FP32", [2, 2], t))
    empty, _ = body(tensor("a", "FP64", [0], b""), tensor("t", "FP32", [0, 9], b""))
    decoded = FORMAT.codec(signature).decode([request, b"{", request], options)
    assert [part.failure is None for part in decoded.parts] == [True, False, True]
    assert decoded.columns["t"].tolist() == [[1, 2], [3, 4]] * 2
    alone = FORMAT.codec(signature).decode([empty], {"header_length": str(len(empty))})
    assert alone.count == 0
    assert alone.columns["t"].shape[0] == 0


def test_the_matrix_of_all_float_columns_may_be_binary() -> None:
    signature = Signature(
        inputs=(Column("a", "float", nullable=True), Column("b", "float", minimum=0.0, enforce=True)),
        outputs=PREDICTION,
    )
    block = np.array([[np.nan, 1], [2, 3]])
    got = columns(signature, body(tensor("x", "FP64", [2, 2], block.tobytes())))
    assert np.isnan(got["a"][0])
    assert got["b"].tolist() == [1.0, 3.0]
    single = columns(
        signature, body(tensor("a", "FP64", [1], block[1, :1].tobytes()), tensor("b", "INT8", [1], b"\x03"))
    )
    assert {name: values.tolist() for name, values in single.items()} == {"a": [2.0], "b": [3.0]}
    for cells, words in (
        ([[1, -1]], "$.inputs[0].data, column 'b' [0]: expected float >= 0.0"),
        ([[1, 1], [1, np.nan]], "$.inputs[0].data, column 'b' [1]: expected float, got null (NaN)"),
        ([[-np.inf, 1]], "$.inputs[0].data, column 'a' [0]: expected float, got an infinity"),
    ):
        assert said(signature, body(tensor("x", "FP64", [len(cells), 2], little(cells, "<f8")))) == words


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tensor_takes_every_float_as_it_is_sent(value: float) -> None:
    got = columns(one_input(Tensor("x", "float32", (-1,))), body(tensor("x", "FP32", [1], little([value], "<f4"))))
    assert got["x"].tobytes() == little([value], "<f4")


FLOATS = " or ".join(
    ["FP64", "FP32", *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (64, 32, 16, 8)), "FP16", "BF16"]
)
F, T = Column("x", "float"), Tensor("x", "float32", (-1, 2))


@pytest.mark.parametrize(
    ("field", "given", "words"),
    [
        (F, tensor("x", "FP64", [2], b"1234567"), "$.inputs[0]: shape [2] of FP64 needs 16 bytes, there are 7"),
        (F, tensor("x", "FP64", [1], b"1" * 16), "$.inputs[0]: shape [1] of FP64 needs 8 bytes, there are 16"),
        (F, tensor("x", "FP64", [-1], b""), "$.inputs[0]: shape [-1] has a negative size"),
        (F, tensor("x", "FP64", [1, 2], b"1" * 16), "$.inputs[0]: shape [1, 2] of 'x' must be [n]"),
        (F, tensor("x", "BOOL", [1], b"\x01"), f"$.inputs[0]: 'x' is float; datatype 'BOOL' must be {FLOATS}"),
        (
            F,
            tensor("x", "FP64", [2], little([1, np.nan], "<f8")),
            "$.inputs[0].data[1]: expected float, got null (NaN)",
        ),
        (F, tensor("x", "FP16", [1], little([np.inf], "<f2")), "$.inputs[0].data[0]: expected float, got an infinity"),
        (
            Column("x", "int", nullable=True, maximum=3, enforce=True),
            tensor("x", "INT8", [2], b"\x03\x04"),
            "$.inputs[0].data[1]: expected int <= 3",
        ),
        (
            Column("x", "int"),
            tensor("x", "UINT64", [1], little([2**63], "<u8")),
            "$.inputs[0].data[0]: expected int64, got a number out of range",
        ),
        (
            Tensor("x", "uint8", (-1,)),
            tensor("x", "INT16", [1], b"\xff\xff"),
            "$.inputs[0].data[0]: expected uint8, got a number out of range",
        ),
        (
            T,
            tensor("x", "FP64", [1, 2], little([1, 1e39], "<f8")),
            "$.inputs[0].data[1]: expected float32, got a number out of range",
        ),
        (T, tensor("x", "FP32", [1, 3], b"1" * 12), "$.inputs[0]: shape [1, 3] of 'x' must be [n, 2]"),
        (
            Column("x", "bool"),
            tensor("x", "BOOL", [2], b"\x01\x02"),
            "$.inputs[0].data[1]: expected a byte 0 or 1 for BOOL, got another",
        ),
        (
            Column("x", "str"),
            tensor("x", "BYTES", [1], b"\xff\xff\xff\xffab"),
            "$.inputs[0].data[0]: expected 4294967295 bytes, 2 are left",
        ),
        (
            Column("x", "str"),
            tensor("x", "BYTES", [2], b"\x06\x00\x00\x00abcdef"),
            "$.inputs[0].data[1]: expected a length of 4 bytes, 0 are left",
        ),
        (
            Column("x", "str"),
            tensor("x", "BYTES", [9], b""),
            "$.inputs[0]: shape [9] of BYTES needs 36 bytes or more, there are 0",
        ),
        (
            Column("x", "str"),
            tensor("x", "BYTES", [1], texts(b"a", b"b")),
            "$.inputs[0]: shape [1] needs 1 elements, 5 bytes follow them",
        ),
        (
            Column("x", "str"),
            tensor("x", "BYTES", [1], texts(b"\xff")),
            "$.inputs[0].data[0]: expected text in UTF-8, got other bytes",
        ),
        (
            Column("x", "category", categories=("a",), enforce=True, private=True),
            tensor("x", "BYTES", [1], texts(b"hunter2")),
            "$.inputs[0].data[0]: expected a known category",
        ),
        (
            F,
            tensor("x", "FP64", [1], b"1" * 8, -8),
            "$.inputs[0]: binary_data_size is -8, 8 bytes are left in the body",
        ),
        (F, tensor("x", "FP64", [1], b"1" * 8, 9), "$.inputs[0]: binary_data_size is 9, 8 bytes are left in the body"),
        (
            F,
            tensor("x", "FP64", [1], b"1" * 8, 7),
            "1 bytes follow the last binary input (check binary_data_size and inference-header-content-length)",
        ),
        (
            F,
            ({"name": "x", "shape": [1], "datatype": "FP64", "data": [1], "parameters": {"binary_data_size": 0}}, b""),
            "$.inputs[0]: has both data and binary_data_size",
        ),
        (F, ({"name": "x", "shape": [1], "datatype": "FP64"}, b""), "$.inputs[0]: required field data is missing"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(field: Field, given: tuple[Any, bytes], words: str) -> None:
    assert said(one_input(field), body(given)) == words


@pytest.mark.parametrize(
    ("length", "words"),
    [
        ("x", "inference-header-content-length must be the length of the JSON in bytes"),
        ("9" * 19, "inference-header-content-length must be the length of the JSON in bytes"),
        ("99999", "inference-header-content-length says 99999 bytes of JSON, the body has "),
        ("3", "the body is not JSON: "),
    ],
)
def test_a_header_that_lies_is_refused(length: str, words: str) -> None:
    request, _ = body(tensor("x", "FP64", [1], b"1" * 8))
    assert said(one_input(F), (request, {"header_length": length})).startswith(words)


def test_without_the_header_there_is_no_binary_data_and_never_shared_memory() -> None:
    request, _ = body(tensor("x", "FP64", [1], b""))
    assert said(one_input(F), (request, {})) == (
        "$.inputs[0]: binary_data_size needs the header inference-header-content-length"
    )
    shared = {"name": "x", "shape": [1], "datatype": "FP64", "parameters": {"shared_memory_region": "r"}}
    (answer,) = FORMAT.answers(one_input(F), [json.dumps({"inputs": [shared]}).encode()])
    assert (answer.status, answer.code) == (501, "not-implemented")


def test_a_raw_request_is_the_one_row_of_the_only_input() -> None:
    zero = {"header_length": "0"}
    assert columns(one_input(Column("x", "str")), (b"any text", zero))["x"].tolist() == ["any text"]
    free = one_input(Tensor("x", "uint8", (-1, -1, 2)))
    assert columns(free, (bytes(range(6)), zero))["x"].tolist() == [[[0, 1], [2, 3], [4, 5]]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((F, Column("y", "float")), "a raw request needs a model with one input, this one has 2"),
        ((Tensor("x", "uint8", (-1, -1, -1)),), "input 'x' can't be sent as a raw request"),
        ((Tensor("x", "str", (-1, 2)),), "input 'x' can't be sent as a raw request"),
        ((Tensor("x", "uint8", (-1, -1, 4)),), "$.inputs[0]: shape [1, 1, 4] of UINT8 needs 4 bytes, there are 6"),
    ],
)
def test_a_raw_request_whose_shape_is_not_known_is_refused(fields: tuple[Field, ...], words: str) -> None:
    signature = Signature(inputs=fields, outputs=PREDICTION)
    assert said(signature, (b"123456", {"header_length": "0"})).startswith(words)
