"""Releases that can't run in this environment: where they run instead, and what the command line says of it."""

from __future__ import annotations

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Terminal
from tests.integration.server import Server

OTHER = "1.16.0"
"""A version of six that is not installed here."""

FILES = {
    "salver.toml": """
[release]
name = "six"
entry = "told:Told"
examples = "rows.jsonl"
constraints = "requirements.txt"
""",
    "requirements.txt": f"six=={OTHER}\n",
    "rows.jsonl": '{"x": 1.0}\n{"x": 2.0}\n',
    "large.jsonl": '{"x": 1000.0}\n',
    "told.py": """
import six

class Told:
    def load(self, files):
        pass

    def predict(self, rows):
        minor = float(six.__version__.split(".")[1])
        return [minor if x > 100 else 0.0 for x in rows["x"]]
""",
}


def project(folder: Path) -> Terminal:
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return Terminal(folder)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """six@1, proven in an environment of its own; for tests that only read."""
    terminal = project(tmp_path_factory.mktemp("six"))
    terminal.ok("release")
    return terminal


@pytest.fixture
def own(released: Terminal, tmp_path: Path) -> Terminal:
    """The same in a folder of its own, for tests that change something."""
    shutil.copytree(released.folder, tmp_path, dirs_exist_ok=True)
    return Terminal(tmp_path)


def checks(terminal: Terminal, reference: str) -> tuple[int, dict[str, Any]]:
    said = terminal.salver("doctor", reference, "--json")
    return said.code, {each["name"]: each for each in json.loads(said.out)}


def environment(terminal: Terminal) -> Path:
    (only,) = terminal.json("env", "list")
    return Path(only["folder"])


def test_a_built_environment_is_listed_removed_and_built_again(own: Terminal) -> None:
    (listed,) = own.json("env", "list")
    assert set(listed["packages"]) == {"msgspec", "numpy", "six"}
    assert listed["lock"][:19] in own.ok("env", "list")
    assert own.ok("env", "prune") == "removed 0\n"
    assert own.ok("env", "prune", "--older-than", "0") == "removed 1\n"
    assert own.json("env", "list") == []
    assert not Path(listed["folder"]).exists()
    assert f"the environment of six@1 is built: {listed['folder']}" in own.ok("env", "build", "six@1").replace("\n", "")
    assert environment(own) == Path(listed["folder"])


def test_a_release_that_is_locked_to_this_environment_needs_none_built(penguins: Terminal) -> None:
    assert penguins.ok("env", "build", "penguins@1") == "penguins@1 runs in this environment: it is the locked one\n"
    assert "none was built" in penguins.salver("env", "list").err


def test_the_environment_of_a_running_server_stays(own: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALVER_CACHE", own.environ["SALVER_CACHE"])
    with Server(own.folder / "registry", "--workers", "1", log=own.folder / "log") as server:
        assert own.ok("env", "prune", "--older-than", "0") == "removed 0; 1 in use stay\n"
        assert server.post("/models/six/predict", {"x": 1000.0}).json == {"prediction": 16.0}


def test_any_environment_serves_with_the_packages_that_are_installed_here(
    own: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = float(version("six").split(".")[1])
    assert here != 16.0
    monkeypatch.setenv("SALVER_CACHE", own.environ["SALVER_CACHE"])
    with Server(own.folder / "registry", "--any-environment", "--workers", "1", log=own.folder / "log") as server:
        assert server.post("/models/six/predict", {"x": 1000.0}).json == {"prediction": here}
    scores = [
        own.ok("predict", "six@1", "large.jsonl", "-o", "-", "--output-format", "jsonl", *flags)
        for flags in ((), ("--any-environment",))
    ]
    assert [json.loads(text)["prediction"] for text in scores] == [16.0, here]


def test_a_release_without_proof_says_so_and_builds_nothing(tmp_path: Path, released: Terminal) -> None:
    terminal = project(tmp_path)
    terminal.ok("release", "--no-proof")
    assert terminal.json("env", "list") == []
    assert terminal.json("show", "six@1")["provenance"]["unproven"] is True
    line = re.search(r"^ *proof +(.*)$", terminal.ok("show", "six@1"), re.MULTILINE)
    assert line is not None
    assert line[1] == "not reproduced in the locked environment (--no-proof)"
    assert released.json("show", "six@1")["provenance"]["unproven"] is False
    assert not re.search(r"^ *proof ", released.ok("show", "six@1"), re.MULTILINE)


def test_doctor_finds_a_release_in_an_environment_of_its_own_right(released: Terminal) -> None:
    found = checks(released, "six@1")[1]
    assert [found[name]["ok"] for name in ("six@1", "environment", "serving", "golden rows")] == [True] * 4
    assert (
        f"built, since here six is {version('six')}, the release was proven with {OTHER}"
        in found["environment"]["found"]
    )


def test_doctor_names_what_a_damaged_environment_lacks_and_what_to_do(own: Terminal) -> None:
    folder = environment(own)
    shutil.rmtree(folder / "packages" / f"six-{OTHER}.dist-info")
    code, found = checks(own, "six@1")
    assert code == 4
    assert not found["environment"]["ok"]
    assert f"six=={OTHER} is not installed" in found["environment"]["found"]
    assert found["environment"]["advice"] == f"remove {folder}, then try again"
    assert not found["golden rows"]["ok"]
    shutil.rmtree(folder)
    assert checks(own, "six@1")[1]["environment"]["ok"]


def test_doctor_names_the_file_of_a_release_that_is_damaged(own: Terminal) -> None:
    files = {file["path"]: file for file in own.json("show", "six@1")["manifest"]["files"]}
    digest = files["code/told.py"]["sha256"]
    blob = own.folder / "registry" / "blobs" / "sha256" / digest[:2] / digest[2:]
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"0.0", b"1.0"))
    shutil.rmtree(own.folder / "cache")
    code, found = checks(own, "six@1")
    assert code == 4
    assert not found["content"]["ok"]
    assert not found["six@1"]["ok"]
    assert "code/told.py" in found["six@1"]["found"]
    assert "golden rows" not in found


def test_doctor_names_golden_rows_that_are_not_reproduced(tmp_path: Path) -> None:
    terminal = project(tmp_path)
    told, outside = tmp_path / "told.py", tmp_path / "factor.txt"
    outside.write_text("2")
    told.write_text(told.read_text().replace("0.0 for x", f"x * float(open({str(outside)!r}).read()) for x"))
    terminal.ok("release")
    assert checks(terminal, "six@1")[1]["golden rows"]["ok"]
    outside.write_text("3")
    code, found = checks(terminal, "six@1")
    assert code == 4
    assert found["environment"]["ok"]
    assert not found["golden rows"]["ok"]
    assert "six@1 does not reproduce its golden rows" in found["golden rows"]["found"]


def test_doctor_says_that_a_release_asks_for_more_threads_than_there_are_cores(tmp_path: Path) -> None:
    terminal = project(tmp_path)
    toml = tmp_path / "salver.toml"
    toml.write_text(toml.read_text() + "\n[release.serving]\nworkers = 3\nthreads = 1000\n")
    terminal.ok("release", "--no-proof")
    code, found = checks(terminal, "six@1")
    assert code == 4
    assert not found["serving"]["ok"]
    assert found["serving"]["found"].startswith("3 workers of 1000 threads each, ")
    assert found["serving"]["found"].endswith(": the release asks for 3 workers and 1000 threads")
