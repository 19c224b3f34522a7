"""Oracles for campaigns: a third release, and one that writes down every call and can be told to die of a segfault."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Any

from tests.integration.oracle import Oracle

CALL = struct.Struct("<ii")


class ThirdOracle(Oracle):
    """The same model, trained once more."""

    salt = 3


class WatchedOracle(Oracle):
    """Writes its rows, and how many of them will kill it, to the file named in its `calls` before each call."""

    def load(self, files: Path) -> None:
        path = (files / "calls").read_text()
        self.calls = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def predict(self, rows: Any) -> Any:
        deadly = int((rows["act"] == "segfault").sum())
        os.write(self.calls, CALL.pack(len(rows["key"]), deadly))
        if deadly:
            ctypes.string_at(0)
        return super().predict(rows)
