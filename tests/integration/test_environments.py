"""Locks against real metadata: that of this environment, and small ones written to a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from salver import lock
from salver.environments.closure import lock_for
from salver.errors import SalverError

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages at the front of the path."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(folder: Path, name: str, release: str, *requires: str, origin: object = None, module: str = "") -> Path:
    """Write the metadata of a package, and a module for it if one is named."""
    info = folder / f"{name.replace('-', '_')}-{release}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {release}"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    info.joinpath("METADATA").write_text("\n".join([*lines, "", "A description.", "Version: 0"]))
    if module:
        place = folder / module
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("")
    info.joinpath("RECORD").write_text(f"{module or 'none.txt'},,\n")
    if origin is not None:
        info.joinpath("direct_url.json").write_text(json.dumps(origin))
    return info


def test_the_lock_of_scikit_learn_holds_all_it_requires_and_the_workers_own_needs(tmp_path: Path) -> None:
    made = lock_for(["sklearn", "json", "salver.model"], tmp_path)
    pins = lock.pins(made.text)
    assert {"scikit-learn", "scipy", "joblib", "threadpoolctl", "numpy", "msgspec"} <= set(pins)
    assert not {"salver", "pandas", "pytest"} & set(pins)
    assert pins["scikit-learn"] == version("scikit-learn")
    assert lock_for(["sklearn"], tmp_path) == made
    assert made.notes == ()
    assert lock.is_hashed(made.text)
    assert made.text.count("--hash=sha256:") > len(pins)


def test_this_environment_is_the_one_of_a_lock_made_here(tmp_path: Path) -> None:
    text = lock_for(["sklearn", "pandas", "onnxruntime"], tmp_path).text
    assert lock.check(text, HERE) == []
    assert lock.check(text, f"{HERE}.99") == []
    lock.require_same(text, HERE)


def test_every_difference_is_named_at_once() -> None:
    text = lock.write([("numpy", "1.0"), ("msgspec", version("msgspec")), ("no-such-package", "2")], HERE).text
    with pytest.raises(SalverError) as caught:
        lock.require_same(text, "2.7.18", what="churn@7")
    assert caught.value.code == "environment-differs"
    assert caught.value.message == "churn@7 was proven in another environment than this one"
    assert caught.value.details == (
        f"python is {HERE}, the release was proven with 2.7",
        "no-such-package==2 is not installed",
        f"numpy is {version('numpy')}, the release was proven with 1.0",
    )


def test_unknown_modules_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        lock_for(["sklearn", "my_features", "my_other.part"], tmp_path)
    assert caught.value.code == "code-not-closed"
    assert [line.split()[0] for line in caught.value.details] == ["my_features", "my_other.part"]


def test_markers_and_extras_decide_what_is_required(installed: Path, tmp_path: Path) -> None:
    install(installed, "pa", "1", 'pb[fast]>=1; python_version >= "3"', 'pc; python_version < "3"', module="pa.py")
    install(installed, "pb", "2", 'pc; extra == "slow"', 'pd; extra == "fast"')
    install(installed, "pc", "3")
    install(installed, "pd", "4", "pa")
    assert {"pa": "1", "pb": "2", "pd": "4"}.items() <= lock.pins(lock_for(["pa"], tmp_path).text).items()
    assert "pc" not in lock.pins(lock_for(["pa"], tmp_path).text)


def test_an_environment_that_breaks_its_own_requirements_is_noted(installed: Path, tmp_path: Path) -> None:
    install(installed, "pa", "1", "pb>=2", "gone", "not a requirement !", module="pa.py")
    install(installed, "pb", "1.5")
    made = lock_for(["pa"], tmp_path)
    assert made.notes[:2] == (
        "pa requires gone, which is not installed",
        "pa requires pb>=2, which is installed as 1.5",
    )
    assert lock.pins(made.text)["pb"] == "1.5"


def test_packages_that_no_index_has_are_noted(installed: Path, tmp_path: Path) -> None:
    install(installed, "pa", "1", "pb", "pc", "pd", module="pa.py")
    install(installed, "pb", "2", origin={"url": "file:///src/pb", "dir_info": {"editable": True}})
    install(installed, "pc", "3", origin={"url": "https://example.org/pc", "vcs_info": {"vcs": "git"}})
    install(installed, "pd", "4", origin={"url": "file:///tmp/pd.whl", "archive_info": {}})
    made = lock_for(["pa"], tmp_path)
    assert [note.split(" ")[0] for note in made.notes[:3]] == ["pb", "pc==3", "pd==4"]
    assert {"pa", "pc", "pd"} <= set(lock.pins(made.text))
    assert "pb" not in lock.pins(made.text)


def test_packages_that_share_a_namespace_are_told_apart_by_their_files(installed: Path, tmp_path: Path) -> None:
    install(installed, "space-one", "1", module="space/one.py")
    install(installed, "space-two", "2", module="space/two/__init__.py")
    assert "space-one" not in lock.pins(lock_for(["space.two.deep"], tmp_path).text)
    assert {"space-one", "space-two"} <= set(lock.pins(lock_for(["space"], tmp_path).text))


def test_a_folder_name_that_spells_the_version_otherwise_is_no_difference(tmp_path: Path) -> None:
    info = install(tmp_path, "Some.Package", "1.0.post1")
    info.rename(tmp_path / "some_package-1.0_1.dist-info")
    assert lock.check("some-package==1.0.post1\n", HERE, [str(tmp_path)]) == []


def test_the_first_folder_of_the_path_counts(tmp_path: Path) -> None:
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
        install(tmp_path / release, "pa", release)
    path = [str(tmp_path / "none"), str(tmp_path / "2"), str(tmp_path / "1"), str(tmp_path / "file.zip")]
    assert lock.check("pa==2\n", HERE, path) == []
    assert lock.check("pa==1\n", HERE, path) == [lock.Difference("pa", "1", "2", "version")]


def test_two_versions_in_one_folder_are_a_difference(tmp_path: Path) -> None:
    install(tmp_path, "pa", "1")
    install(tmp_path, "pa", "2")
    assert lock.check("pa==1\n", HERE, [str(tmp_path)]) == [lock.Difference("pa", "1", "1 and 2", "version")]


def test_older_metadata_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "pa-1.0-py3.11.egg-info").write_text("Metadata-Version: 1.0\nName: pa\nVersion: 1.0\n")
    folder = tmp_path / "pb.egg-info"
    folder.mkdir()
    (folder / "PKG-INFO").write_text("Name: pb\nVersion: 2.0\n")
    assert lock.check("pa==1.0\npb==2.0\n", HERE, [str(tmp_path)]) == []


def test_metadata_that_can_t_be_read_is_a_difference(tmp_path: Path) -> None:
    (tmp_path / "pa-1.dist-info").mkdir()
    assert lock.check("pa==2\n", HERE, [str(tmp_path)]) == [lock.Difference("pa", "2", "unreadable", "version")]


def test_checking_needs_nothing_that_a_release_may_lack() -> None:
    heavy = ["packaging", "importlib.metadata", "numpy"]
    probe = "import sys; from salver import lock; lock.check('numpy==1', '3');"
    probe += f"print([module for module in {heavy} if module in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
