"""The code closure on real files: what travels, what stays, and what is said where something is missing."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from salver.errors import SalverError
from salver.packaging import closure, proof

Project = Callable[[dict[str, str]], Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Writes files to a folder that stands on the import path; its modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def put(closed: closure.Closure, code: Path) -> Path:
    for relative, source in closed.files.items():
        path = code / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
    return code


def test_everything_of_the_user_s_that_is_imported_travels_and_packages_stay(project: Project, tmp_path: Path) -> None:
    project(
        {
            "churnlib/__init__.py": "",
            "churnlib/model.py": "import json\nimport numpy as np\nfrom . import features\nfrom .deep.scale import f\n",
            "churnlib/features.py": "def late():\n    import churn_late\n    return churn_late\n",
            "churnlib/deep/__init__.py": "from churnlib.constants import X as Y\n",
            "churnlib/deep/scale.py": "import sklearn.preprocessing\ndef f(): return 1\n",
            "churnlib/constants.py": "X = 1\n",
            "churnlib/unused.py": "raise SystemExit\n",
            "churn_late.py": "import importlib\nnamed = importlib.import_module('churn_named')\n",
            "churn_named.py": "",
        }
    )
    closed = closure.close(["churnlib.model:Churn"])
    assert sorted(closed.files) == [
        "churn_late.py",
        "churn_named.py",
        "churnlib/__init__.py",
        "churnlib/constants.py",
        "churnlib/deep/__init__.py",
        "churnlib/deep/scale.py",
        "churnlib/features.py",
        "churnlib/model.py",
    ]
    assert closed.imports == {"numpy", "sklearn.preprocessing"}
    proof.prove(put(closed, tmp_path / "code"), ["churnlib.model"])


def test_nothing_is_imported_to_find_the_closure(project: Project) -> None:
    project({"exploding.py": "import exploding_too\nraise RuntimeError\n", "exploding_too.py": "raise RuntimeError\n"})
    assert sorted(closure.close(["exploding"]).files) == ["exploding.py", "exploding_too.py"]
    assert "exploding" not in sys.modules


def test_a_cycle_of_imports_ends(project: Project) -> None:
    project({"cycle_a.py": "import cycle_b\n", "cycle_b.py": "import cycle_a\n"})
    assert sorted(closure.close(["cycle_a"]).files) == ["cycle_a.py", "cycle_b.py"]


def test_all_imports_that_lead_nowhere_are_named_at_once(project: Project) -> None:
    project({"lost.py": "import nowhere_one\ndef f():\n    from nowhere_two.sub import x\n"})
    with pytest.raises(SalverError) as caught:
        closure.close(["lost"])
    assert caught.value.code == "code-not-closed"
    assert sorted(caught.value.details) == [
        "lost.py, line 1, imports nowhere_one, which is not installed",
        "lost.py, line 3, imports nowhere_two.sub, which is not installed",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    import nowhere_fast\nexcept ImportError:\n    nowhere_fast = None\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nowhere_typed\n",
    ],
)
def test_an_import_that_may_fail_by_design_is_no_problem(project: Project, source: str) -> None:
    project({"lenient.py": source})
    assert list(closure.close(["lenient"]).files) == ["lenient.py"]


def test_a_compiled_module_of_the_user_s_can_not_travel(project: Project) -> None:
    project({"uses_compiled.py": "import compiled_part\n", "compiled_part.abi3.so": ""})
    with pytest.raises(SalverError, match="compiled_part is compiled"):
        closure.close(["uses_compiled"])


TYPED = """
import sys; sys.ps1 = sys.ps2 = ""
import salver
from salver.errors import SalverError
class Churn(salver.Model):
    def predict(self, rows): return rows["x"]

try: salver.release("churn", Churn, examples=[{"x": 1}], registry="registry")
except SalverError as problem: print(problem)

"""


def test_what_was_typed_into_a_shell_is_refused(tmp_path: Path) -> None:
    shell = [sys.executable, "-q", "-i"]
    done = subprocess.run(shell, input=TYPED, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "the model needs Churn, typed into a session that keeps no source"
        " · hint: put it in a file and import it, or use a notebook\n"
    )
    assert not (tmp_path / "registry" / "models").exists()


def test_what_a_module_run_by_name_defines_is_refused(tmp_path: Path) -> None:
    typed = TYPED.replace('import sys; sys.ps1 = sys.ps2 = ""', "")
    (tmp_path / "trainer.py").write_text(typed)
    module = [sys.executable, "-m", "trainer"]
    done = subprocess.run(module, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "the model needs Churn, in a module that python -m runs · hint: run its file" in done.stdout


INSIDE = """
from salver.errors import SalverError
from salver.packaging import closure, session
def make():
    def component(doc): return doc
    return component
made = make()
del make
with session.as_module():
    try: closure.close(["__main__:make"])
    except SalverError as problem: print(problem)
"""


def test_what_a_function_of_a_script_defines_is_not_called_typed_into_a_session(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(INSIDE)
    script = [sys.executable, "train.py"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "the model needs make, defined inside a function of the script or no longer there"
        " · hint: move it to the top of the script\n"
    )


GUARDED = """
import salver
from salver.errors import SalverError
if __name__ == "__main__":
    class Churn(salver.Model):
        def predict(self, rows): return rows["x"]

    try: salver.release("churn", Churn, examples=[{"x": 1}], registry="registry")
    except SalverError as problem: print(type(problem).__name__, problem)
"""


def test_a_class_below_the_main_guard_is_refused_without_a_path(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(GUARDED)
    script = [sys.executable, "train.py"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == (
        "UserError train.py defines Churn under if __name__ == '__main__', where no worker can import it from"
        " · hint: move the class to the top of its module\n"
    )


def test_of_the_entry_module_only_what_the_model_reaches_travels(project: Project, tmp_path: Path) -> None:
    project({"entry_train.py": "import json\nRATE = 2\ndef f(x): return x * RATE\nraise SystemExit('training')\n"})
    closed = closure.close(["entry_train:f"], "entry_train")
    assert b"SystemExit" not in closed.files["entry_train.py"]
    proof.prove(put(closed, tmp_path / "code"), ["entry_train"])


def test_the_proof_names_what_is_missing_and_where(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "needy.py").write_text("x = 1\nimport nowhere_at_all\n")
    (code / "reads.py").write_text("from pathlib import Path\nX = (Path(__file__).parent / 'x.json').read_text()\n")
    with pytest.raises(SalverError) as caught:
        proof.prove(code, ["needy", "reads"])
    assert caught.value.code == "code-not-closed"
    assert caught.value.details == (
        "code/needy.py, line 2: ModuleNotFoundError: No module named 'nowhere_at_all'",
        "code/reads.py, line 2: FileNotFoundError: [Errno 2] No such file or directory: 'code/x.json'",
    )


def test_the_proof_sees_neither_the_working_directory_nor_the_path_of_the_parent(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project({"outside.py": ""})
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    code = tmp_path / "code"
    code.mkdir()
    (code / "inside.py").write_text("import outside\n")
    with pytest.raises(SalverError, match="No module named 'outside'"):
        proof.prove(code, ["inside"])


def test_a_module_that_kills_the_process_is_reported(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "deadly.py").write_text("import os\nos._exit(9)\n")
    with pytest.raises(SalverError, match="the process ended with status 9"):
        proof.prove(code, ["deadly"])


def test_a_module_may_print_while_it_is_imported(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "loud.py").write_text("import sys\nprint('[]')\nsys.stdout.write('no newline')\n")
    proof.prove(code, ["loud"])


def proven(project: Project, tmp_path: Path, files: dict[str, str], change: str = "") -> None:
    """Close over `shop:answer`, after `change` ran in it here, and prove what travels."""
    project(files)
    exec(change, vars(importlib.import_module("shop")))
    closed = closure.close(["shop:answer"])
    proof.prove(put(closed, tmp_path / "code"), closure.modules(closed), closed)


TABLE = "TABLE = {'a': 1}\nclass Words:\n    pass\nWORDS = Words()\ndef answer(key): return TABLE[key], WORDS\n"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("TABLE['b'] = 2", "shop.TABLE: dict of 2 here, dict of 1 there"),
        ("TABLE['a'] = 2", "shop.TABLE: dict of 1 with other content"),
        ("WORDS.seen = 1", "shop.WORDS: Words with other content"),
        ("answer.rate = 3; Words.rate = 3; TABLE = None", "shop.TABLE: NoneType here, dict of 1 there"),
    ],
)
def test_a_global_that_was_filled_elsewhere_refuses_the_release(
    change: str, named: str, project: Project, tmp_path: Path
) -> None:
    with pytest.raises(SalverError, match="would start with another value than here") as caught:
        proven(project, tmp_path, {"shop.py": TABLE}, change)
    assert caught.value.code == "code-not-closed"
    assert caught.value.details == (named,)


def test_globals_of_modules_that_the_code_imports_are_compared_too(project: Project, tmp_path: Path) -> None:
    files = {"shop.py": "import prices\ndef answer(key): return prices.OF[key]\n", "prices.py": "OF = {}\n"}
    with pytest.raises(SalverError) as caught:
        proven(project, tmp_path, files, "prices.OF['a'] = 3")
    assert caught.value.details == ("prices.OF: dict of 1 here, dict of 0 there",)


@pytest.mark.parametrize(
    "source",
    [
        "import os, time\nSTARTED, PID = time.time(), os.getpid()\ndef answer(key): return STARTED, PID",
        "from pathlib import Path\nHERE = str(Path(__file__).parent)\ndef answer(key): return HERE",
        "from pathlib import Path\nDATA = str(Path(PLACE) / 'data')\ndef answer(key): return DATA",
        "SEEN = {}\ndef answer(key): SEEN[key] = 1; return SEEN",
        "COUNT = 0\ndef answer(key):\n    global COUNT\n    COUNT += 1\n    return COUNT",
        "import functools\n@functools.cache\ndef answer(key): return key",
        "import threading, re, logging\nLOCK, WORD, LOG = threading.Lock(), re.compile('a'), logging.getLogger('x')\n"
        "def answer(key): return LOCK, WORD, LOG",
    ],
)
def test_what_differs_by_time_place_or_use_is_no_difference(source: str, project: Project, tmp_path: Path) -> None:
    proven(project, tmp_path, {"shop.py": source.replace("PLACE", repr(str(tmp_path))) + "\n"}, "answer('a')")


@pytest.mark.parametrize(
    ("fills", "done"),
    [
        ("for key in 'ab': PRICES[key] = ord(key)", "97.0"),
        ("same = PRICES; same['a'] = 3", "in the release PRICES would start with another value than here"),
    ],
)
def test_a_script_whose_table_is_filled_releases_what_it_holds_or_is_refused(
    fills: str, done: str, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(
        "import numpy as np\nimport salver\nPRICES = {}\n" + fills + "\n"
        "class Shop(salver.Model):\n"
        "    def predict(self, rows): return np.array([PRICES.get(key, 0.0) for key in rows['key']])\n"
        "try:\n    salver.release('shop', Shop, examples=[{'key': 'z'}, {'key': 'y'}])\n"
        "except salver.SalverError as problem:\n    print(problem)\n"
    )
    run = [sys.executable, "train.py"]
    told = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    (tmp_path / "rows.jsonl").write_text('{"key": "a"}\n')
    salver = [sys.executable, "-m", "salver", "predict", "shop", "rows.jsonl"]
    answered = subprocess.run(salver, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert done in told + answered
