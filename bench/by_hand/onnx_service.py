"""FastAPI and an ONNX session: `uvicorn bench.by_hand.onnx_service:app`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI

from bench.by_hand.rows import Cell, Flower, matrix

app = FastAPI()
models = Path(os.environ["BENCH_MODELS"])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
iris = onnxruntime.InferenceSession(models / "iris.onnx", options, providers=["CPUExecutionProvider"])
cancer = onnxruntime.InferenceSession(models / "cancer.onnx", options, providers=["CPUExecutionProvider"])


@app.post("/iris")
def flower(row: Flower) -> dict[str, int]:
    """One row."""
    return {"prediction": int(iris.run(["label"], {"X": matrix([row]).astype(np.float32)})[0][0])}


@app.post("/cancer")
def cells(rows: list[Cell]) -> list[dict[str, int]]:
    """Many rows."""
    labels = cancer.run(["label"], {"X": matrix(rows).astype(np.float32)})[0]
    return [{"prediction": int(value)} for value in labels]
