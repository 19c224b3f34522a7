"""A project released as an ONNX graph, accelerated later, and what is told of both afterwards."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from tests.acceptance.conftest import Terminal
from tests.frameworks import iris_project

OPTIONS = 'options = { method = "predict_proba" }\n'
TRAIN = """
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler

table = pd.read_csv("examples.csv")
model = make_pipeline(SplineTransformer(extrapolation="linear"), StandardScaler(), LogisticRegression())
model.fit(table.drop(columns="kind"), table["kind"])
"""
STEP = "splinetransformer (SplineTransformer)"
COUNT = 150


class Made(NamedTuple):
    """The folder of the project, and what `release --accelerate` and then `accelerate` said there in JSON."""

    terminal: Terminal
    released: Any
    accelerated: Any


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """iris@1 is the graph of a model; iris@2 is that model, iris@3 its graph again, compared on rows of a file."""
    folder = tmp_path_factory.mktemp("iris")
    table = iris_project.write(folder, TRAIN, OPTIONS)
    table[:40].to_json(folder / "rows.jsonl", orient="records", lines=True)
    table[:60].to_parquet(folder / "rows.parquet")
    terminal = Terminal(folder)
    released = terminal.json("release", "--accelerate", "onnx")
    terminal.ok("release")
    return Made(terminal, released, terminal.json("accelerate", "iris@2", "--rows", "rows.jsonl"))


def counts(acceleration: Any) -> dict[str, int]:
    return {each["rows"]: each["count"] for each in acceleration["evidence"]["compared"]}


def test_a_project_is_released_as_a_graph_that_was_compared_on_all_its_examples(made: Made) -> None:
    acceleration = made.released["acceleration"]
    assert (made.released["framework"], made.released["went_live"]) == ("onnx", True)
    compared = counts(acceleration)
    assert (compared["golden"], compared["examples"]) == (made.released["golden_rows"], COUNT)
    assert min(compared["edges"], compared["splits"]) > 100
    assert acceleration["evidence"]["tolerances"]["probabilities"]["rtol"] == 1e-5
    assert [each["rows"] for each in acceleration["speed"]] == [1, 64, 1000]
    assert all(each["before_ns"] > 0 and each["after_ns"] > 0 for each in acceleration["speed"])


def test_a_step_without_a_converter_is_named_and_the_others_become_the_graph(made: Made) -> None:
    assert made.released["acceleration"]["evidence"]["kept"] == [STEP]
    files = [file["path"] for file in made.terminal.json("show", "iris@1")["manifest"]["files"]]
    assert "model/model.onnx" in files
    assert STEP in made.terminal.ok("show", "iris@1")


def test_show_tells_later_what_release_told_of_the_comparison_and_the_speed(made: Made) -> None:
    shown = made.terminal.json("show", "iris@1")["acceleration"]
    assert shown["original"] == "iris@2"  # published after its graph
    assert {**shown, "original": ""} == made.released["acceleration"]
    text = made.terminal.ok("show", "iris@1")
    assert "Accelerated from iris@2" in text
    assert f"  examples    {COUNT}" in text
    assert "probabilities         within 1e-05 of the value" in text
    assert "CPU time of a request in a worker" in text
    assert text.count(" ×\n") == 3


def test_an_accelerated_release_names_its_original_and_the_rows_it_was_compared_on(made: Made) -> None:
    assert (made.accelerated["release"], made.accelerated["original"]) == ("iris@3", "iris@2")
    assert counts(made.accelerated)["rows"] == 40
    shown = made.terminal.json("show", "iris@3")["acceleration"]
    assert {"release": "iris@3", **shown} == made.accelerated


def test_a_release_that_is_no_graph_of_another_says_nothing_of_it(made: Made) -> None:
    assert made.terminal.json("show", "iris@2")["acceleration"] is None
    assert "ccelerated" not in made.terminal.ok("show", "iris@2")


def test_rows_to_compare_on_may_be_parquet_too(made: Made) -> None:
    assert counts(made.terminal.json("accelerate", "iris@2", "--rows", "rows.parquet"))["rows"] == 60


def test_rows_of_another_model_are_refused_with_the_columns_they_lack(made: Made) -> None:
    (made.terminal.folder / "other.csv").write_text("a,b\n1,2\n")
    said = made.terminal.salver("accelerate", "iris@2", "--rows", "other.csv")
    assert "error[bad-examples]" in said.err
    assert "column 'sepal length (cm)' is missing" in said.err
