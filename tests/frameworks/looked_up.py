"""A model that looks its answers up in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import salver


class Third(salver.Model):
    """The column `third` of a word; -1 for a word that isn't in the table."""

    def load(self, files: Path) -> None:
        self.words = salver.Table(files / "words.table")

    def predict(self, rows: Any) -> Any:
        return self.words.get(rows["word"], {"third": -1.0}).values["third"]
