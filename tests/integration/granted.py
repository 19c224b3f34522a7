"""A model that answers how many threads its process was granted."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

import salver


class Granted(salver.Model):
    """Says what the variables for pools of threads say."""

    def predict(self, rows: Any) -> Any:
        said = os.environ.get("OMP_NUM_THREADS", "")
        return np.array([said for _ in rows["key"]], object)
