"""What is read of a project's files, and what can't be locked whatever an index has."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from salver.environments import constraints
from salver.environments.closure import Wishes, lock_for
from salver.environments.place import version
from salver.errors import SalverError


def refused(path: Path) -> SalverError:
    with pytest.raises(SalverError) as caught:
        constraints.read(path)
    assert caught.value.code == "bad-settings"
    assert path.name in caught.value.message
    return caught.value


def test_a_requirements_file_is_read_with_those_that_it_includes(tmp_path: Path) -> None:
    (tmp_path / "deps").mkdir()
    (tmp_path / "wheels").mkdir()
    (tmp_path / "requirements.txt").write_text(
        "\ufeff# what we need\n-r deps/base.txt\n--constraint=deps/limits.txt\n--find-links wheels\n"
        "--extra-index-url https://example.org/simple\n-e .\n./local\nhttps://example.org/x-1.whl\n"
        'uvicorn[standard]>=0.30 ; python_version >= "3.8"  # serves\nsix==1.16.0 \\\n    --hash=sha256:ab\n'
        "far @ https://example.org/far-1-py3-none-any.whl\n"
    )
    (tmp_path / "deps" / "base.txt").write_text("joblib==1.5.2\n-r ../requirements.txt\n")
    (tmp_path / "deps" / "limits.txt").write_text("numpy<3\n")
    assert constraints.read(tmp_path / "requirements.txt").splitlines() == [
        "joblib==1.5.2",
        "numpy<3",
        f"--find-links {tmp_path / 'wheels'}",
        "--extra-index-url https://example.org/simple",
        'uvicorn[standard]>=0.30 ; python_version >= "3.8"',
        "six==1.16.0 --hash=sha256:ab",
        "far @ https://example.org/far-1-py3-none-any.whl",
    ]


def test_a_pyproject_is_read_with_its_extras_groups_and_constraints(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\ndependencies = ["joblib==1.5.2", "uvicorn[standard]>=0.30"]\n'
        '[project.optional-dependencies]\ntrain = ["scikit-learn<2"]\n'
        '[dependency-groups]\ntest = ["pytest>8", {include-group = "lint"}]\nlint = ["ruff"]\n'
        '[tool.uv]\nconstraint-dependencies = ["numpy<3"]\n'
    )
    assert constraints.read(tmp_path / "pyproject.toml").splitlines() == [
        "joblib==1.5.2",
        "numpy<3",
        "pytest>8",
        "ruff",
        "scikit-learn<2",
        "uvicorn>=0.30",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[project]\nname = "shop"\n',
        '[project]\nname = "shop"\ndynamic = ["dependencies"]\n',
        "[tool.ruff]\nline-length = 100\n",
        "[dependency-groups]\nall = []\n",
    ],
)
def test_a_pyproject_that_lists_no_package_is_an_error_that_says_where_to_list_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert "[project], [dependency-groups] or [tool.uv]" in refused(tmp_path / "pyproject.toml").message


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ('test = ["pytest", {include-group = "unknown"}]', ("test includes unknown, which is not there",)),
        ('test = [{path = "x"}]', ("test includes {'path': 'x'}, which is not there",)),
        ('all = ["pytest", {include-group = "all"}]', ("all includes all, so it has no end",)),
        (
            'a = [{include-group = "B-1"}]\nb_1 = [{include-group = "c"}]\nc = ["pytest", {include-group = "a"}]',
            ("a includes b-1 includes c includes a, so it has no end",),
        ),
    ],
)
def test_a_group_that_includes_what_is_not_there_or_itself_is_named(
    groups: str, said: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[dependency-groups]\n{groups}\n")
    assert refused(tmp_path / "pyproject.toml").details == said


@pytest.mark.parametrize("requires", [">=99", "<3.11", "==2.7.*"])
def test_a_python_that_the_project_excludes_is_refused_with_both_versions(requires: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[project]\nrequires-python = "{requires}"\ndependencies = ["joblib"]\n')
    said = refused(tmp_path / "pyproject.toml").message
    assert f"requires Python {requires}, and the release would lock {version()}" in said


@pytest.mark.parametrize("requires", [f"~={version()}", f"=={version()}", f">={platform.python_version()}"])
def test_a_python_that_the_project_allows_is_no_problem(requires: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[project]\nrequires-python = "{requires}"\ndependencies = ["joblib"]\n')
    assert constraints.read(tmp_path / "pyproject.toml") == "joblib"


def test_a_pyproject_of_poetry_is_an_error_that_says_how_to_export_it(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.poetry.dependencies]\npython = "^3.11"\nnumpy = "^2"\n')
    assert "poetry export -o requirements.txt" in refused(tmp_path / "pyproject.toml").hint


@pytest.mark.parametrize("text", ["", "# nothing\n", "-e .\n--pre\n"])
def test_a_requirements_file_without_a_package_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(text)
    assert "holds no constraints" in refused(tmp_path / "requirements.txt").message


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("requirements.txt", "numpy>>2\n", "'numpy>>2' is no requirement"),
        ("poetry.lock", '[[package]]\nname = "numpy"\n', "'[[package]]' is no requirement"),
        ("pyproject.toml", '[project]\ndependencies = ["numpy >> 2"]\n', "'numpy >> 2' is no requirement"),
        ("pyproject.toml", "[project]\ndependencies = [3]\n", "3 is no requirement"),
        ("pyproject.toml", 'project = ["numpy"]\n', "can't be read as constraints"),
        ("pyproject.toml", "[project\n", "can't be read as constraints"),
    ],
)
def test_a_line_that_is_no_requirement_is_named(name: str, text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert named in refused(tmp_path / name).message


def test_an_included_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r base.txt\n")
    assert "base.txt" in refused(tmp_path / "requirements.txt").message


def test_a_folder_of_wheels_that_is_not_there_is_named_with_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("--find-links ./wheels\nnumpy\n")
    assert f"names {tmp_path / 'wheels'}, which does not exist" in refused(tmp_path / "requirements.txt").message


LOCK = """version = 1
requires-python = ">=3.11"

[[package]]
name = "shop"
version = "0"
source = { virtual = "." }
"""


@pytest.mark.parametrize(
    ("text", "said"), [(LOCK[:-9], "TOML parse error"), (LOCK.replace("= 1", "= 9"), "unsupported schema version")]
)
def test_a_lock_of_uv_that_can_not_be_read_is_an_error_that_says_what_to_do(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shop"\nversion = "0"\nrequires-python = ">=3.11"\n')
    (tmp_path / "uv.lock").write_text(text)
    problem = refused(tmp_path / "uv.lock")
    assert said in " ".join(problem.details)
    assert "uv lock" in problem.hint


def test_lines_that_limit_nothing_and_hashes_are_told(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-e .\n-r more.txt\ngit+https://me:secret@example.org/shop.git@main\n")
    (tmp_path / "more.txt").write_text("joblib>=1 --hash=sha256:ab\nnumpy>=1 \\\n  --hash=sha256:cd\n")
    notes = lock_for(["joblib"], tmp_path, Wishes(tmp_path / "requirements.txt")).notes
    assert notes == (
        "more.txt: its hashes are not compared; the lock has those that the package index gives",
        "requirements.txt: git+https://example.org/shop.git@main names no package, so it limits nothing",
    )


@pytest.mark.parametrize(
    "package",
    [
        "shop @ git+https://example.org/shop.git@main",
        "shop @ file:///wheels/shop-1-py3-none-any.whl",
        "./wheels/shop-1-py3-none-any.whl",
        "-r more.txt",
        "",
    ],
)
def test_a_package_that_is_not_a_version_of_an_index_is_refused_by_name(package: str, tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        lock_for(["numpy"], tmp_path, Wishes(packages=("six>=1.16", package)))
    assert caught.value.code == "bad-settings"
    (problem,) = caught.value.details
    assert repr(package) in problem
    if "@" in package:
        assert "publish it as a wheel to a package index" in problem


def test_a_constraint_that_gives_a_needed_package_an_address_is_refused_before_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "joblib @ git+https://me:secret@127.0.0.1:9/x.git\nsix @ https://127.0.0.1:9/six-1-py3-none-any.whl\n"
        'numpy @ git+https://127.0.0.1:9/x.git ; sys_platform == "win32"\n'
    )
    with pytest.raises(SalverError, match="a lock names versions that a package index has") as caught:
        lock_for(["joblib"], tmp_path, Wishes(tmp_path / "requirements.txt"))
    assert caught.value.details == ("joblib @ git+https://127.0.0.1:9/x.git",)
