"""Environments that are really built, with packages of an index: other versions side by side, and what can't be had."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from uv import find_uv_bin

import salver
from salver import lock
from salver.dispatch.local import LocalRelease
from salver.environments import build
from salver.environments.closure import Wishes, lock_for
from salver.environments.resolve import hashes
from salver.errors import SalverError
from salver.registry import Registry, ReleaseCache
from salver.storage.folder import FolderStorage
from tests.integration.package_index import WHEEL, wheel
from tests.integration.server import Server

ROOT = Path(__file__).parent.parent.parent
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHER = ("scikit-learn==1.7.2", "numpy==2.2.6")
SMALL = "six==1.16.0\n"
YANKED = "attrs==21.1.0"

TRAIN = """
import sys
import numpy, sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
import salver

features, labels = load_iris(return_X_y=True, as_frame=True)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)
made = salver.release("iris", model, examples=features, registry=sys.argv[1])
print(made.release.name, sklearn.__version__, numpy.__version__)
"""


def trained() -> tuple[Any, Any]:
    features, labels = load_iris(return_X_y=True, as_frame=True)
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels), features


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of another environment, with Salver and older libraries."""
    folder = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([find_uv_bin(), "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [find_uv_bin(), "pip", "install", "-q", "--python", str(python), "-e", str(ROOT), *OTHER]
    subprocess.run([*install, "skops", "pandas"], check=True)
    return python


def test_two_versions_of_a_library_serve_side_by_side(
    other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALVER_CACHE", str(tmp_path / "cache"))
    registry = tmp_path / "registry"
    made = []
    for python in (sys.executable, str(other)):
        done = subprocess.run(
            [python, "-c", TRAIN, str(registry)], capture_output=True, text=True, cwd=tmp_path, check=True
        )
        made.append(done.stdout.split())
    assert made[1] == ["iris@2", "1.7.2", "2.2.6"]
    assert made[0][0] == "iris@1"
    assert made[0][1] != made[1][1]
    rows = load_iris(as_frame=True).data.to_dict("records")
    with Server(registry, "--workers", "1", log=tmp_path / "log") as server:
        assert server.post("/models/iris/predict", rows).headers["x-salver-release"] == "iris@1"
        subprocess.run([sys.executable, "-m", "salver", "promote", "iris@2", "--registry", str(registry)], check=True)
        live = server.post("/models/iris/predict", rows)
        pinned = server.post("/models/iris/releases/1/predict", rows)
        assert live.headers["x-salver-release"] == "iris@2"
        assert pinned.headers["x-salver-release"] == "iris@1"
        assert live.json == pinned.json
        seen = {loaded_versions(pid) for release in ("iris@1", "iris@2") for pid in server.workers(release)}
    assert len(seen) == 2
    assert any("sklearn" in place and str(tmp_path / "cache" / build.FOLDER) in place for place in seen)


def loaded_versions(pid: int) -> str:
    """The place of scikit-learn's compiled code in a process."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return next(line.split()[-1] for line in maps.splitlines() if "/sklearn/" in line and line.endswith(".so"))


def test_a_lock_has_the_hashes_of_all_its_packages_and_the_same_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lock_for(["sklearn"], tmp_path)
    assert lock.is_hashed(made.text)
    assert "://" not in made.text
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    assert lock_for(["sklearn"], tmp_path) == made
    bare = lock_for(["sklearn"], tmp_path / "elsewhere")
    assert not lock.is_hashed(bare.text)
    assert bare.notes == ("the lock has no hashes: no package index answered",)


def test_a_project_s_constraints_decide_the_versions_and_the_release_is_proven_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALVER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "requirements.txt").write_text("joblib==1.5.2\nrequests>=2\n")
    model, features = trained()
    registry = tmp_path / "registry"
    made = salver.release(
        "iris", model, examples=features, registry=str(registry), constraints=tmp_path / "requirements.txt"
    )
    store = Registry(FolderStorage(registry))
    manifest = store.manifest(made.release)
    file = next(file for file in manifest.files if file.path == "environment/requirements.lock")
    text = b"".join(store.stream(made.release, file)).decode()
    assert lock.pins(text)["joblib"] == "1.5.2"
    assert "requests" not in lock.pins(text)
    assert [each.lock for each in build.built(tmp_path / "cache")] == [manifest.lock]


@pytest.mark.parametrize("name", ["pyproject.toml", "uv.lock"])
def test_constraints_may_be_a_project_or_its_lock(name: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'
        'dependencies = ["joblib==1.5.2", "uvicorn[standard]>=0.30 ; python_version >= \'3.8\'"]\n'
    )
    subprocess.run([find_uv_bin(), "lock", "-q", "--project", str(tmp_path)], check=True)
    pins = lock.pins(lock_for(["sklearn"], tmp_path, Wishes(tmp_path / name)).text)
    assert pins["joblib"] == "1.5.2"
    assert pins["scikit-learn"] == sklearn.__version__
    assert "uvicorn" not in pins


def test_packages_that_no_import_shows_come_along(tmp_path: Path) -> None:
    pins = lock.pins(lock_for(["sklearn"], tmp_path, Wishes(packages=("six>=1.16",))).text)
    assert "six" in pins
    assert pins["scikit-learn"] == sklearn.__version__


def test_a_package_with_extras_is_locked_with_what_they_bring(tmp_path: Path) -> None:
    pins = lock.pins(lock_for(["pandas"], tmp_path, Wishes(packages=("pandas[html]>=2", "Uvicorn[standard]"))).text)
    assert pins["pandas"] == version("pandas")
    assert {"lxml", "beautifulsoup4", "html5lib", "uvicorn", "httptools"} <= set(pins)


def test_packages_may_ask_for_another_version_of_what_the_model_imports(tmp_path: Path) -> None:
    pins = lock.pins(lock_for(["six", "numpy"], tmp_path, Wishes(packages=("six==1.16.0",))).text)
    assert (pins["six"], pins["numpy"]) == ("1.16.0", version("numpy"))


def test_constraints_that_a_requirements_file_includes_hold_too(tmp_path: Path) -> None:
    (tmp_path / "deps").mkdir()
    (tmp_path / "requirements.txt").write_text("-r deps/base.txt\n-c deps/limits.txt\n-e .\npandas[html]\n")
    (tmp_path / "deps" / "base.txt").write_text("joblib==1.5.2\n")
    (tmp_path / "deps" / "limits.txt").write_text("threadpoolctl==3.5.0\n")
    pins = lock.pins(lock_for(["sklearn"], tmp_path, Wishes(tmp_path / "requirements.txt")).text)
    assert (pins["joblib"], pins["threadpoolctl"]) == ("1.5.2", "3.5.0")
    assert pins["scikit-learn"] == sklearn.__version__


def test_a_constraint_that_gives_a_needed_package_an_address_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(wheel())
    address = f"slowly @ {(tmp_path / WHEEL).as_uri()}"
    (tmp_path / "requirements.txt").write_text(f"{address}\n")
    with pytest.raises(SalverError) as caught:
        lock_for(["numpy"], tmp_path, Wishes(tmp_path / "requirements.txt", ("slowly",)))
    assert caught.value.code == "environment-failed"
    assert caught.value.details == (address,)
    assert "publish it as a wheel to a package index" in caught.value.hint
    assert "slowly" not in lock.pins(lock_for(["numpy"], tmp_path, Wishes(tmp_path / "requirements.txt")).text)


def test_a_yanked_version_is_not_released_and_is_named_with_the_reason_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        lock_for(["numpy"], tmp_path, Wishes(packages=(YANKED,)))
    with pytest.raises(SalverError) as looked_up:
        hashes([YANKED, "six==1.16.0"], tmp_path)
    for problem in (caught.value, looked_up.value):
        assert problem.code == "environment-failed"
        assert YANKED in problem.message
        assert problem.details == (f"{YANKED} (Installable but not importable on Python 3.4.)",)
        assert "install another version" in problem.hint


def test_a_version_that_was_yanked_after_the_release_is_still_built_and_noted(tmp_path: Path) -> None:
    place = build.build(f"{YANKED}\n", HERE, tmp_path, what="m@1")
    assert build.yanked(place) == (f"{YANKED} (Installable but not importable on Python 3.4.)",)
    (only,) = build.built(tmp_path)
    assert (only.packages, only.yanked) == (("attrs",), build.yanked(place))


def test_a_batch_keeps_its_environment_until_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, registry = tmp_path / "cache", tmp_path / "registry"
    monkeypatch.setenv("SALVER_CACHE", str(cache))
    model, features = trained()
    made = salver.release("iris", model, examples=features, registry=str(registry), packages=("six==1.16.0",))
    folder = ReleaseCache(cache).open(Registry(FolderStorage(registry)), made.release)

    async def scenario() -> list[bool]:
        async with LocalRelease(folder, "iris@1", cache=str(cache)):
            during = [build.remove(each) for each in build.built(cache)]
        return during + [build.remove(each) for each in build.built(cache)]

    assert asyncio.run(scenario()) == [False, True]
    assert build.built(cache) == []


def test_constraints_that_nothing_fulfils_are_refused_with_the_package_s_name(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("joblib==99\n")
    with pytest.raises(SalverError) as caught:
        lock_for(["sklearn"], tmp_path, Wishes(tmp_path / "requirements.txt"))
    assert caught.value.code == "environment-failed"
    assert "joblib" in str(caught.value)


def test_two_that_need_the_same_environment_build_it_once(tmp_path: Path) -> None:
    places: list[Any] = []
    builders = [
        threading.Thread(target=lambda: places.append(build.build(SMALL, HERE, tmp_path, what="m@1"))) for _ in range(4)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(set(places)) == 1
    assert len(places) == 4
    (only,) = build.built(tmp_path)
    assert only.packages == ("six",)
    assert [path.name for path in only.folder.parent.iterdir() if path.name.startswith(build.DRAFT)] == []


@pytest.mark.parametrize(
    ("text", "named", "hint"),
    [
        ("six==99.0\n", "six==99.0", "the index no longer has this version"),
        (f"six==1.16.0 \\\n    --hash=sha256:{'0' * 64}\n", "six==1.16.0", "the package on the index is not the one"),
        ("numpy==1.19.0\n", "numpy==1.19.0", "this package has no build for this platform and Python"),
    ],
)
def test_a_package_that_can_not_be_had_is_named_with_what_to_do(
    text: str, named: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(SalverError) as caught:
        build.build(text, HERE, tmp_path, what="m@1")
    assert caught.value.code == "environment-failed"
    assert caught.value.message == "the environment of m@1 can't be built"
    assert named in " ".join(caught.value.details)
    assert re.match(hint, caught.value.hint)
    assert build.built(tmp_path) == []


def test_without_a_network_an_environment_is_built_from_the_local_packages_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.build(SMALL, HERE, tmp_path / "filled", what="m@1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    assert build.build(SMALL, HERE, tmp_path / "again", what="m@1").path
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(SalverError) as caught:
        build.build(SMALL, HERE, tmp_path / "never", what="m@1")
    assert "no index answers" in caught.value.message
    assert "salver env build" in caught.value.hint
