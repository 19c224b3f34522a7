"""Wire formats under any signature, any rows and any damage: nothing raises, nothing is mixed up, nothing is lost."""

from __future__ import annotations

import base64
import gc
import json
import zlib
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from salver import tables
from salver.protocols import Codec, Decoded, Subject, WireFormat, native, v1
from salver.protocols.schema import example_row
from salver.protocols.v2 import codec as v2
from salver.protocols.v2.metadata import datatype
from salver.signature import Column, Field, Signature, Tensor

FORMATS: list[WireFormat] = [native.PROTOCOL, v2.PROTOCOL, v1.PROTOCOL]
OUTPUTS = (Column("prediction", "float"), Column("label", "str"))

_names = st.text(st.characters(exclude_characters='"\\', exclude_categories=["C"]), min_size=1, max_size=8)
_int64 = st.integers(-(2**63), 2**63 - 1)
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_blobs = st.binary(max_size=6)
_times = st.datetimes().map(lambda moment: moment.isoformat())
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
    "int": _int64,
    "bool": st.booleans(),
    "str": _text,
    "category": _text,
    "datetime": _times,
    "bytes": _blobs.map(lambda value: base64.b64encode(value).decode()),
    "float64": st.floats(allow_nan=False, allow_infinity=False),
    "float32": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "uint8": st.integers(0, 255),
    "uint64": st.integers(0, 2**64 - 1),
}


@st.composite
def _fields(draw: st.DrawFn) -> tuple[Field, ...]:
    fields: list[Field] = []
    for name in draw(st.lists(_names, min_size=1, max_size=4, unique=True)):
        if draw(st.integers(0, 4)):
            kind: Any = draw(st.sampled_from(["float", "float", "int", "bool", "str", "category", "datetime", "bytes"]))
            categories = ("a", "b") if kind == "category" and draw(st.booleans()) else None
            bounds: Any = {"minimum": -1.5, "maximum": 1e6} if kind in ("float", "int") and draw(st.booleans()) else {}
            fields.append(
                Column(
                    name,
                    kind,
                    nullable=draw(st.booleans()),
                    optional=draw(st.booleans()),
                    categories=categories,
                    enforce=draw(st.booleans()),
                    **bounds,
                )
            )
        else:
            shape = draw(st.sampled_from([(-1,), (-1, 2), (-1, 2, 1), (-1, -1, 2)]))
            fields.append(Tensor(name, draw(st.sampled_from(["float64", "float32", "uint8", "uint64"])), shape))
    return tuple(fields)


def _value(draw: st.DrawFn, field: Field) -> Any:
    if isinstance(field, Tensor):
        elements = _VALUES[field.dtype]
        for size in reversed(field.row_shape):
            elements = st.lists(elements, min_size=abs(size), max_size=abs(size))
        return draw(elements)
    if tables.may_be_null(field) and draw(st.booleans()):
        return None
    if field.enforce and field.categories:
        return draw(st.sampled_from(field.categories))
    if field.enforce and field.minimum is not None:
        return draw(st.integers(-1, 10**6))
    return draw(_VALUES[field.type])


@st.composite
def _cases(draw: st.DrawFn, requests: int = 1) -> tuple[Signature, list[list[dict[str, Any]]]]:
    fields = draw(_fields())
    counts = draw(st.lists(st.integers(0, 3), min_size=requests, max_size=requests))
    return Signature(inputs=fields, outputs=OUTPUTS), [
        [{field.name: _value(draw, field) for field in fields} for _ in range(count)] for count in counts
    ]


def _body(form: str, signature: Signature, rows: list[dict[str, Any]]) -> bytes:
    if form == "native":
        return json.dumps(rows).encode()
    if form == "v1":
        return json.dumps({"instances": rows}).encode()
    if form == "v1-list":
        only = len(signature.inputs) == 1
        lists = [next(iter(row.values())) if only else list(row.values()) for row in rows]
        return json.dumps({"instances": lists}).encode()
    if form == "v1-inputs":
        return json.dumps({"inputs": {f.name: [row[f.name] for row in rows] for f in signature.inputs}}).encode()
    inputs = []
    for field in signature.inputs:
        shape = [len(rows), *(abs(size) for size in (field.row_shape if isinstance(field, Tensor) else ()))]
        data = [row[field.name] for row in rows]
        said = {"content_type": "base64"} if isinstance(field, Column) and field.type == "bytes" else {}
        inputs.append(
            {"name": field.name, "datatype": datatype(field), "shape": shape, "data": data, "parameters": said}
        )
    return json.dumps({"inputs": inputs}).encode()


FORMS: dict[str, WireFormat] = {
    "native": native.PROTOCOL,
    "v2": v2.PROTOCOL,
    "v1": v1.PROTOCOL,
    "v1-list": v1.PROTOCOL,
    "v1-inputs": v1.PROTOCOL,
}


def _codec(form: WireFormat, signature: Signature) -> Codec:
    return form.codec(Subject("churn", 7, "function", signature))


def _predict(decoded: Decoded) -> dict[str, Any]:
    """Outputs that depend on nothing but the values of a row."""
    texts = [
        json.dumps([np.asarray(values[row]).tolist() for values in decoded.columns.values()], default=str)
        for row in range(decoded.count)
    ]
    return {
        "prediction": np.array([float(zlib.crc32(text.encode())) for text in texts]),
        "label": np.array(texts, object),
    }


def _answers(codec: Codec, bodies: list[bytes]) -> list[Any]:
    decoded = codec.decode(bodies)
    return list(codec.encode(decoded, _predict(decoded), {}))


@given(_cases(), st.sampled_from(sorted(FORMS)))
def test_rows_written_in_any_form_reach_the_model_unchanged(
    case: tuple[Signature, list[list[dict[str, Any]]]], form: str
) -> None:
    signature, [rows] = case
    decoded = _codec(FORMS[form], signature).decode([_body(form, signature, rows)])
    assert decoded.parts[0].failure is None, decoded.parts[0].failure
    assert not decoded.parts[0].errors
    assert decoded.count == len(rows)
    assert list(decoded.columns) == [field.name for field in signature.inputs]
    for field in signature.inputs:
        got, values = decoded.columns[field.name], [row[field.name] for row in rows]
        if isinstance(field, Column) and field.type == "datetime":
            wanted = np.array(values, "datetime64[us]")
        elif isinstance(field, Column) and field.type == "bytes":
            wanted = tables.column(field, [None if value is None else base64.b64decode(value) for value in values])
        else:
            wanted = tables.column(field, values)
        assert got.dtype == wanted.dtype
        assert_array_equal(got, wanted)


@given(_cases(requests=4), st.sampled_from(sorted(FORMS)), st.integers(0, 3))
def test_a_batch_answers_like_as_many_batches_of_one(
    case: tuple[Signature, list[list[dict[str, Any]]]], form: str, broken: int
) -> None:
    signature, requests = case
    codec = _codec(FORMS[form], signature)
    bodies = [_body(form, signature, rows) for rows in requests]
    bodies[broken] = bodies[broken][:-1]
    together = _answers(codec, bodies)
    assert together == [_answers(codec, [body])[0] for body in bodies]
    assert together[broken].status == 400


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), max_size=6))
def test_answers_keep_the_order_of_requests_and_rows(requests: list[list[int]]) -> None:
    signature = Signature(inputs=(Column("x", "int"),), outputs=(Column("prediction", "int"),))
    rows = [[{"x": value} for value in values] for values in requests]
    codec = _codec(native.PROTOCOL, signature)
    decoded = codec.decode([_body("native", signature, each) for each in rows])
    encoded = codec.encode(decoded, {"prediction": decoded.columns["x"]}, {})
    assert [[row["prediction"] for row in json.loads(one.body)] for one in encoded] == requests


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text | st.sampled_from([10**400, "NaN", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def _damaged(draw: st.DrawFn, body: bytes) -> bytes:
    how = draw(st.sampled_from(["byte", "cut", "insert", "double", "value"]))
    place = draw(st.integers(0, len(body)))
    if how == "cut":
        return body[:place]
    if how == "insert":
        piece = draw(st.sampled_from([b"[", b"}", b'"', b",", b"NaN", b"1e999", b"\xff", b"\x00", b"null", b"\\ud800"]))
        return body[:place] + piece + body[place:]
    if how == "byte":
        return body[:place] + bytes([draw(st.integers(0, 255))]) + body[place + 1 :]
    if how == "double":
        return body + body
    return json.dumps(_replaced(draw, json.loads(body))).encode()


def _replaced(draw: st.DrawFn, value: Any) -> Any:
    """The same JSON with one value somewhere in it replaced by anything."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        return value | {key: _replaced(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _replaced(draw, value[place]), *value[place + 1 :]]
    return draw(_junk)


@settings(max_examples=300)
@given(st.data(), _cases(), st.sampled_from(sorted(FORMS)))
def test_a_damaged_body_is_answered_or_refused_and_never_raises(
    data: st.DataObject, case: tuple[Signature, list[list[dict[str, Any]]]], form: str
) -> None:
    signature, [rows] = case
    codec = _codec(FORMS[form], signature)
    good = _body(form, signature, rows)
    bodies = [good, data.draw(_damaged(good)), good]
    decoded = codec.decode(bodies)
    encoded = codec.encode(decoded, _predict(decoded), {})
    hurt = encoded[1]
    assert hurt.status == 200 or 400 <= hurt.status < 500
    assert (hurt.status == 200) == (decoded.parts[1].failure is None)
    json.loads(hurt.body)
    alone = _answers(codec, [good])[0]
    assert encoded[0] == encoded[2] == alone
    assert decoded.count == sum(part.count for part in decoded.parts)


@given(st.binary(max_size=60), st.sampled_from(FORMATS))
def test_any_bytes_at_all_are_answered_or_refused(body: bytes, form: WireFormat) -> None:
    signature = Signature(inputs=(Column("x", "float", optional=True),), outputs=OUTPUTS)
    (answer,) = _answers(_codec(form, signature), [body])
    assert answer.status in (200, 400, 422)


@given(_fields())
def test_the_example_row_of_any_signature_is_valid(fields: tuple[Field, ...]) -> None:
    signature = Signature(inputs=fields, outputs=OUTPUTS)
    body = json.dumps(example_row(signature)).encode()
    (part,) = _codec(native.PROTOCOL, signature).decode([body]).parts
    assert part.failure is None


@settings(max_examples=50)
@given(_fields())
def test_a_codec_can_be_dropped_at_any_time(fields: tuple[Field, ...]) -> None:
    # Some unions of types corrupt the memory of msgspec once they are collected; that would end this process.
    signature = Signature(inputs=fields, outputs=OUTPUTS)
    codecs = [_codec(form, signature) for form in FORMATS]
    for codec in codecs:
        codec.decode([b"{}", b'{"instances":[1]}', b"[{}]"])
    del codecs, codec
    gc.collect()
