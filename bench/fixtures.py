"""The models and rows of the benchmark: real data, one linear pipeline per data set, and the same as ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
import skops.io
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


class Fixture(NamedTuple):
    """One data set: its rows with named columns, its targets, and the pipeline fitted on the bare matrix."""

    name: str
    frame: pd.DataFrame
    target: Any
    pipeline: Pipeline

    def rows(self, count: int) -> list[dict[str, float]]:
        """`count` rows as JSON objects; the data set again and again."""
        records = self.frame.to_dict("records")
        return [dict(records[i % len(records)]) for i in range(count)]

    def body(self, count: int) -> bytes:
        """A request: one row object, or a list of `count`."""
        return json.dumps(self.rows(1)[0] if count == 1 else self.rows(count)).encode()

    def expected(self, count: int) -> list[int]:
        """What the model itself says to that request."""
        return [int(value) for value in self.pipeline.predict(pd.DataFrame(self.rows(count)).to_numpy())]


def load() -> dict[str, Fixture]:
    """The small request's data set (four numbers, three classes) and the large one's (thirty numbers, two classes)."""
    return {"iris": _fit("iris", load_iris(as_frame=True)), "cancer": _fit("cancer", load_breast_cancer(as_frame=True))}


def write(folder: Path, fixture: Fixture) -> None:
    """Save the pipeline as .joblib, .skops and .onnx, and one fitted on the DataFrame as .frame.joblib."""
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(fixture.pipeline, folder / f"{fixture.name}.joblib")
    skops.io.dump(fixture.pipeline, folder / f"{fixture.name}.skops")
    joblib.dump(_pipeline().fit(fixture.frame, fixture.target), folder / f"{fixture.name}.frame.joblib")
    sample = fixture.frame.to_numpy()[:1].astype(np.float32)
    graph = to_onnx(fixture.pipeline, sample, options={"zipmap": False})
    (folder / f"{fixture.name}.onnx").write_bytes(graph.SerializeToString())


def _pipeline() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _fit(name: str, bunch: Any) -> Fixture:
    frame = bunch.data.rename(columns=lambda column: column.replace(" (cm)", "").replace(" ", "_"))
    return Fixture(name, frame, bunch.target, _pipeline().fit(frame.to_numpy(), bunch.target))
