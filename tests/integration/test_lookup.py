"""Tables on a disk: the same bytes again, clear errors for what is damaged, many readers, many rows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import salver
from salver.lookup import layout

WORDS = [f"word{number}" for number in range(2000)]
VECTORS = np.random.default_rng(0).standard_normal((2000, 8), dtype=np.float32)
COLUMNS = {
    "vector": VECTORS,
    "count": np.arange(2000, dtype=np.int32),
    "seen": np.arange("2020-01-01", 2000, dtype="M8[D]"),
    "known": np.arange(2000) % 2 == 0,
    "name": [f"name of {word}" for word in WORDS],
    "raw": [bytes([number % 256]) * (number % 5) for number in range(2000)],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    salver.Table.write(tmp_path / "words.table", WORDS, COLUMNS)
    return tmp_path / "words.table"


def test_every_column_comes_back_as_it_was_written(path: Path) -> None:
    table = salver.Table(path)
    assert table.columns == tuple(COLUMNS)
    rows = table.get(WORDS[::-1])
    assert rows.found.all()
    for name, column in COLUMNS.items():
        given = np.asarray(column, object if isinstance(column, list) else None)
        assert rows.values[name].dtype == given.dtype
        assert (rows.values[name] == given[::-1]).all()
    table.verify()


def test_a_plain_table_gives_arrays(tmp_path: Path) -> None:
    salver.Table.write(tmp_path / "plain.table", np.array(WORDS), VECTORS)
    table = salver.Table(tmp_path / "plain.table")
    assert table.columns == ()
    assert table["word7"].tobytes() == VECTORS[7].tobytes()
    rows = table.get(["word7", "nobody", None, "word7"], default=-1)
    assert (rows.values == np.stack([VECTORS[7], VECTORS[7] * 0 - 1, VECTORS[7] * 0 - 1, VECTORS[7]])).all()
    assert rows.found.tolist() == [True, False, False, True]
    assert table.get(["x"], default=VECTORS[0]).values.tolist() == [VECTORS[0].tolist()]


def test_a_dataframe_is_a_table_of_its_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"score": [0.5, 1.5], "city": ["Oslo", "Lima"]}, index=["a", "b"])
    written = tmp_path / "frame", tmp_path / "mapping"
    salver.Table.write(written[0], frame.index, frame)
    salver.Table.write(written[1], ["a", "b"], {name: frame[name].to_numpy() for name in frame})
    assert written[0].read_bytes() == written[1].read_bytes()
    assert salver.Table(written[0])["b"] == {"score": 1.5, "city": "Lima"}


def test_a_row_that_is_missing_gets_the_defaults(path: Path) -> None:
    table = salver.Table(path)
    values = table.get(["nobody"], default={"count": -1}).values
    assert values["vector"].tolist() == [[0.0] * 8]
    assert np.isnat(values["seen"][0])
    assert [values[name][0] for name in ("count", "known", "name", "raw")] == [-1, False, "", b""]
    with pytest.raises(KeyError):
        table["nobody"]
    with pytest.raises(KeyError):
        table.get(WORDS, default={"cuont": 0})


@pytest.mark.parametrize("keys", [["a", "b"], [1, 2], [b"a", b"b"]])
def test_no_key_is_never_found_and_one_of_another_kind_is_refused(keys: list[Any], tmp_path: Path) -> None:
    salver.Table.write(tmp_path / "table", keys, np.arange(2.0))
    table = salver.Table(tmp_path / "table")
    for missing in (None, float("nan")):
        assert missing not in table
        assert not table.get([missing]).found[0]
        with pytest.raises(KeyError):
            table[missing]
    with pytest.raises(TypeError):
        table[1.5]


def test_the_same_content_is_the_same_file_however_it_is_cut(path: Path, tmp_path: Path) -> None:
    def batches() -> Iterator[tuple[Any, Any]]:
        for start in range(0, 2000, 300):
            piece = slice(start, start + 300)
            yield WORDS[piece], {name: column[piece] for name, column in COLUMNS.items()}

    assert salver.Table.write_batches(tmp_path / "again.table", batches()) == 2000
    assert (tmp_path / "again.table").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("keys", "values", "said"),
    [
        (["a", "b", "a"], [1, 2, 3], "'a' is the key of row 2"),
        ([5, 6, 7, 5, 5], np.zeros(5), "5 is the key of row 4"),
        (["a", None], [1, 2], "row 1 is missing"),
        (["a", 1], [1, 2], "keys of this table are str"),
        ([1.5], [1], "the first is float"),
        ([2**64], [1], "row 0 is missing or no 64-bit number"),
        (["a"], [1, 2], "2 rows for 1 keys"),
        (["a", "b"], {"x": ["s", None]}, "'x' holds NoneType, str"),
        (["a"], {"x": [1 + 2j]}, "holds complex"),
        (["a"], {"x": 7}, "holds int"),
    ],
)
def test_what_no_table_can_hold_is_refused_and_leaves_nothing(
    keys: Any, values: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(salver.UserError, match=said) as caught:
        salver.Table.write(tmp_path / "bad.table", keys, values)
    assert caught.value.code == "bad-table"
    assert list(tmp_path.iterdir()) == []


def test_later_batches_must_be_as_the_first(tmp_path: Path) -> None:
    first = (["a"], {"x": np.zeros(1)})
    for later, said in [
        ((["b"], {"x": np.zeros((1, 2))}), "'x' is <f8 in the first batch and <f8\\[2\\] in a later one"),
        ((["b"], {"x": ["text"]}), "'x' is <f8 in the first batch and str in a later one"),
        ((["b"], {"y": np.zeros(1)}), "columns are \\['x'\\] in the first batch"),
        ((["a"], {"x": np.zeros(1)}), "more than once"),
    ]:
        with pytest.raises(salver.UserError, match=said):
            salver.Table.write_batches(tmp_path / "bad.table", [first, later])


def test_a_file_that_is_cut_anywhere_is_refused(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for size in [0, 7, 12, 100, *range(1000, len(whole), 9973), len(whole) - 1]:
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(salver.Broken) as caught:
            salver.Table(tmp_path / "cut")
        assert caught.value.code == "corrupt"
    (tmp_path / "cut").write_bytes(whole + b"x")
    with pytest.raises(salver.Broken, match="1 bytes too many"):
        salver.Table(tmp_path / "cut")


def test_a_changed_byte_is_found_and_never_crashes(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    header, base = layout.read(path)
    places = [place for s in header.sections() for place in (s.offset, s.offset + 3, s.offset + s.size - 1)]
    changed = tmp_path / "changed"
    for place in [3, 20, 90, *(base + place for place in places)]:
        data = bytearray(whole)
        data[place] ^= 0xFF
        changed.write_bytes(data)
        with pytest.raises(salver.Broken) as caught:
            used(changed)
        assert caught.value.code == "corrupt"


def used(path: Path) -> None:
    """Look everything up, as a model does, then read every byte."""
    table = salver.Table(path)
    table.get(WORDS)
    list(table)
    table.verify()


def test_what_is_not_there_or_newer_is_said(path: Path, tmp_path: Path) -> None:
    with pytest.raises(salver.UserError) as caught:
        salver.Table(tmp_path / "none.table")
    assert caught.value.code == "missing-file"
    header, base = layout.read(path)
    newer = layout.encode(type(header)(2, *[getattr(header, name) for name in header.__struct_fields__[1:]]))
    (tmp_path / "newer").write_bytes(newer + path.read_bytes()[base:])
    with pytest.raises(salver.UserError) as caught:
        salver.Table(tmp_path / "newer")
    assert caught.value.code == "format-too-new"


READER = """
import sys, numpy as np, salver
table = salver.Table(sys.argv[1])
words = list(table)
random = np.random.default_rng(int(sys.argv[2]))
for _ in range(200):
    asked = random.integers(0, len(words), 100)
    assert (table.get([words[place] for place in asked]).values["count"] == asked).all()
print(len(words))
"""


def test_many_processes_read_one_file_while_another_takes_its_place(path: Path) -> None:
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, str(path), str(seed)], stdout=subprocess.PIPE)
        for seed in range(4)
    ]
    salver.Table.write(path, WORDS, COLUMNS)
    assert [reader.communicate()[0].strip() for reader in readers] == [b"2000"] * 4


MILLIONS = """
import resource, sys, numpy as np, salver
n, step = 10_000_000, 500_000
def batches():
    for start in range(0, n, step):
        keys = np.arange(start, start + step)
        yield keys * 977, {"a": keys.astype(np.float32), "b": (keys % 100).astype(np.int16)}
assert salver.Table.write_batches(sys.argv[1], batches()) == n
"""
LOOK = """
import re, sys, numpy as np, salver
table = salver.Table(sys.argv[1])
asked = np.random.default_rng(0).integers(0, len(table), 2000)
rows = table.get(asked * 977)
assert rows.found.all() and (rows.values["a"] == asked.astype(np.float32)).all()
assert not table.get(asked * 977 + 1).found.any()
status = open("/proc/self/status").read() if sys.platform == "linux" else "RssAnon: 0"
print(re.search(r"RssAnon:\\s+(\\d+)", status)[1])
"""


def test_ten_million_keys_need_no_memory_of_their_own(tmp_path: Path) -> None:
    path = str(tmp_path / "many.table")
    subprocess.run([sys.executable, "-c", MILLIONS, path], check=True)
    looked = subprocess.run([sys.executable, "-c", LOOK, path], check=True, capture_output=True, text=True)
    assert os.path.getsize(path) > 200_000_000
    assert int(looked.stdout) < 60_000, "kB of anonymous memory"
