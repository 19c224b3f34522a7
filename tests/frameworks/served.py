"""What clients get over HTTP from a release of a model, row by row, to hold beside the model's own answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import salver
from tests.integration.server import Server

CHUNK = 1000


def served(folder: Path, model: Any, examples: Any, rows: Sequence[Any], **said: Any) -> list[Any]:
    """Release `model` into a registry below `folder`, serve it, and return its answer to each row."""
    registry = folder / "registry"
    salver.release("served", model, examples=examples, registry=str(registry), **said)
    answers: list[Any] = []
    with Server(registry, "--workers", "1", "--cache", str(folder / "cache"), log=folder / "log") as server:
        for start in range(0, len(rows), CHUNK):
            answer = server.post("/models/served/predict", list(rows[start : start + CHUNK]))
            assert answer.status == 200, answer.body[:2000]
            answers += answer.json
    return answers
