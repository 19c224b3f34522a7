"""A model that yields: a word for each step, and what its generator went through."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import salver


class Teller(salver.Model):
    """Counts for each row: `3` yields `0 `, `1 `, `2 `. Other texts make it misbehave on the second step."""

    def load(self, files: Path) -> None:
        self.diary = Path((files / "diary").read_text())
        self._note("loaded")

    def predict(self, rows: Any) -> Iterator[dict[str, list[Any]]]:
        asked = [str(text) for text in rows["steps"]]
        made = 0
        self._note(f"begun {asked[0]}")
        try:
            for step in range(max(int(text.split()[0]) for text in asked)):
                if step == 1 and any("raise" in text for text in asked):
                    raise ValueError(step)
                if step == 1 and any("die" in text for text in asked):
                    os._exit(3)
                if step == 1 and any("stall" in text for text in asked):
                    time.sleep(1.0)
                if any("slow" in text for text in asked):
                    time.sleep(0.02)
                made += 1
                yield {"text": [f"{step} " for _ in asked], "step": [step for _ in asked]}
        finally:
            with self.diary.open("a") as diary:
                diary.write(f"{asked[0]}: {made}\n")

    def _note(self, what: str) -> None:
        with self.diary.with_suffix(".begun").open("a") as notes:
            notes.write(f"{what}\n")
