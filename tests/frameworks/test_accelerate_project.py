"""A project whose wishes for packages hold for its accelerated release too, or forbid it at once."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from salver import lock
from salver.environments import build
from salver.registry import Registry
from salver.storage.folder import FolderStorage
from tests.frameworks import iris_project
from tests.integration.server import SALVER

WISHES = 'constraints = "requirements.txt"\npackages = ["six"]\n'
TRAIN = """
import pandas as pd
from sklearn.linear_model import LogisticRegression

table = pd.read_csv("examples.csv")
model = LogisticRegression(max_iter=1000).fit(table.drop(columns="kind"), table["kind"])
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SALVER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    iris_project.write(folder, TRAIN, WISHES)
    return folder


def released(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SALVER, "release", "--accelerate", "onnx"], cwd=project, capture_output=True, text=True, check=False
    )


def test_an_accelerated_release_obeys_the_constraints_and_has_the_packages_of_its_project(project: Path) -> None:
    (project / "requirements.txt").write_text(f"six=={version('six')}\nonnxruntime=={version('onnxruntime')}\n")
    done = released(project)
    assert done.returncode == 0, done.stderr
    registry = Registry(FolderStorage(project / ".salver"))
    release = registry.find("iris@1")
    manifest = registry.manifest(release)
    file = next(file for file in manifest.files if file.path == "environment/requirements.lock")
    pins = lock.pins(b"".join(registry.stream(release, file)).decode())
    assert manifest.framework == "onnx"
    assert pins["six"] == version("six")
    assert pins["onnxruntime"] == version("onnxruntime")
    assert "scikit-learn" not in pins


@pytest.mark.parametrize("pin", ["joblib==1.5.2", "onnxruntime==1.23.2"])
def test_constraints_that_this_environment_does_not_obey_are_refused_before_anything_is_built(
    project: Path, pin: str, tmp_path: Path
) -> None:
    (project / "requirements.txt").write_text(f"{pin}\n")
    done = released(project)
    name, _, wanted = pin.partition("==")
    assert "error[environment-differs]: iris: a model is converted and compared in the environment" in done.stderr
    assert f"  - {name} is {version(name)}, the lock has {wanted}" in done.stderr
    hint = done.stderr.splitlines()[-1]
    assert hint.startswith("hint: install here what it locks: pip install ")
    assert pin in hint.split()
    assert build.built(tmp_path / "cache") == []
    assert not (project / ".salver").exists()
