"""A project folder that trains on iris, its target in the column `kind`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sklearn.datasets import load_iris

PROJECT = """
[release]
name = "iris"
entry = "train:model"
examples = "examples.csv"
drop = ["kind"]
"""


def write(folder: Path, train: str, more: str) -> Any:
    """Write the project with this `train.py`, and `more` in its salver.toml; returns the table of examples."""
    (folder / "salver.toml").write_text(PROJECT + more)
    (folder / "train.py").write_text(train)
    table = load_iris(as_frame=True).frame.rename(columns={"target": "kind"})
    table.to_csv(folder / "examples.csv", index=False)
    return table
