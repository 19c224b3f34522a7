"""Clients of peers, unmodified, against a real server: MLflow's own scoring client."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import salver
from tests.integration.server import Server


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # MLflow's, of its own client
def test_mlflows_scoring_client_works_as_with_mlflows_own_server(tmp_path: Path) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    iris = load_iris(as_frame=True)
    model = LogisticRegression(max_iter=500).fit(iris.data, iris.target)
    registry = tmp_path / "registry"
    salver.release("iris", model, examples=iris.data.head(8), registry=str(registry))
    with Server(registry, "--workers", "1", "--dialect", "mlflow", log=tmp_path / "log") as server:
        client = ScoringServerClient("127.0.0.1", server.port)
        client.ping()
        assert client.get_version() == salver.__version__
        expected = model.predict(iris.data).tolist()
        for rows in (iris.data, iris.data.to_numpy()):
            answer = client.invoke(rows, params={"ignored": 1}).get_predictions()
            assert isinstance(answer, pd.DataFrame)
            assert answer[0].tolist() == expected
