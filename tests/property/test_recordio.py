"""Records in RecordIO under any damage: rows or a refusal, and never other numbers than protobuf finds."""

from __future__ import annotations

import math
import random
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st

from salver import plugins
from salver.errors import SalverError
from salver.protocols import Decoded, Subject
from salver.signature import Column, Field, Signature, Tensor
from tests.unit.records import Record, UnpackedRecord, frame, framed, record

KINDS = ("float32_tensor", "float64_tensor", "int32_tensor")
WIDTH = 4
COLUMNS: tuple[Field, ...] = tuple(Column(name, "float", nullable=True) for name in "abcd")
SIGNATURES: tuple[tuple[Field, ...], ...] = (
    COLUMNS,
    (Column("a", "int"), Column("b", "bool"), *COLUMNS[2:]),
    (Tensor("x", "float32", (-1, WIDTH)),),
    (Tensor("x", "uint8", (-1, 2, 2)),),
    (Tensor("x", "float64", (-1, -1)),),
)

_whole = st.integers(-(2**31), 2**31 - 1)
_numbers = st.lists(_whole, min_size=WIDTH, max_size=WIDTH)
_of = st.sampled_from([Record, UnpackedRecord])


def _decoded(fields: tuple[Field, ...], bodies: list[bytes]) -> Decoded:
    subject = Subject("churn", 7, "function", Signature(fields, (Column("p", "float"),)))
    decoded: Decoded = plugins.protocol("recordio").codec(subject).decode(bodies, {"endpoint": "invocations"})
    assert len(decoded.parts) == len(bodies)
    assert all(len(values) == decoded.count for values in decoded.columns.values())
    for part in decoded.parts:
        assert part.failure is None or part.failure.meaning.http in (400, 413, 422)
        assert all(isinstance(problem, SalverError) for problem in part.errors.values())
    return decoded


def _damaged(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(damaged) + 1)
        match chance.randrange(5):
            case 0:
                damaged[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                damaged[at : at + 1] = bytes([byte ^ 1 << chance.randrange(8) for byte in damaged[at : at + 1]])
            case 2:
                del damaged[at : at + chance.randint(1, 8)]
            case 3:
                damaged[at:at] = chance.choice([b"\xff" * 9, b"\0", b"\x0a\x23\xd7\xce", b"\x18\x80\x80\x80\x08"])
            case _:
                damaged[at:at] = damaged[at : at + chance.randint(1, 24)]
    return bytes(damaged)


def _written(chance: random.Random) -> bytes:
    kind, of = chance.choice(KINDS), chance.choice([Record, UnpackedRecord])
    values = [chance.choice([0, 1, 7, -5, 300]) for _ in range(WIDTH)]
    if chance.random() < 0.5:
        return record(values, kind=kind, of=of)
    return record(values[:2], chance.sample(range(WIDTH), 2), [WIDTH], kind=kind, of=of)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(_numbers, _of), max_size=5), kind=st.sampled_from(KINDS[1:]))
def test_random_rows_come_back_as_protobuf_wrote_them(rows: list[tuple[list[int], Any]], kind: str) -> None:
    decoded = _decoded(COLUMNS, [framed(*(record(values, kind=kind, of=of) for values, of in rows))])
    assert decoded.parts[0].failure is None
    got = [decoded.columns[name].tolist() for name in "abcd"]
    assert got == [[float(values[at]) for values, _ in rows] for at in range(WIDTH)]


@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32), fields=st.sampled_from(SIGNATURES))
def test_damaged_bodies_are_refused_or_read_and_never_raise(seed: int, fields: tuple[Field, ...]) -> None:
    chance = random.Random(seed)
    good = framed(*(_written(chance) for _ in range(3)))
    _decoded(fields, [good, b"", *(_damaged(good, chance) for _ in range(12))])
    inner = [frame(_damaged(_written(chance), chance)) for _ in range(12)]  # the frame is whole, the record is not
    _decoded(fields, inner)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_every_end_of_a_body_is_refused_except_between_its_records(seed: int) -> None:
    chance = random.Random(seed)
    records = [frame(_written(chance)) for _ in range(2)]
    good = b"".join(records)
    decoded = _decoded(COLUMNS, [good[:end] for end in range(len(good) + 1)])
    whole = [end for end, part in enumerate(decoded.parts) if part.failure is None]
    assert whole == [0, len(records[0]), len(good)]


@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32))
def test_what_is_read_of_a_damaged_record_is_what_protobuf_reads(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        payload = _damaged(_written(chance) + (_written(chance) if chance.random() < 0.3 else b""), chance)
        try:
            parsed = Record.FromString(payload)
        except DecodeError:
            continue
        if len(UnknownFieldSet(parsed)):  # where it also keeps entries of a map that have a field too many
            continue
        value = parsed.features["values"]
        decoded = _decoded(COLUMNS, [frame(payload)])
        if decoded.count:
            tensor = getattr(value, value.WhichOneof("value"))
            dense = dict(zip(tensor.keys or range(len(tensor.values)), tensor.values, strict=True))
            for at, name in enumerate("abcd"):
                expected, (got,) = dense.get(at, math.nan), decoded.columns[name].tolist()
                assert got == expected or (math.isnan(got) and math.isnan(expected))
