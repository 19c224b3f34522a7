"""An oracle that takes its time, for campaigns that offer more than can be done; a variant writes down what it did."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Any

from tests.integration.oracle import Oracle

CALL_TIME = 0.005
ROW_TIME = 0.005
DONE = struct.Struct("<qq")


class SlowOracle(Oracle):
    """The oracle at 5 ms a call and 5 ms a row; it sleeps, so that a load has the processor to itself."""

    def predict(self, rows: Any) -> Any:
        time.sleep(CALL_TIME + ROW_TIME * len(rows["key"]))
        return super().predict(rows)


class WatchedSlowOracle(SlowOracle):
    """Writes the time in monotonic nanoseconds and each key to the file named in its `calls`, before each call."""

    def load(self, files: Path) -> None:
        path = (files / "calls").read_text()
        self.calls = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def predict(self, rows: Any) -> Any:
        now = time.monotonic_ns()
        os.write(self.calls, b"".join([DONE.pack(now, key) for key in rows["key"].tolist()]))
        return super().predict(rows)


def frame_time(rows: int) -> float:
    """Seconds of a call with so many rows."""
    return CALL_TIME + ROW_TIME * rows
