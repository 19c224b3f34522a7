"""A function of a user's own, that a formula uses."""

from __future__ import annotations

from typing import Any

import numpy as np


def capped(values: Any) -> Any:
    """No value above 30,000."""
    return np.minimum(values, 30_000)
