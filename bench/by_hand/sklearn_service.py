"""FastAPI and a scikit-learn pipeline on a matrix: `uvicorn bench.by_hand.sklearn_service:app`."""

from __future__ import annotations

import os
from pathlib import Path

import joblib
from fastapi import FastAPI

from bench.by_hand.rows import Cell, Flower, matrix

app = FastAPI()
models = Path(os.environ["BENCH_MODELS"])
iris = joblib.load(models / "iris.joblib")
cancer = joblib.load(models / "cancer.joblib")


@app.post("/iris")
def flower(row: Flower) -> dict[str, int]:
    """One row."""
    return {"prediction": int(iris.predict(matrix([row]))[0])}


@app.post("/cancer")
def cells(rows: list[Cell]) -> list[dict[str, int]]:
    """Many rows."""
    return [{"prediction": int(value)} for value in cancer.predict(matrix(rows))]
