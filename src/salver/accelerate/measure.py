"""`python -m salver.accelerate.measure FOLDER ROWS`: the CPU time that a worker of a release spends on a request.

Prints nanoseconds per request of 1, 64 and 1,000 rows, from the bytes of the request to the bytes of the answer.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
import warnings
from itertools import cycle, islice
from pathlib import Path

import msgspec

from salver.frames import Batch, Form
from salver.worker.predictor import Predictor

SIZES = (1, 64, 1000)
SECONDS = 0.25
LEAST = 5
MOST = 2000


def main(argv: list[str]) -> int:
    """Open the release and time it."""
    warnings.simplefilter("ignore")
    logging.getLogger("salver.worker").setLevel(logging.CRITICAL)
    predictor = Predictor.open(Path(argv[0]))
    rows = msgspec.json.decode(Path(argv[1]).read_bytes())
    print(json.dumps({str(size): _time(predictor, list(islice(cycle(rows), size))) for size in SIZES}))  # noqa: T201
    return 0


def _time(predictor: Predictor, rows: list[object]) -> int:
    batch = Batch(0, Form("native"), [0], [0], [msgspec.json.encode(rows if len(rows) > 1 else rows[0])])
    for _ in range(3):
        predictor.answer([batch])
    taken: list[int] = []
    began = time.process_time()
    while len(taken) < LEAST or (time.process_time() - began < SECONDS and len(taken) < MOST):
        start = time.process_time_ns()
        predictor.answer([batch])
        taken.append(time.process_time_ns() - start)
    return int(statistics.median(taken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
