"""A model of one's own: three numpy arrays, with what has to happen before and after them.

Everything here travels in the release: who serves it later needs neither this folder nor the training code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import salver

MEASURES = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")
SPECIES = np.array(["Adelie", "Chinstrap", "Gentoo"])


class Penguins(salver.Model):
    """Tells three species of penguins apart by their measures."""

    def load(self, files: Path) -> None:
        """Read what training wrote to model/weights.npz."""
        with np.load(files / "weights.npz") as weights:
            self.medians = weights["medians"]
            self.means, self.deviations = weights["means"], weights["deviations"]
            self.weights = weights["weights"]

    def preprocess(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Columns become a matrix; a missing measure becomes the median, then all are brought to one scale."""
        matrix = np.column_stack([rows[name] for name in MEASURES])
        matrix = np.where(np.isnan(matrix), self.medians, matrix)
        return np.column_stack([(matrix - self.means) / self.deviations, np.ones(len(matrix))])

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """A score for each species; row by row, so that a row's answer doesn't hang on its neighbours."""
        return np.einsum("rm,ms->rs", rows, self.weights)

    def postprocess(self, scores: np.ndarray) -> dict[str, Any]:
        """The likeliest species and how sure the model is of it."""
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return {"prediction": SPECIES[shares.argmax(axis=1)], "confidence": shares.max(axis=1)}
