"""A model written by hand: the points of a credit scorecard, read from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from salver.model import Model
from tests.contract.scorecard_points import capped


class Scorecard(Model):
    """Adds up points for age and income."""

    def load(self, files: Path) -> None:
        path = files / "points.json"
        self.points = json.loads(path.read_text()) if path.exists() else {"age": 2.0, "income": 0.5}

    def preprocess(self, rows: Any) -> Any:
        return {name: capped(values) for name, values in rows.items()}

    def predict(self, rows: Any) -> Any:
        return sum(weight * rows[name] for name, weight in self.points.items())

    def postprocess(self, score: Any) -> Any:
        return {"score": score, "granted": np.asarray(score > 100.0)}


class FrameScorecard:
    """The same without our base class, on a DataFrame, answering one."""

    rows_as = "dataframe"

    def load(self, files: Path) -> None:
        """It has no files."""

    def predict(self, rows: Any) -> Any:
        return (rows["age"] * 2.0 + rows["income"] * 0.5).to_frame("score")
