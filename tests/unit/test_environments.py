from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from salver import lock
from salver.environments.modules import modules_of, own_of
from salver.environments.resolve import compiled
from salver.errors import SalverError

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
HASHED = "numpy==2.1.0 \\\n    --hash=sha256:" + "a" * 64 + " \\\n    --hash=sha256:" + "b" * 64 + "\n"


def test_the_same_packages_in_any_order_and_spelling_give_the_same_lock() -> None:
    one = lock.write([("Scikit_Learn", "1.5"), ("numpy", "2.1"), ("numpy", "2.1")], HERE)
    two = lock.write([("numpy", "2.1"), ("scikit.learn", "1.5")], HERE, ["a note changes nothing"])
    assert one.text.splitlines()[1:] == ["numpy==2.1", "scikit-learn==1.5"]
    assert (one.text, one.digest) == (two.text, two.digest)


def test_another_version_gives_another_digest() -> None:
    assert lock.write([("numpy", "2.1")], HERE).digest != lock.write([("numpy", "2.2")], HERE).digest


def test_pins_are_read_with_and_without_hashes() -> None:
    text = f"# a comment\n\n{HASHED}Torch==2.9.1+cpu\r\n"
    assert lock.pins(text) == {"numpy": "2.1.0", "torch": "2.9.1+cpu"}


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "numpy>=2",
        "numpy==2.*",
        "-r other.txt",
        "--index-url https://example.org",
        "numpy @ https://example.org/numpy.whl",
        "numpy==2 ; python_version < '4'",
        "numpy==2 --config-settings=x=y",
        "numpy==2 --hash=md5:abc",
        "-e .",
        "../numpy==1",
    ],
)
def test_a_line_that_is_no_exact_pin_is_refused(line: str) -> None:
    with pytest.raises(SalverError) as caught:
        lock.pins(f"msgspec==0.20\n{line}\n")
    assert caught.value.code == "bad-manifest"
    assert caught.value.details == (f"entry 2 is no exact pin: {line!r}",)


def test_a_package_pinned_to_two_versions_is_refused() -> None:
    with pytest.raises(SalverError) as caught:
        lock.pins("a-b==1\nA_b==2\n")
    assert caught.value.details == ("entry 2 pins A_b a second time, to another version",)


def test_a_package_without_hashes_stays_in_a_lock_that_constraints_resolved() -> None:
    text = f"{HASHED}    # via -r asked.in\ntorch==2.9.1+cpu\n    # via -r asked.in\n"
    assert compiled(text) == {"numpy==2.1.0": ("a" * 64, "b" * 64), "torch==2.9.1+cpu": ()}


def test_differences_are_told_in_words() -> None:
    assert lock.explain(
        [
            lock.Difference("python", "3.9", "3.11", "python"),
            lock.Difference("numpy", "2.1", "2.2", "version"),
            lock.Difference("torch", "2.9", "", "missing"),
        ]
    ) == (
        "python is 3.11, the release was proven with 3.9\n"
        "numpy is 2.2, the release was proven with 2.1\n"
        "torch==2.9 is not installed"
    )


@pytest.mark.parametrize("as_frame", [True, False])
def test_a_pipeline_names_the_packages_of_all_its_parts(as_frame: bool) -> None:
    data, target = load_breast_cancer(return_X_y=True, as_frame=as_frame)
    model = make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=2, max_depth=1)).fit(data, target)
    assert modules_of(model) == {"sklearn", "numpy"} | ({"pandas"} if as_frame else set())


def test_functions_within_a_model_name_what_they_use() -> None:
    def shape(rows: Any) -> Any:
        return pd.DataFrame(rows)

    found = modules_of(make_pipeline(FunctionTransformer(partial(shape)), KMeans()))
    assert found == {"sklearn", "pandas"}


def test_own_classes_and_functions_within_a_model_are_named() -> None:
    held = [asked, Held()]
    assert own_of(make_pipeline(FunctionTransformer(partial(asked)), KMeans())) == {f"{__name__}:asked"}
    assert own_of({"parts": held}) == {f"{__name__}:asked", f"{__name__}:Held"}


class Held:
    """Something of the user's."""


def asked(rows: Any) -> Any:
    return rows


def test_parts_in_slots_and_object_arrays_are_found() -> None:
    class Slotted:
        __slots__ = ("parts", "unset")

    model = Slotted()
    model.parts = np.array([{"deep": [StandardScaler()]}, None], object)
    assert modules_of(model) == {"numpy", "sklearn"}


def test_a_model_that_holds_itself_ends() -> None:
    class Loop:
        def __init__(self) -> None:
            self.me = [self]

    assert modules_of(Loop()) == set()
