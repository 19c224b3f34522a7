"""KServe's own clients, unmodified and in an environment of their own: V1, V2 in JSON and in bytes, and gRPC."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import salver
from salver.signature import Column, Signature, Tensor
from tests.integration.server import Server
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-judges" / "bin" / "python"


class Iris(salver.Model):
    """A classifier of matrices."""

    def load(self, files: Path) -> None:
        del files
        iris = load_iris()
        self.model = LogisticRegression(max_iter=500).fit(iris.data, iris.target)

    def predict(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        return self.model.predict(rows["x"])


class People(salver.Model):
    """Names in capitals, and ages where they are known."""

    def predict(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        known = rows["age"] == rows["age"]
        return {
            "shouted": np.array([name.upper() for name in rows["name"]], object),
            "decades": np.where(known, rows["age"], -10) // 10,
        }


PEOPLE = [{"name": "Ana", "age": 31}, {"name": "Jürgen", "age": None}, {"name": "", "age": 7}]
SHOUTED = {"shouted": ["ANA", "JÜRGEN", ""], "decades": [3.0, -1.0, 0.0]}


def test_the_clients_of_kserve_get_the_models_own_answers(tmp_path: Path) -> None:
    iris = load_iris()
    expected = LogisticRegression(max_iter=500).fit(iris.data, iris.target).predict(iris.data).tolist()
    registry = tmp_path / "registry"
    salver.release(
        "iris",
        Iris,
        examples=[{"x": row} for row in iris.data[:8]],
        signature=Signature((Tensor("x", "float64", (-1, 4)),), (Column("prediction", "int"),)),
        registry=str(registry),
    )
    salver.release(
        "people",
        People,
        examples=PEOPLE,
        signature=Signature(
            (Column("name", "str"), Column("age", "int", nullable=True)),
            (Column("shouted", "str"), Column("decades", "float")),
        ),
        registry=str(registry),
    )
    grpc_port = str(free_port())
    with Server(registry, "--workers", "1", "--grpc-port", grpc_port, log=tmp_path / "log") as server:
        done = subprocess.run(
            [PYTHON, Path(__file__).with_name("kserve_asks.py"), str(server.port), grpc_port],
            input=json.dumps({"iris": iris.data.tolist(), "people": PEOPLE}),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
    for what in ("live", "ready", "grpc live", "grpc ready", "grpc model ready"):
        assert said[what] is True, what
    assert said["model ready"] == [True, True]
    for what in ("people v1 instances", "people v1 inputs"):
        assert {name: [row[name] for row in said[what]] for name in SHOUTED} == SHOUTED, what
    for what in ("people v2 False", "people v2 True", "people grpc"):
        assert said[what] == SHOUTED, what
    for what in ("v1 instances", "v1 inputs", "v2 False", "v2 True", "grpc False", "grpc True"):
        assert said[what] == expected, what
