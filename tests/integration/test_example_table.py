"""The example with 400,000 word vectors: its answers, and the memory of the worker that gives them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import salver
from tests.integration.server import Server

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "table"
LIMIT = 100 << 20
REQUESTS, ROWS, WORDS = 2000, 6, 20


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, trained and released in a folder of its own."""
    folder = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("example") / "table")
    environment = {**os.environ, "SALVER_REGISTRY": str(folder / "registry")}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    right = re.search(r"right on ([0-9.]+)% of", done.stdout)
    assert right is not None
    assert float(right[1]) > 50, "guessing the commonest kind is right on 30 %"
    return folder


def memory(pid: int) -> dict[str, int]:
    """What a process holds, in bytes: VmRSS = RssAnon + RssFile + RssShmem, and the most it ever held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        name: int(size) << 10 for name, size in re.findall(r"^(VmRSS|VmHWM|Rss\w+):\s+(\d+) kB", status, re.MULTILINE)
    }


def test_a_worker_answers_from_160_mb_of_vectors_in_less_than_100_mb(example: Path, tmp_path: Path) -> None:
    path = example / "model" / "words.table"
    assert path.stat().st_size > 160_000_000
    vocabulary = list(salver.Table(path))
    random = np.random.default_rng(0)
    with Server(example / "registry", "--workers", "1", log=tmp_path / "log") as server:
        (worker,) = server.workers("artworks@1")
        for _ in range(REQUESTS):
            asked = random.integers(0, len(vocabulary), (ROWS, WORDS))
            body = [{"text": " ".join(vocabulary[place] for place in row)} for row in asked]
            assert server.post("/models/artworks/predict", body).status == 200
        held = memory(worker)
    assert held["VmHWM"] < LIMIT
