"""A column of bytes in every wire format: base64 in JSON and CSV, text or bytes as they are in V2, binary in Arrow."""

from __future__ import annotations

import base64
import io
import json
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tritonclient.grpc import service_pb2

from salver import plugins
from salver.errors import SalverError
from salver.protocols import Encoded, Subject
from salver.protocols.schema import example_row, input_schema
from salver.protocols.v2.metadata import model_config, model_metadata
from salver.signature import Column, Field, Signature, Tensor

ODD = [b"\xff\xd8\xff\xe0", b"", b"a\0\0", "ö".encode(), None]
"""No UTF-8, nothing, zeros at the end, text, null."""
BLOB = Column("x", "bytes", nullable=True)
ECHO = Signature((BLOB,), (Column("y", "bytes", nullable=True),))


def base64_of(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def packed(value: bytes | None) -> dict[str, str | None] | None:
    return None if value is None else {"b64": base64_of(value)}


TEXTS = list(map(base64_of, ODD))
PACKED = list(map(packed, ODD))


def codec(form: str, signature: Signature = ECHO) -> Any:
    return plugins.protocol(form).codec(Subject("m", 1, "function", signature))


def echo(form: str, body: Any, signature: Signature = ECHO, **options: str) -> tuple[list[Any], Encoded]:
    """What the model gets in x, and the answer where it returns just that."""
    reader = codec(form, signature)
    decoded = reader.decode([body if isinstance(body, bytes) else json.dumps(body).encode()], options or None)
    assert decoded.parts[0].failure is None, decoded.parts[0].failure
    assert decoded.columns["x"].dtype == object
    (answer,) = reader.encode(decoded, {"y": decoded.columns["x"]}, {})
    return decoded.columns["x"].tolist(), answer


def refused(form: str, body: Any, signature: Signature = ECHO, **options: str) -> SalverError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    (part,) = codec(form, signature).decode([data], options or None).parts
    assert part.failure is not None
    failure: SalverError = part.failure
    return failure


def v2(data: list[Any], shape: list[int] | None = None, **said: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "x", "datatype": "BYTES", "shape": shape or [len(data)], "data": data, "parameters": said},
        ]
    }


def elements(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


@pytest.mark.parametrize("rows", [TEXTS, PACKED])
def test_native_json_takes_base64_and_answers_in_base64(rows: list[Any]) -> None:
    got, answer = echo("native", [{"x": value} for value in rows])
    assert got == ODD
    assert json.loads(answer.body) == [{"y": text} for text in TEXTS]


@pytest.mark.parametrize("value", ["?", "AAA", "_-8=", "AA==\n", "ö", "AP8", 5, True, [], {}, {"b64": 1}, {"b64": "?"}])
def test_what_is_no_base64_is_refused_with_its_place_and_without_its_value(value: Any) -> None:
    for form, body in (("native", [{"x": "AA=="}, {"x": value}]), ("v1", {"instances": [{"x": "AA=="}, {"x": value}]})):
        problem = refused(form, body, strict="true") if form == "native" else refused(form, body)
        assert (problem.code, problem.meaning.http) == ("invalid-row", 422)
        assert "[1].x: expected bytes in base64, got" in repr(problem)
    assert "row 1, column x: expected bytes in base64" in str(
        codec("csv").decode([b"x\n??\n"], {"endpoint": "native"}).parts[0].errors[0]
    )


def test_null_is_refused_where_the_column_is_not_nullable() -> None:
    only = Signature((Column("x", "bytes"),), ECHO.outputs)
    assert "expected" in str(refused("native", {"x": None}, only))
    assert "expected" in str(refused("v1", {"instances": [None]}, only))
    assert "expected" in str(refused("v2", v2([None]), only))


@pytest.mark.parametrize(
    "body",
    [
        {"instances": PACKED},
        {"instances": TEXTS},
        {"instances": [{"x": value} for value in PACKED]},
        {"instances": [{"x": value, "more": {"b64": "?"}} for value in PACKED]},
        {"instances": [[value] for value in PACKED]},
        {"inputs": PACKED},
        {"instances": [PACKED[0], TEXTS[1], {"x": PACKED[2]}, [PACKED[3]], None]},
    ],
)
def test_v1_takes_b64_objects_in_every_form_and_answers_with_them(body: Any) -> None:
    got, answer = echo("v1", body)
    assert got == ODD
    assert json.loads(answer.body) == {"predictions": PACKED}


def test_v1_takes_b64_objects_in_columns() -> None:
    got, answer = echo("v1", {"inputs": {"x": PACKED}})
    assert got == ODD
    assert json.loads(answer.body) == {"outputs": PACKED}


@pytest.mark.parametrize("optional", [False, True])
def test_a_bare_b64_object_is_the_only_value_whether_or_not_that_may_be_absent(optional: bool) -> None:
    signature = Signature((Column("x", "bytes", optional=optional),), ECHO.outputs)
    body = {"instances": [{"b64": "AP8="}, {"b64": ""}]}
    assert echo("v1", body, signature)[0] == [b"\0\xff", b""]
    text = Signature((Column("x", "str", optional=optional),), (Column("z", "str"),))
    decoded = codec("v1", text).decode([b'{"instances": [{"b64": "YWI="}, {"x": "", "more": 1}]}'])
    assert decoded.columns["x"].tolist() == ["ab", ""]
    assert decoded.extra() == 1


@pytest.mark.parametrize("number", [b"1", b"NaN"])
@pytest.mark.parametrize("text", [b"YWI=", b"/w=="])
@pytest.mark.parametrize("form", [b'{"instances": [{%b, %b, %b}]}', b'{"inputs": {%b, %b, %b}}'])
def test_b64_objects_of_text_and_of_bytes_stand_side_by_side(form: bytes, text: bytes, number: bytes) -> None:
    signature = Signature((BLOB, Column("text", "str"), Column("n", "float", nullable=True)), ECHO.outputs)
    cells = [b'{"b64": "YWI="}', b'{"b64": "%b"}' % text, number]
    if b"inputs" in form:
        cells = [b"[%b]" % cell for cell in cells]
    body = form % (b'"x": ' + cells[0], b'"text": ' + cells[1], b'"n": ' + cells[2])
    if text == b"/w==":
        assert "a b64 object that holds no base64 of UTF-8" in str(refused("v1", body, signature))
        return
    columns = codec("v1", signature).decode([body]).columns
    assert [columns[name].tolist() for name in ("x", "text")] == [[b"ab"], ["ab"]]


@pytest.mark.parametrize("field", [BLOB, Column("x", "str")])
def test_a_bare_object_that_is_damaged_is_refused(field: Column) -> None:
    signature = Signature((field,), (Column("z", "float"),))
    for piece in (b'{"\xff": 1}', b'{"b64": "\xff"}', b'{"b64": {}}', b"{1}", b'{"b64": "AA==", "x": 1}'):
        (part,) = codec("v1", signature).decode([b'{"instances": [%b]}' % piece]).parts
        assert part.failure is not None
        assert part.failure.code in ("bad-json", "invalid-row")


def test_mlflow_and_torchserve_take_both_and_answer_in_base64() -> None:
    for body in (
        [{"x": value} for value in PACKED],
        {"inputs": {"x": TEXTS}},
        {"dataframe_split": {"data": [[t] for t in TEXTS]}},
    ):
        got, answer = echo("invocations", body)
        assert got == ODD
        assert json.loads(answer.body) == {"predictions": TEXTS}
    got, answer = echo("torchserve", [{"x": value} for value in PACKED])
    assert (got, json.loads(answer.body)) == (ODD, TEXTS)


def test_v2_json_takes_text_as_its_utf_8_and_answers_alike() -> None:
    got, answer = echo("v2", v2(["ö", "", "a\0", None]))
    assert got == ["ö".encode(), b"", b"a\0", None]
    (output,) = json.loads(answer.body)["outputs"]
    assert output == {"name": "y", "shape": [4], "datatype": "BYTES", "data": ["ö", "", "a\0", None]}


@pytest.mark.parametrize("shape", [[5], [5, 1]])
def test_v2_json_that_says_base64_is_decoded_and_bytes_that_are_no_text_are_answered_so(shape: list[int]) -> None:
    got, answer = echo("v2", v2(TEXTS, shape, content_type="base64"))
    assert got == ODD
    (output,) = json.loads(answer.body)["outputs"]
    assert (output["parameters"], output["data"]) == ({"content_type": "base64"}, TEXTS)
    assert echo("v2", v2(["AA==", ""], content_type="base64", nulls="1"))[0] == [b"\0", None]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (v2([5]), "data[0]: expected text, got int"),
        (v2([{"b64": ""}]), "expected text, got object"),
        (v2(["?"], content_type="base64"), "content_type is base64, and a value is not"),
        (v2(["ö"], content_type="base64"), "content_type is base64, and a value is not"),
        (v2([5], content_type="base64"), "expected text, got int"),
        (v2(["a"], [2]), "needs 2 elements, data has 1"),
    ],
)
def test_v2_json_refuses_other_values(body: Any, words: str) -> None:
    assert words in str(refused("v2", body))


def test_v2_binary_data_is_taken_and_answered_as_it_is() -> None:
    present = ODD[:-1]
    data = elements(*filter(None, present[:1]), b"", *present[2:])
    tensor = {"name": "x", "datatype": "BYTES", "shape": [4], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    got, answer = echo("v2", head + data, header_length=str(len(head)))
    assert got == present
    assert answer.body.endswith(data)


def test_a_raw_body_is_the_only_value() -> None:
    got, answer = echo("v2", ODD[0], header_length="0")
    assert got == ODD[:1]
    assert answer.body.endswith(elements(b"\xff\xd8\xff\xe0"))


@pytest.mark.parametrize("raw", [False, True])
def test_grpc_carries_bytes_as_they_are(raw: bool) -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype="BYTES", shape=[5])
    tensor.parameters["nulls"].string_param = "4"
    values = [value or b"" for value in ODD]
    if raw:
        request.raw_input_contents.append(elements(*values))
    else:
        tensor.contents.bytes_contents.extend(values)
    got, answer = echo("v2-grpc", request.SerializeToString())
    assert got == ODD
    assert all(type(value) is bytes for value in got[:-1])
    response = service_pb2.ModelInferResponse.FromString(answer.body)
    (output,) = response.outputs
    assert output.parameters["nulls"].string_param == "4"
    assert list(response.raw_output_contents if raw else output.contents.bytes_contents) == (
        [elements(*values)] if raw else values
    )


def test_grpc_decodes_what_says_it_is_base64() -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype="BYTES", shape=[1])
    tensor.parameters["content_type"].string_param = "base64"
    tensor.contents.bytes_contents.append(b"AP8=")
    assert echo("v2-grpc", request.SerializeToString())[0] == [b"\0\xff"]


def test_csv_and_json_lines_hold_base64() -> None:
    nothing = Signature((Column("x", "bytes"),), (Column("y", "bytes"),))
    got, answer = echo("csv", b'x\n/9g=\n""\n', nothing, endpoint="native", answer="csv")
    assert got == [b"\xff\xd8", b""]
    assert answer.body == b'y\n/9g=\n""\n'
    got, answer = echo("csv", b'x\n/9g=\n""\n', endpoint="native", answer="csv")
    assert got == [b"\xff\xd8", None]
    lines = b"".join(json.dumps({"x": text}).encode() + b"\n" for text in TEXTS)
    got, answer = echo("jsonlines", lines, endpoint="native", answer="jsonlines")
    assert got == ODD
    assert [json.loads(line)["y"] for line in answer.body.splitlines()] == TEXTS


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string(), pa.dictionary(pa.int8(), pa.binary())])
def test_arrow_takes_binary_and_text_and_answers_binary(kind: Any) -> None:
    values = ODD if kind != pa.string() else ["a", "ö", None]
    batch = pa.record_batch([pa.array(values, kind)], names=["x"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    got, answer = echo("arrow", sink.getvalue().to_pybytes(), endpoint="native", answer="arrow")
    wanted = [value.encode() if isinstance(value, str) else value for value in values]
    assert got == wanted
    table = pa.ipc.open_stream(answer.body).read_all()
    assert (table.schema.field("y").type, table["y"].to_pylist()) == (pa.binary(), wanted)


def test_arrow_refuses_other_columns() -> None:
    batch = pa.record_batch([pa.array([1])], names=["x"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    assert "expected bytes, got int64" in str(refused("arrow", sink.getvalue().to_pybytes(), endpoint="native"))


@pytest.mark.parametrize(("form", "body"), [("npy", b""), ("libsvm", b"1 0:1\n")])
def test_arrays_of_numbers_hold_no_bytes(form: str, body: bytes) -> None:
    if form == "npy":
        body = _npy(np.zeros((1, 1)))
    assert "can't hold the inputs of this model" in str(refused(form, body, endpoint="native"))
    asked = codec("native").decode([b'{"x": "AA=="}'], {"answer": "npy"}).parts[0]
    assert "can't hold the outputs of this model" in str(asked.failure)


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_five_megabytes_come_through_json_and_bytes() -> None:
    data = np.random.default_rng(0).bytes(5 << 20)
    for form, body in (("native", {"x": base64_of(data)}), ("v1", {"instances": [{"x": packed(data)}]})):
        assert echo(form, body)[0] == [data]
    assert echo("v2", v2([base64_of(data)], content_type="base64"))[0] == [data]
    assert echo("v2", data, header_length="0")[0] == [data]


def test_metadata_and_schema_say_what_bytes_are() -> None:
    assert model_metadata("m", [1], "function", ECHO)["inputs"] == [
        {"name": "x", "datatype": "BYTES", "shape": [-1], "parameters": {"nullable": True}}
    ]
    assert model_config("m", [1], "function", 64, ECHO)["output"] == [
        {"name": "y", "data_type": "TYPE_STRING", "dims": [1]}
    ]
    schema = {"type": "string", "format": "byte", "nullable": True}
    assert input_schema(ECHO)["properties"] == {"x": schema}
    fields: tuple[Field, ...] = (BLOB,)
    assert echo("native", example_row(Signature(fields, ECHO.outputs)))[0] == [b"\0\xff"]


def test_a_tensor_of_texts_takes_b64_objects_bare_and_in_lists() -> None:
    for shape, data in (((-1,), '{"b64": "YWI="}'), ((-1, 2), '[{"b64": "YWI="}, ""]')):
        signature = Signature((Tensor("x", "str", shape),), (Column("z", "float"),))
        decoded = codec("v1", signature).decode([b'{"instances": [%b]}' % data.encode()])
        assert decoded.columns["x"].ravel().tolist()[0] == "ab"
