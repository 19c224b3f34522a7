"""CSV, JSON lines, `.npy` and Arrow under any signature and any damage: what is written is read, and nothing raises."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from salver import plugins, tables
from salver.protocols import Codec, Subject
from salver.signature import Column, Field, Signature, Tensor

FORMS = ("csv", "jsonlines", "npy", "npz", "arrow")
OF_NUMBERS = ("npy", "npz")
ENDPOINTS = ("native", "invocations")
OUTPUTS = (Column("prediction", "float"), Column("n", "int", nullable=True))

_names = st.text(st.characters(exclude_categories=["C"], exclude_characters='"\\'), min_size=1, max_size=6)
_text = st.text(st.characters(exclude_categories=["C"]) | st.sampled_from(list('\r\n",')), max_size=6)
_finite = st.floats(allow_nan=False, allow_infinity=False)
_int53 = st.integers(-(2**53), 2**53)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": _finite,
    "int": _int53,
    "bool": st.booleans(),
    "str": _text,
    "category": _text,
    "datetime": st.datetimes(),
    "bytes": st.binary(max_size=6),
}


@st.composite
def _tables(draw: st.DrawFn, kinds: tuple[str, ...] = tuple(_VALUES)) -> tuple[tuple[Field, ...], list[list[Any]]]:
    """Fields and the values of each column; null where the field allows it."""
    count = draw(st.integers(0, 4))
    fields: list[Field] = []
    columns: list[list[Any]] = []
    for name in draw(st.lists(_names, min_size=1, max_size=4, unique_by=str.strip)):
        kind: Any = draw(st.sampled_from(kinds))
        nullable = draw(st.booleans())
        value = _VALUES[kind]
        if nullable and kind in ("str", "category", "bytes"):
            value = value.filter(bool)  # in CSV an empty cell is null
        columns.append(draw(st.lists(st.none() | value if nullable else value, min_size=count, max_size=count)))
        fields.append(Column(name.strip() or "x", kind, nullable=nullable))
    return tuple(fields), columns


def _codec(form: str, fields: tuple[Field, ...]) -> Codec:
    return plugins.protocol(form).codec(Subject("churn", 7, "function", Signature(fields, OUTPUTS)))  # type: ignore[no-any-return]


def _written(form: str, fields: tuple[Field, ...], columns: list[list[Any]]) -> bytes:
    """The rows as Salver itself writes them."""
    if form == "jsonlines":
        names = [field.name for field in fields]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        return b"".join(json.dumps(row, default=_plain).encode() + b"\n" for row in rows)
    arrays = {field.name: tables.column(field, values) for field, values in zip(fields, columns, strict=True)}
    body: bytes = plugins.protocol(form).writer(fields).write(arrays, len(columns[0]), "native")
    return body


def _plain(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value.isoformat())


def _check(form: str, fields: tuple[Field, ...], columns: list[list[Any]]) -> None:
    decoded = _codec(form, fields).decode([_written(form, fields, columns)], {"endpoint": "native"})
    (part,) = decoded.parts
    assert part.failure is None, part.failure
    assert (part.errors, decoded.count) == ({}, len(columns[0]))
    for field, values in zip(fields, columns, strict=True):
        expected = tables.column(field, values)
        got = decoded.columns[field.name]
        assert got.dtype == expected.dtype
        assert_array_equal(got, expected)


@given(form=st.sampled_from(("csv", "jsonlines", "arrow")), table=_tables())
def test_random_columns_come_back_as_they_were(form: str, table: tuple[tuple[Field, ...], list[list[Any]]]) -> None:
    _check(form, *table)


@given(table=_tables(("float", "int", "bool")))
def test_random_numbers_come_back_through_one_array(table: tuple[tuple[Field, ...], list[list[Any]]]) -> None:
    fields, columns = table
    if len({field.type for field in fields if isinstance(field, Column)}) > 1:  # one array has one dtype
        columns = [[None if v is None else type(v)(v) for v in values] for values in columns]
    _check("npy", fields, columns)


@given(table=_tables(("float", "int", "bool")))
def test_random_numbers_come_back_through_an_array_for_each(table: tuple[tuple[Field, ...], list[list[Any]]]) -> None:
    _check("npz", *table)


@given(
    form=st.sampled_from(("npy", "npz", "arrow", "csv")),
    dtype=st.sampled_from(["float64", "float32", "int16", "uint8", "bool"]),
    shape=st.lists(st.integers(1, 3), max_size=3),
    count=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_random_tensors_come_back_as_they_were(form: str, dtype: str, shape: list[int], count: int, seed: int) -> None:
    field = Tensor("x", dtype, (-1, *shape))
    array = np.random.default_rng(seed).integers(0, 2, (count, *shape)).astype(dtype)
    body = plugins.protocol(form).writer((field,)).write({"x": array}, count, "native")
    decoded = _codec(form, (field,)).decode([body], {})
    assert decoded.parts[0].failure is None, decoded.parts[0].failure
    assert decoded.columns["x"].dtype == array.dtype
    assert_array_equal(decoded.columns["x"], array)


def _mutated(body: bytes, chance: random.Random) -> bytes:
    data = bytearray(body)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 16)]
            case 2:
                data[at:at] = chance.choice(
                    [b"NaN", b'{"b64":1}', b"\xff\xff\xff\x7f", b'"', b"[", b"\n", b",", b"\0" * 8]
                )
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 32)]
            case _:
                data[at : at + 4] = chance.choice([b"\xff" * 4, b"\0" * 4, b"\x00\x00\x00\x80"])
    return bytes(data)


@settings(max_examples=150)
@given(
    table=_tables(("float", "int", "bool")),
    mixed=_tables(),
    seed=st.integers(0, 2**32),
    answer=st.sampled_from([None, *FORMS, "recordio"]),
)
def test_damaged_bodies_are_refused_or_read_and_never_raise(
    table: tuple[tuple[Field, ...], list[list[Any]]],
    mixed: tuple[tuple[Field, ...], list[list[Any]]],
    seed: int,
    answer: str | None,
) -> None:
    chance = random.Random(seed)
    for form in FORMS:
        fields, columns = table if form in OF_NUMBERS else mixed
        good = _written(form, fields, columns)
        bodies = [good, *(_mutated(good, chance) for _ in range(8)), b"", good[: len(good) // 2]]
        _answer(form, fields, bodies, {"endpoint": chance.choice(ENDPOINTS)} | ({"answer": answer} if answer else {}))


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), tensor=st.booleans())
def test_damaged_libsvm_is_refused_or_read_and_never_raises(seed: int, tensor: bool) -> None:
    chance = random.Random(seed)
    good = b"1 0:5.1 1:3\n0 1:7\n0:-2.5e3\n\n1 # nothing else\n"
    fields: tuple[Field, ...] = (Column("a", "float", nullable=True), Column("b", "int"))
    if tensor:
        fields = (Tensor("x", chance.choice(["float32", "uint8"]), (-1, 2)),)
    bodies = [good, *(_mutated(good, chance) for _ in range(8)), b"", good[: len(good) // 2]]
    _answer("libsvm", fields, bodies, {"endpoint": "invocations"})


JSON_BODIES = (
    b'{"dataframe_split":{"columns":["a","b"],"index":[0],"data":[[1.5,"x"],[2,null]]},"params":{"k":1}}',
    b'{"dataframe_records":[{"a":1.5,"b":"x"},{"a":2,"b":null}]}',
    b'{"instances":[{"a":1.5,"b":{"b64":"eA=="}},[NaN,"y"]],"signature_name":"serving_default"}',
    b'{"inputs":{"a":[1,Infinity],"b":["x",null]}}',
    b'{"data":[[1,"x"],{"a":2,"b":"y"}]}',
    b'[{"a":1,"b":"x"},[2,"y"]]',
    b'{"a":1,"b":"x"}',
)


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), body=st.sampled_from(JSON_BODIES), answer=st.sampled_from([None, *FORMS]))
def test_damaged_json_of_every_peer_never_raises(seed: int, body: bytes, answer: str | None) -> None:
    chance = random.Random(seed)
    fields = (Column("a", "float"), Column("b", "str", nullable=True))
    bodies = [body, *(_mutated(body, chance) for _ in range(8))]
    for form in ("invocations", "torchserve", "v1"):
        _answer(form, fields, bodies, {"answer": answer} if answer and form == "invocations" else {})


def _answer(form: str, fields: tuple[Field, ...], bodies: list[bytes], options: dict[str, str]) -> None:
    codec = _codec(form, fields)
    decoded = codec.decode(bodies, options)
    assert len(decoded.parts) == len(bodies)
    assert all(len(values) == decoded.count for values in decoded.columns.values())
    outputs = {"prediction": np.arange(float(decoded.count)), "n": np.full(decoded.count, np.nan)}
    encoded = codec.encode(decoded, outputs if decoded.count else {}, {})
    assert [each.status in (200, 400, 406, 413, 422) for each in encoded] == [True] * len(bodies)
    if decoded.extra is not None:
        assert decoded.extra() >= 0


def test_hostile_arrow_never_kills_the_process() -> None:
    table = pa.table({"a": [1.5, 2.5], "b": pa.array(["x", "y"]).dictionary_encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    good = bytes(sink.getvalue())
    chance = random.Random(7)
    fields = (Column("a", "float"), Column("b", "str"))
    for _ in range(40):
        _answer("arrow", fields, [_mutated(good, chance) for _ in range(50)], {"endpoint": "native"})
