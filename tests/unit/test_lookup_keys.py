"""Keys of a table: what may be one, and how it is hashed."""

from __future__ import annotations

import numpy as np
import pytest

from salver.lookup.keys import encode, encode_one, kind_of

SOME = {
    "str": ["king", "", "Zürich", "\ud800", "a" * 500],
    "bytes": [b"", b"\0", b"king", b"\xff" * 9],
    "int": [0, -1, 1, 2**63 - 1, -(2**63), 1 << 40],
}


@pytest.mark.parametrize("kind", SOME)
def test_one_key_and_many_keys_have_the_same_hashes(kind: str) -> None:
    many = encode(kind, SOME[kind])  # type: ignore[arg-type]
    assert kind_of(SOME[kind]) == kind
    pairs = list(zip(many.hashes.tolist(), list(many.stored), strict=True))
    assert pairs == [encode_one(kind, key) for key in SOME[kind]]  # type: ignore[arg-type]


def test_hashes_never_change_because_files_hold_them() -> None:
    assert encode("str", ["king", "Zürich"]).hashes.tolist() == [encode_one("bytes", b"king")[0], 0xD30BA93E]
    assert encode("int", [1, -1]).hashes.tolist() == [0x9E3779B9, 0x61C88646]


def test_numbers_of_every_kind_are_the_same_keys() -> None:
    wanted = encode("int", [3, 5]).hashes.tolist()
    for keys in (
        np.array([3, 5], np.uint8),
        np.array([3, 5], object),
        [np.int16(3), 5],
        (3, np.uint64(5)),
        {3: 0, 5: 0},
    ):
        assert encode("int", keys).hashes.tolist() == wanted


def test_what_is_missing_or_too_large_for_any_table_is_left_out() -> None:
    assert encode("str", ["a", None, float("nan"), "b"]).at.tolist() == [0, 3]
    assert encode("int", [2**70, None, 7, -(2**64)]).at.tolist() == [2]
    assert encode("int", np.array([2**63, 7], np.uint64)).at.tolist() == [1]


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("str", [1]), ("str", [b"a"]), ("bytes", ["a"]), ("int", ["a"]), ("int", [1.5]), ("str", "word"), ("int", 7)],
)
def test_a_key_of_another_kind_is_a_type_error(kind: str, keys: object) -> None:
    with pytest.raises(TypeError):
        encode(kind, keys)  # type: ignore[arg-type]
