"""V2 tensors under any values and any damage: nothing changes on the way in or out, and nothing raises."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from salver.protocols import Codec, Encoded, Subject
from salver.protocols.v2.codec import PROTOCOL
from salver.protocols.v2.metadata import datatype, json_datatype
from salver.signature import DTYPES, Column, Field, Signature, Tensor

Array = NDArray[Any]
DAMAGE = st.sampled_from(["byte", "cut", "more", "length"])
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def _tensors(draw: st.DrawFn, *, finite: bool) -> tuple[Tensor, Array]:
    """A field and some rows of it."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=4, max_side=3))
    if dtype == "str":
        values = draw(arrays.arrays(object, shape, elements=_text))
    elif dtype.startswith("float"):
        width: Any = int(dtype.removeprefix("float"))
        elements = st.floats(width=width, allow_nan=not finite, allow_infinity=not finite)
        values = draw(arrays.arrays(dtype, shape, elements=elements))
    else:
        values = draw(arrays.arrays(dtype, shape))
    free = tuple(-1 if draw(st.booleans()) else size for size in shape[1:])
    return Tensor("x", dtype, (-1, *free)), values


def _codec(field: Field) -> Codec:
    """An echo: what comes in as x goes out as y."""
    return PROTOCOL.codec(Subject("echo", 1, "function", Signature((field,), (_named(field, "y"),))))


def _named(field: Field, name: str) -> Field:
    if isinstance(field, Tensor):
        return Tensor(name, field.dtype, field.shape, non_finite=True)
    return Column(name, field.type, nullable=field.nullable)


def _bytes(field: Field, values: Array) -> bytes:
    if datatype(field) == "BYTES":
        encoded = [value.encode() if isinstance(value, str) else value for value in values.ravel().tolist()]
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _binary(field: Field, values: Array) -> tuple[bytes, dict[str, str]]:
    data = _bytes(field, values)
    parameters = {"binary_data_size": len(data)}
    told = {"name": "x", "shape": values.shape, "datatype": datatype(field), "parameters": parameters}
    head = json.dumps({"inputs": [told], "parameters": {"binary_data_output": True}}).encode()
    return head + data, {"header_length": str(len(head))}


def _json(field: Field, values: Array, *, nested: bool) -> bytes:
    data = values.tolist() if nested else values.ravel().tolist()
    told = {"name": "x", "shape": values.shape, "datatype": json_datatype(field), "data": data}
    return json.dumps({"inputs": [told]}).encode()


def _echoed(codec: Codec, bodies: list[bytes], options: dict[str, str] | None) -> list[Encoded]:
    decoded = codec.decode(bodies, options)
    assert decoded.count == sum(part.count for part in decoded.parts)
    return codec.encode(decoded, {"y": decoded.columns["x"]}, {})


def _output(answer: Encoded) -> tuple[dict[str, Any], bytes]:
    assert answer.status == 200, answer.body
    length = int(answer.headers.split(":")[1]) if answer.headers else len(answer.body)
    (output,) = json.loads(answer.body[:length])["outputs"]
    return output, answer.body[length:]


@given(_tensors(finite=False), st.integers(1, 3))
def test_a_tensor_goes_in_and_out_as_the_same_bytes(case: tuple[Tensor, Array], times: int) -> None:
    field, values = case
    body, options = _binary(field, values)
    for answer in _echoed(_codec(field), [body] * times, options):
        output, data = _output(answer)
        assert output["shape"] == list(values.shape)
        assert output["datatype"] == datatype(field)
        assert data == _bytes(field, values)


@given(_tensors(finite=True), st.booleans(), st.integers(1, 3))
def test_a_tensor_goes_in_and_out_as_the_same_json(case: tuple[Tensor, Array], nested: bool, times: int) -> None:
    field, values = case
    body = _json(field, values, nested=nested)
    for answer in _echoed(_codec(field), [body] * times, None):
        output, _ = _output(answer)
        assert output["shape"] == list(values.shape)
        assert output["datatype"] == json_datatype(field)
        assert output["data"] == values.ravel().tolist()


@given(_tensors(finite=True), st.booleans())
def test_json_and_bytes_reach_the_model_as_the_same_array(case: tuple[Tensor, Array], nested: bool) -> None:
    field, values = case
    codec = _codec(field)
    body, options = _binary(field, values)
    one = codec.decode([body], options).columns["x"]
    other = codec.decode([_json(field, values, nested=nested)]).columns["x"]
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert one.tolist() == other.tolist()


@given(st.sampled_from(["float", "int", "bool", "str", "bytes"]), st.data())
def test_a_column_goes_in_and_out_as_the_same_bytes(kind: Any, data: st.DataObject) -> None:
    elements: Any = {
        "float": st.floats(allow_nan=True, allow_infinity=False),
        "int": st.integers(-(2**63), 2**63 - 1),
        "bool": st.booleans(),
        "str": _text,
        "bytes": st.binary(max_size=6),
    }[kind]
    dtype = {"float": np.float64, "int": np.int64, "bool": np.bool_}.get(kind, object)
    values: Array = np.array(data.draw(st.lists(elements, min_size=1, max_size=4)), dtype)
    field = Column("x", kind, nullable=kind == "float")
    body, options = _binary(field, values)
    (answer,) = _echoed(_codec(field), [body], options)
    assert _output(answer)[1] == _bytes(field, values)


@st.composite
def _damaged(draw: st.DrawFn, body: bytes, length: int) -> tuple[bytes, int]:
    how = draw(DAMAGE)
    place = draw(st.integers(0, max(len(body) - 1, 0)))
    if how == "cut":
        return body[:place], length
    if how == "more":
        return body[:place] + draw(st.binary(min_size=1, max_size=9)) + body[place:], length
    if how == "length":
        return body, draw(st.integers(0, len(body) + 2))
    return body[:place] + draw(st.binary(min_size=1, max_size=1)) + body[place + 1 :], length


@settings(max_examples=400)
@given(st.data(), _tensors(finite=False))
def test_damaged_binary_requests_are_answered_or_refused_and_never_raise(
    data: st.DataObject, case: tuple[Tensor, Array]
) -> None:
    field, values = case
    codec = _codec(field)
    body, options = _binary(field, values)
    hurt, length = data.draw(_damaged(body, int(options["header_length"])))
    first, second, third = _echoed(codec, [hurt, body, hurt], {"header_length": str(length)})
    assert first == third
    assert 200 <= first.status < 500
    if length == int(options["header_length"]):
        assert second.status == 200
    if first.status != 200:
        json.loads(first.body)
