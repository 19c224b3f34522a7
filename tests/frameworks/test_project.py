"""A project folder that says which packages it wants: resolved with an index, built, and proven there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from salver import lock
from salver.environments import build
from salver.registry import Registry
from salver.storage.folder import FolderStorage
from tests.integration.server import SALVER, Server

FILES = {
    "salver.toml": """
[release]
name = "slug"
entry = "words.model:Words"
examples = "rows.jsonl"
constraints = "requirements.txt"
packages = ["colorama>=0.4"]
""",
    "requirements.txt": "six==1.16.0\nrequests>=2\n",
    "rows.jsonl": '{"x": 1.5}\n{"x": 2.5}\n',
    "words/__init__.py": "",
    "words/model.py": """
import six
from .numbers import doubled

class Words:
    def load(self, files):
        self.text = six.text_type

    def predict(self, rows):
        return [self.text(value) for value in doubled(rows["x"])]
""",
    "words/numbers.py": "def doubled(values):\n    return values * 2\n",
}


def test_a_project_s_constraints_and_packages_make_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("SALVER_CACHE", str(cache))
    project = tmp_path / "project"
    for name, text in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    done = subprocess.run([*SALVER, "release"], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    registry = Registry(FolderStorage(project / ".salver"))
    release = registry.find("slug@1")
    manifest = registry.manifest(release)
    file = next(file for file in manifest.files if file.path == "environment/requirements.lock")
    pins = lock.pins(b"".join(registry.stream(release, file)).decode())
    assert pins["six"] == "1.16.0"
    assert set(pins) == {"colorama", "msgspec", "numpy", "six"}
    with Server(project / ".salver", log=tmp_path / "log") as server:
        answer = server.post("/models/slug/predict", [{"x": 3}]).json
    assert answer == [{"prediction": "6.0"}]
    assert [each.lock for each in build.built(cache)] == [manifest.lock]
