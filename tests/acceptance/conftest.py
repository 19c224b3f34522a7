"""A folder with the example project, released twice, and the command line in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


class Said(NamedTuple):
    """What a command did: its exit code and what it wrote."""

    code: int
    out: str
    err: str


class Terminal:
    """Runs commands in one folder with a registry and a cache of its own."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SALVER_")}
        self.environ = {
            **clean,
            "SALVER_REGISTRY": str(folder / "registry"),
            "SALVER_CACHE": str(folder / "cache"),
            "COLUMNS": "100",
            **environ,
        }

    def salver(self, *arguments: str, stdin: str | None = None) -> Said:
        """Run `salver ARGUMENTS`."""
        return self.run("-P", "-m", "salver", *arguments, stdin=stdin)

    def json(self, *arguments: str) -> Any:
        """Run a command that must succeed with `--json` and read what it printed."""
        said = self.salver(*arguments, "--json")
        assert said.code == 0, said
        return json.loads(said.out)

    def shell(self, command: str) -> Said:
        """Run `salver COMMAND` as a shell does, which knows `>`."""
        return self._run(["sh", "-c", f"{sys.executable} -P -m salver {command}"])

    def run(self, *arguments: str, stdin: str | None = None) -> Said:
        """Run Python."""
        return self._run([sys.executable, *arguments], stdin)

    def _run(self, arguments: list[str], stdin: str | None = None) -> Said:
        done = subprocess.run(
            arguments,
            cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False, input=stdin, timeout=300,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str) -> str:
        """Run a command that must succeed; returns what it printed."""
        said = self.salver(*arguments)
        assert said.code == 0, said
        return said.out


def release_twice(folder: Path) -> Terminal:
    """Release the example project and, with weights of a shorter training, once more."""
    shutil.copytree(EXAMPLES / "project", folder, dirs_exist_ok=True)
    terminal = Terminal(folder)
    for note in ("the first", "the second"):
        assert terminal.run("train.py").code == 0
        terminal.ok("release", "--note", note)
        script = folder / "train.py"
        script.write_text(script.read_text().replace("STEPS = 500", "STEPS = 5"))
    return terminal


@pytest.fixture(scope="session")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """penguins@1 (live) and penguins@2; for tests that only read."""
    return release_twice(tmp_path_factory.mktemp("penguins"))


@pytest.fixture
def own_penguins(penguins: Terminal, tmp_path: Path) -> Terminal:
    """The same in a folder of its own with an empty cache, for tests that change something."""
    shutil.copytree(penguins.folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache"))
    return Terminal(tmp_path)
