"""The benchmark's models as Salver releases: the same pipelines, and the ONNX graph in a function of a few lines."""

from __future__ import annotations

import os
from pathlib import Path

import joblib

import salver
from bench.fixtures import Fixture
from bench.onnx_model import Onnx


def publish(registry: Path, models: Path, fixture: Fixture) -> None:
    """Publish what `fixtures.write` saved below `models` as `iris`, `iris-frame` and `iris-onnx`."""
    os.environ["SALVER_REGISTRY"] = str(registry)
    name = fixture.name
    salver.release(name, joblib.load(models / f"{name}.joblib"), examples=fixture.frame)
    salver.release(f"{name}-frame", joblib.load(models / f"{name}.frame.joblib"), examples=fixture.frame)
    salver.release(f"{name}-onnx", Onnx(), examples=fixture.frame, files=models / f"{name}.onnx")
