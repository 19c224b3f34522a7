"""The ONNX graph as a function model: what a user writes to serve any Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import salver


class Onnx(salver.Model):
    """One ONNX session on a matrix of all columns."""

    def load(self, files: Path) -> None:
        """Open the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        graph = next(files.glob("*.onnx"))
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def predict(self, rows: Any) -> Any:
        """The class of each row."""
        matrix = np.column_stack(list(rows.values())).astype(np.float32)
        return self.session.run(["label"], {"X": matrix})[0]
