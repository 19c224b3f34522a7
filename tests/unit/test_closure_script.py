"""What of a script travels with the model that it defines."""

from __future__ import annotations

import ast
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


CHANGES = {
    "a loop": "X = {}\nfor key in 'abc':\n    X[key] = ord(key)",
    "a loop until": "X = []\nwhile len(X) < 3:\n    X.append(len(X))",
    "a context": "import contextlib\nX = set()\nwith contextlib.suppress(): X.add(1)",
    "a condition": "X = {}\nif True:\n    X['a'] = 4",
    "what was tried": "X = {}\ntry:\n    X['a'] = 1 / 0\nexcept ZeroDivisionError:\n    X['a'] = 9",
    "a function without arguments": "X = {}\ndef fill():\n    for key in 'ab': X[key] = 1\nfill()",
    "a function that calls another": "X = []\ndef inner(): X.append(1)\ndef outer(): inner()\nouter()",
    "a function that gets it": "def put(where, key): where[key] = 3\nX = {}\nput(X, 'a')",
    "a lambda": "X = []\nput = lambda value: X.append(value)\nput(3)",
    "a global statement": "X = 1\ndef raised():\n    global X\n    X = 5\nraised()",
    "a register": "X = {}\ndef register(f):\n    X[f.__name__] = 1\n    return f\n@register\ndef a(): pass",
    "a named register": "X = {}\ndef at(key):\n    return lambda f: X.setdefault(key, 1)\n@at('b')\ndef a(): pass",
    "a subclass": "X = {}\nclass B:\n    def __init_subclass__(cls): X[cls.__name__] = cls.v\nclass A(B): v = 3",
    "an initializer": "X = []\nclass Item:\n    def __init__(self, name): X.append(name)\nItem('a')",
    "a list display": "X = []\n[X.append(each) for each in range(4)]",
    "deep inside": "X = {'x': {}}\nX['x'].setdefault('a', []).append(3)",
    "operators": "X = {}\nX |= {'a': 3}\nX['a'] *= 2\nX['b'] = 1\ndel X['b']",
    "numpy": "import numpy as np\nA = np.zeros(5)\nnp.add.at(A, [1, 1], 2)\nA[3:] = 7\nnp.put(A, 0, 4)\nX = A",
    "attributes": "class C: pass\nC.x = 5\nsetattr(C, 'y', 6)\nX = C",
    "a method of its own": "class C:\n    def load(self, words): self.words = words\nX = C()\nX.load(['a'])",
    "an attribute of a function": "def X(): pass\nX.table = {}\nX.table['a'] = 3",
}


def plain(value: Any) -> Any:
    """What can be compared of values of two namespaces."""
    if hasattr(value, "tolist"):
        return value.tolist()
    inner = getattr(value, "__dict__", None)
    return value if inner is None else {name: each for name, each in inner.items() if not name.startswith("__")}


@pytest.mark.parametrize("source", CHANGES.values(), ids=CHANGES)
def test_what_fills_a_global_travels_with_it(source: str) -> None:
    whole = f"{source}\nprint(X)\ndef answer(): return X\n"
    extract = script.extract(whole, ["answer"], "train.py")
    assert "print" not in extract
    filled = plain(namespace(whole)["X"])
    assert plain(namespace(extract)["answer"]()) == filled
    assert plain(namespace("\n".join(map(ast.unparse, ast.parse(source).body[:-1]))).get("X")) != filled


@pytest.mark.parametrize(
    "statement",
    [
        "print(X)",
        "X.get(1)",
        "sorted(X)",
        "display(X)",
        "X.describe()",
        "X.to_csv('x.csv')",
        "logging.info('%s', X)",
        "plt.plot(X)",
        "model.predict(X)",
        "salver.release('m', answer, examples=X)",
        "if X: salver.release('m', answer)",
        "with open('x.txt', 'w') as file:\n    file.write(str(X))",
        "for each in X: print(each)",
        "def main():\n    X.clear()",
    ],
)
def test_what_only_reads_a_global_or_publishes_stays_behind(statement: str) -> None:
    source = f"import logging\nimport salver\nX = {{}}\ndef answer(): return X\n{statement}\n"
    assert script.extract(source, ["answer"], "train.py") == "X = {}\n\ndef answer(): return X\n"
