"""Functions of texts that pipelines under test call first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def lengths(texts: Iterable[str]) -> Any:
    """The number of letters of each text, as one column."""
    return np.array([[float(len(text))] for text in texts])


def lowered(texts: Iterable[str]) -> list[str]:
    """The texts in small letters."""
    return [text.lower() for text in texts]
