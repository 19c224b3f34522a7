"""`.npz` archives: arrays by name or one for all rows, and the archives that would cost too much."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from salver import plugins
from salver.errors import SalverError
from salver.protocols import Part, Subject
from salver.protocols.npz import MORE, RATIO, UNPACKED
from salver.protocols.rows import MAX_ROWS
from salver.signature import Column, Field, Signature, Tensor

NUMBERS: tuple[Field, ...] = (Column("a", "float"), Column("b", "int"), Column("c", "bool", optional=True))


def read(body: bytes, *fields: Field) -> tuple[Part, Any]:
    signature = Signature(fields or NUMBERS, (Column("p", "float"),))
    decoded = plugins.protocol("npz").codec(Subject("m", 1, "function", signature)).decode([body], {})
    return decoded.parts[0], decoded


def archive(save: Any = np.savez, **arrays: Any) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, member in members.items():
            made.writestr(name, member)
    return file.getvalue()


def refused(body: bytes, *fields: Field) -> SalverError:
    failure = read(body, *fields)[0].failure
    assert failure is not None
    return failure


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_found_by_name_and_others_are_counted_and_not_read(save: Any) -> None:
    part, decoded = read(archive(save, b=np.array([3, 4]), a=np.array([1.5, 2.5]), note=np.array([{}], object)))
    assert part.failure is None
    assert {name: array.tolist() for name, array in decoded.columns.items()} == {
        "a": [1.5, 2.5],
        "b": [3, 4],
        "c": [None, None],
    }
    assert decoded.extra() == 2


def test_one_array_is_the_rows_of_the_columns_or_of_the_tensor() -> None:
    matrix = np.arange(6.0).reshape(2, 3)
    columns = (Column("x", "float"), Column("y", "float"), Column("z", "float"))
    assert read(archive(arr_0=matrix), *columns)[1].columns["z"].tolist() == [2.0, 5.0]
    for name in ("arr_0", "x"):
        _, decoded = read(archive(**{name: matrix.astype(np.float32)}), Tensor("x", "float32", (-1, 3)))
        assert_array_equal(decoded.columns["x"], matrix)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (archive(a=np.ones(2)), "bad-protocol-body", "lacks b"),
        (archive(u=np.ones(2), v=np.ones(2)), "bad-protocol-body", "lacks a, b"),
        (archive(a=np.ones(2), b=np.ones(3)), "bad-protocol-body", "differ in length"),
        (archive(a=np.float64(1), b=np.float64(1)), "bad-protocol-body", "differ in length"),
        (archive(a=np.ones((2, 1)), b=np.ones(2)), "bad-protocol-body", "one dimension"),
        (archive(a=np.array([{}, {}], object), b=np.ones(2)), "bad-protocol-body", "dtype of numbers"),
        (archive(a=np.ones(MAX_ROWS + 1), b=np.ones(MAX_ROWS + 1)), "too-many-rows", "rows"),
        (packed({"arr_0.npy": b"x"}, zipfile.ZIP_LZMA), "bad-protocol-body", "another way"),
        (packed({}), "bad-protocol-body", "lacks a, b"),
        (b"", "bad-protocol-body", "no .npz archive"),
        (archive(a=np.ones(2))[:-30], "bad-protocol-body", "no .npz archive"),
    ],
)
def test_what_is_wrong_with_an_archive_is_named(body: bytes, code: str, said: str) -> None:
    problem = refused(body)
    assert (problem.code, said in problem.message) == (code, True), problem


def test_a_bomb_is_refused_before_anything_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> bytes:
        raise AssertionError("it was unpacked")

    monkeypatch.setattr(zipfile.ZipFile, "read", never)
    assert refused(packed({"arr_0.npy": bytes(UNPACKED + 1)})).code == "too-large"
    small = packed({"arr_0.npy": bytes(1 << 20)})
    assert len(small) * RATIO < 1 << 20
    assert refused(small).code == "too-large"
    assert refused(packed({"a.npy": bytes(UNPACKED // 2 + 1), "b.npy": bytes(UNPACKED // 2)})).code == "too-large"
    many = packed({str(number): b"" for number in range(MORE + len(NUMBERS) + 1)}, zipfile.ZIP_STORED)
    monkeypatch.setattr(zipfile, "ZipFile", never)
    assert refused(many).code == "too-large"


def test_a_size_that_lies_is_found_out() -> None:
    honest = packed({"a.npy": bytes(1000), "b.npy": bytes(1000)}, zipfile.ZIP_STORED)
    lying = honest.replace(struct.pack("<I", 1000), struct.pack("<I", 10))
    assert refused(lying).code == "bad-protocol-body"


def test_what_arrays_of_numbers_cannot_hold_is_not_written() -> None:
    for field in (Column("s", "str"), Tensor("x", "float32", (-1, -1))):
        with pytest.raises(SalverError) as raised:
            plugins.protocol("npz").writer((field,))
        assert raised.value.code == "not-acceptable"
