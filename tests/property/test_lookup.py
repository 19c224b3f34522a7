"""A table answers as the dict it was written from."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import salver

KEYS = st.one_of(
    st.lists(st.text(max_size=6), unique=True, min_size=1, max_size=60),
    st.lists(st.binary(max_size=4), unique=True, min_size=1, max_size=60),
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1, max_size=60),
)


@settings(max_examples=150)
@given(keys=KEYS, asked=st.lists(st.integers(0, 80), max_size=80), seed=st.integers(0, 2**32 - 1))
def test_a_table_answers_as_a_dict_would(keys: list[object], asked: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers = random.standard_normal((len(keys), 3))
    texts = [str(number) for number in random.integers(0, 10**9, len(keys))]
    truth = dict(zip(keys, zip(numbers.tolist(), texts, strict=True), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.table"
        assert salver.Table.write(path, keys, {"numbers": numbers, "texts": texts}) == len(keys)
        table = salver.Table(path)
        assert (len(table), list(table)) == (len(keys), keys)
        wanted = [keys[place] if place < len(keys) else _other(keys[0], place) for place in asked]
        rows = table.get(wanted)
        got = list(zip(rows.values["numbers"].tolist(), rows.values["texts"], strict=True))
        assert got == [truth.get(key, ([0.0] * 3, "")) for key in wanted]
        assert rows.found.tolist() == [key in truth for key in wanted] == [key in table for key in wanted]
        for key in keys:
            row = table[key]
            assert (row["numbers"].tolist(), row["texts"]) == truth[key]


def _other(like: object, place: int) -> object:
    """A key of the same kind which may or may not be in the table."""
    if isinstance(like, str):
        return f"{place}"
    return bytes([place]) if isinstance(like, bytes) else place
