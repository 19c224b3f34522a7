"""A model that costs nothing beside reading its tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

import salver


class Pixel(salver.Model):
    """The first value of each row."""

    def predict(self, rows: Any) -> Any:
        """One float per row."""
        return rows["x"].reshape(len(rows["x"]), -1)[:, 0].astype(np.float64)
