"""A model that never gets ready in a worker."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import salver


class Hanging(salver.Model):
    """Loads for ever in a worker, as what waits for something that is only where it was trained."""

    def load(self, files: Path) -> None:
        del files
        if "salver.worker.loop" in sys.modules:
            time.sleep(3600)

    def predict(self, rows: Any) -> Any:
        return rows["key"] * 1.0
