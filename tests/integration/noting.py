"""A model that writes a log record for each call, and prints it."""

from __future__ import annotations

import logging
from typing import Any

import salver


class Noting(salver.Model):
    """Answers each number with its double, and says so."""

    def predict(self, rows: Any) -> Any:
        logging.getLogger("noting").warning("doubling %s", rows["x"].tolist())
        print("printed", rows["x"].tolist())  # noqa: T201 - a user's model may
        return rows["x"] * 2.0
