"""A step of a user's own, which no converter knows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_array


class Capped(RegressorMixin, BaseEstimator):
    """Least squares whose answers have a lower end."""

    def __init__(self, low: float = 0.0) -> None:
        self.low = low

    def fit(self, rows: Any, target: Any) -> Capped:
        """Fit by least squares."""
        rows = check_array(rows)
        self.n_features_in_ = rows.shape[1]
        self.weights_ = np.linalg.lstsq(rows, np.asarray(target, float), rcond=None)[0]
        return self

    def predict(self, rows: Any) -> Any:
        """One number for each row, none below the end."""
        return np.maximum(np.asarray(rows) @ self.weights_, self.low)
