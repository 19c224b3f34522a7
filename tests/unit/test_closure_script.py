"""What of a script travels with the model that it defines."""

from __future__ import annotations

from typing import Any

import pytest

from salver.errors import SalverError
from salver.packaging import script

TRAIN = '''
"""Trains the churn model."""
from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

LIMITS = {"age": 120}
LIMITS["income"] = 1e6
NAMES: list[str] = []
NAMES.append("age")
UNUSED = sys.argv


def clip(values, limit=LIMITS["age"]):
    return np.minimum(values, limit)


def load_data(path):
    return json.loads(Path(path).read_text())


class Base:
    def prepared(self, rows):
        return {name: clip(rows[name]) for name in NAMES}


@staticmethod
def unrelated():
    pass


model = LogisticRegression()
data = load_data("train.json")
model.fit(data["x"], data["y"])
print("trained")


class Churn(Base):
    """The model."""

    def load(self, files):
        model = json.loads((files / "model.json").read_text())
        self.weights = model

    def predict(self, rows):
        return self.prepared(rows)["age"] * self.weights["age"]


if __name__ == "__main__":
    raise SystemExit("this must not travel")
'''


def namespace(source: str) -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "train"}
    exec(compile(source, "train.py", "exec"), found)
    return found


def test_the_extract_holds_what_the_class_reaches_and_nothing_else() -> None:
    found = namespace(script.extract(TRAIN, ["Churn"], "train.py"))
    names = {name for name in found if not name.startswith("__")}
    assert names == {"annotations", "json", "np", "LIMITS", "NAMES", "clip", "Base", "Churn"}


def test_changes_made_in_place_come_along() -> None:
    found = namespace(script.extract(TRAIN, ["Churn"], "train.py"))
    assert found["LIMITS"] == {"age": 120, "income": 1e6}
    assert found["NAMES"] == ["age"]


def test_a_local_variable_does_not_pull_in_a_global_of_the_same_name() -> None:
    assert "LogisticRegression" not in script.extract(TRAIN, ["Churn"], "train.py")


def test_the_text_is_kept_as_it_was_written() -> None:
    assert '    """The model."""\n' in script.extract(TRAIN, ["Churn"], "train.py")


def test_a_global_that_is_trained_at_the_top_is_refused() -> None:
    source = (
        "from m import M\nmodel = M().fit([1])\nclass Churn:\n    def predict(self, rows): return model.predict(rows)\n"
    )
    with pytest.raises(SalverError) as caught:
        script.extract(source, ["Churn"], "train.py")
    assert caught.value.code == "code-not-closed"
    assert "'model'" in caught.value.message
    assert "train.py, line 2" in caught.value.message
    assert "files=" in caught.value.hint


def test_a_fallback_import_comes_along_whole() -> None:
    source = (
        "try:\n    import ujson as json\nexcept ImportError:\n    import json\nclass Churn: data = json.loads('1')\n"
    )
    assert namespace(script.extract(source, ["Churn"], "train.py"))["Churn"].data == 1


def test_statements_that_share_a_line_are_told_apart() -> None:
    extract = script.extract("x = 1; print('no'); y = 2\ndef f(): return x\n", ["f"], "train.py")
    assert "print" not in extract
    assert namespace(extract)["f"]() == 1


def test_decorators_and_their_names_come_along() -> None:
    source = "import functools\ndef other(): pass\n@functools.cache\ndef f():\n    return 3\n"
    extract = script.extract(source, ["f"], "train.py")
    assert namespace(extract)["f"]() == 3
    assert "other" not in extract


def test_a_class_that_names_itself_and_a_cycle_end() -> None:
    source = "def a(): return b\ndef b(): return a\nclass C:\n    def again(self): return C\n"
    assert "class C" not in script.extract(source, ["a"], "train.py")
    assert "def b" in script.extract(source, ["a"], "train.py")


@pytest.mark.parametrize(
    ("stem", "name"), [("train", "train"), ("01-train", "_01_train"), ("code", "code_script"), ("a b", "a_b")]
)
def test_a_script_s_name_becomes_a_module_s_name(stem: str, name: str) -> None:
    assert script.module_name(stem) == name


GUARDED = """
class Base:
    pass

if __name__ == "__main__":
    class Inner(Base):
        pass
"""


def test_a_class_below_the_main_guard_is_refused_with_where_to_move_it() -> None:
    with pytest.raises(SalverError) as caught:
        script.extract(GUARDED, ["Inner"], "train.py")
    assert caught.value.code == "code-not-closed"
    assert "train.py defines Inner under if __name__" in caught.value.message
    assert caught.value.hint == "move the class to the top of its module"
