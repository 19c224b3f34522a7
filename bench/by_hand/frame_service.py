"""FastAPI and a scikit-learn pipeline on a DataFrame: `uvicorn bench.by_hand.frame_service:app`."""

from __future__ import annotations

import os
from pathlib import Path

import joblib
import pandas as pd
from fastapi import FastAPI

from bench.by_hand.rows import Cell, Flower

app = FastAPI()
models = Path(os.environ["BENCH_MODELS"])
iris = joblib.load(models / "iris.frame.joblib")
cancer = joblib.load(models / "cancer.frame.joblib")


@app.post("/iris")
def flower(row: Flower) -> dict[str, int]:
    """One row."""
    return {"prediction": int(iris.predict(pd.DataFrame([row.model_dump()]))[0])}


@app.post("/cancer")
def cells(rows: list[Cell]) -> list[dict[str, int]]:
    """Many rows."""
    frame = pd.DataFrame([row.model_dump() for row in rows])
    return [{"prediction": int(value)} for value in cancer.predict(frame)]
