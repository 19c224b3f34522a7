"""A model that keeps as much memory as it is asked to."""

from __future__ import annotations

from typing import Any

import numpy as np

import salver


class Filling(salver.Model):
    """Keeps so many MiB more for each row, and answers how many those are."""

    def load(self, files: Any) -> None:
        del files
        self.kept: list[Any] = []

    def predict(self, rows: Any) -> Any:
        for mib in rows["mib"].tolist():
            self.kept += [np.ones(1 << 17) for _ in range(mib)]
        return rows["mib"]
