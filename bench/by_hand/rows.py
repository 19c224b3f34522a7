"""The rows of both data sets, as a tutorial declares them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel


class Flower(BaseModel):
    """One row of iris."""

    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


class Cell(BaseModel):
    """One row of the breast cancer data."""

    mean_radius: float
    mean_texture: float
    mean_perimeter: float
    mean_area: float
    mean_smoothness: float
    mean_compactness: float
    mean_concavity: float
    mean_concave_points: float
    mean_symmetry: float
    mean_fractal_dimension: float
    radius_error: float
    texture_error: float
    perimeter_error: float
    area_error: float
    smoothness_error: float
    compactness_error: float
    concavity_error: float
    concave_points_error: float
    symmetry_error: float
    fractal_dimension_error: float
    worst_radius: float
    worst_texture: float
    worst_perimeter: float
    worst_area: float
    worst_smoothness: float
    worst_compactness: float
    worst_concavity: float
    worst_concave_points: float
    worst_symmetry: float
    worst_fractal_dimension: float


def matrix(rows: Sequence[BaseModel]) -> Any:
    """The rows as a matrix, in the order of the fields."""
    return np.array([list(row.model_dump().values()) for row in rows])
