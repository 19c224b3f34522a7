"""A model whose answers can be computed by anyone: a hash of a salt and the row's key. It misbehaves when told to."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from salver.model import Model

MASK = (1 << 31) - 1


def answer(salt: int, key: int) -> int:
    """The one right answer."""
    return (key * 2_654_435_761 + salt * 40_503 + (key >> 7)) & MASK


class Oracle(Model):
    """Answers each key with its hash. The column `act` makes a row misbehave."""

    salt = 1

    def predict(self, rows: Any) -> Any:
        keys, acts = rows["key"], rows["act"]
        for act in set(acts.tolist()):
            if act == "raise":
                raise ValueError("told to raise")
            if act == "exit":
                os._exit(9)
            if act == "sleep":
                time.sleep(0.5)
        return np.array([answer(self.salt, key) for key in keys.tolist()], np.int64)


class SecondOracle(Oracle):
    """The same model, trained anew: other answers."""

    salt = 2


class LyingOracle(Oracle):
    """Answers rightly until the file named in its `toggle` exists."""

    salt = 3

    def load(self, files: Path) -> None:
        self.toggle = Path((files / "toggle").read_text())

    def predict(self, rows: Any) -> Any:
        return super().predict(rows) + (1 if self.toggle.exists() else 0)
