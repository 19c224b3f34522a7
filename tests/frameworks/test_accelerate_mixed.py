"""Pipelines whose converters mix float32 and float64, and models whose answers are texts or raw scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)

import salver
from salver.accelerate import Source
from salver.accelerate.evidence import Evidence
from salver.accelerate.judge import Judge
from salver.accelerate.rebuild import converted
from salver.errors import SalverError
from salver.frameworks import onnx
from salver.publish.infer import to_rows
from salver.registry import Registry, ReleaseCache
from salver.storage.folder import FolderStorage
from salver.worker.predictor import Predictor
from tests.frameworks.test_accelerate import accelerated, credit

WORDS = ["Home", "Marital", "Records", "Job"]


def released(folder: Path, model: Any, examples: Any) -> Source:
    """An unproven release of the model, unpacked, to be compared on all its examples."""
    folder.mkdir(exist_ok=True)
    options = {"method": "predict_proba"} if hasattr(model, "predict_proba") else {}
    salver.release("m", model, examples=examples, registry=str(folder / "registry"), options=options, proof=False)
    store = Registry(FolderStorage(folder / "registry"))
    release = store.find("m@1")
    manifest = store.manifest(release)
    rows = to_rows(examples, manifest.signature.inputs)
    unpacked = ReleaseCache(folder / "cache").open(store, release)
    return Source(unpacked, manifest, {"examples": rows}, cache=str(folder / "cache"))


def ordinal(words: list[str], **options: Any) -> Any:
    options = {"handle_unknown": "use_encoded_value", "unknown_value": -1, **options}
    return make_column_transformer((OrdinalEncoder(**options), words), remainder="passthrough")


def homes(kind: str) -> tuple[Any, Any]:
    """A column of words, first, and one of numbers of this dtype; the label is a number."""
    features, labels = credit()
    return features[["Home", "Age"]].fillna({"Home": "rent"}).astype({"Age": kind}), (labels == "bad").astype(int)


def one_hot_before_whole_numbers() -> tuple[Any, Any]:
    features, labels = homes("int64")
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["Home"]), remainder="passthrough")
    return make_pipeline(columns, LogisticRegression(max_iter=500)).fit(features, labels), features


def one_hot_before_fractions() -> tuple[Any, Any]:
    features, labels = homes("float64")
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["Home"]), remainder="passthrough")
    return make_pipeline(columns, LogisticRegression(max_iter=500)).fit(features, labels), features


def codes_before_scaled_numbers() -> tuple[Any, Any]:
    features, labels = homes("float64")
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((encode, ["Home"]), (StandardScaler(), ["Age"]))
    return make_pipeline(columns, LogisticRegression()).fit(features, labels), features


def codes_then_products_then_scaling() -> tuple[Any, Any]:
    features, labels = homes("float64")
    tail = (PolynomialFeatures(2), StandardScaler(), Ridge())
    return make_pipeline(ordinal(["Home"]), *tail).fit(features, labels), features


def codes_with_nulls_before_histogram_boosting() -> tuple[Any, Any]:
    features, labels = credit()
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0)
    return make_pipeline(ordinal(WORDS), model).fit(features, labels), features


def codes_with_own_nulls_and_infrequent_words() -> tuple[Any, Any]:
    features, labels = credit()
    features = features[["Home", "Job", "Age"]]
    encode = ordinal(["Home", "Job"], max_categories=4, unknown_value=np.nan, encoded_missing_value=-2)
    model = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    return make_pipeline(encode, model).fit(features, labels), features


def codes_of_numbers() -> tuple[Any, Any]:
    features, labels = credit()
    features = features[["Seniority", "Income", "Age"]]
    model = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    return make_pipeline(ordinal(["Seniority", "Income"]), model).fit(features, labels), features


def polynomials() -> tuple[Any, Any]:
    features, labels = load_iris(return_X_y=True, as_frame=True)
    return make_pipeline(PolynomialFeatures(), Ridge()).fit(features, labels), features


def bins(encode: str) -> tuple[Any, Any]:
    features, labels = load_iris(return_X_y=True, as_frame=True)
    cut = KBinsDiscretizer(encode=encode, quantile_method="averaged_inverted_cdf")
    return make_pipeline(cut, LogisticRegression()).fit(features, labels), features


def sparse_bins() -> tuple[Any, Any]:
    return bins("onehot")


def numbered_bins() -> tuple[Any, Any]:
    return bins("ordinal")


MIXED = (
    one_hot_before_whole_numbers, one_hot_before_fractions, codes_before_scaled_numbers,
    codes_then_products_then_scaling, codes_with_nulls_before_histogram_boosting,
    codes_with_own_nulls_and_infrequent_words, codes_of_numbers, polynomials, sparse_bins, numbered_bins,
)  # fmt: skip


def judged(source: Source, folder: Path, other: Source | None = None) -> Evidence:
    """What comparing the release with its graph, or that of another, which holds all of its steps, finds."""
    twin = other or source
    found = converted(twin.folder, twin.manifest)
    assert found.half is None
    saved = onnx.FRAMEWORK.save(found.graph.data, folder)
    options = {**saved.options, **found.graph.options}
    predict = onnx.FRAMEWORK.load(folder, saved.entry, options, source.manifest.signature)
    original = Predictor.open(source.folder)
    return Judge(original, Predictor(folder, source.manifest, "", predict), "sha256:0").judge(source.rows)


@pytest.mark.parametrize("made", MIXED, ids=lambda made: made.__name__)
def test_a_pipeline_whose_converters_mix_float32_and_float64_becomes_one_graph_that_answers_the_same(
    made: Callable[[], tuple[Any, Any]], tmp_path: Path
) -> None:
    assert judged(released(tmp_path, *made()), tmp_path / "graph").holds


def forest_of_words(trees: int = 20) -> tuple[Any, Any]:
    features, labels = credit()
    model = make_pipeline(ordinal(WORDS), SimpleImputer(), RandomForestClassifier(trees, random_state=0))
    return model.fit(features, labels), features


def boosting_of_words(trees: int = 20) -> tuple[Any, Any]:
    found = load_iris(as_frame=True)
    names = found.target_names[found.target]
    return GradientBoostingClassifier(n_estimators=trees, random_state=0).fit(found.data, names), found.data


def lightgbm_of_words(trees: int = 20) -> tuple[Any, Any]:
    import lightgbm

    features, labels = credit()
    features = features[["Age", "Time", "Amount", "Price"]]
    return lightgbm.LGBMClassifier(n_estimators=trees, verbose=-1).fit(features, labels), features


WORDED = (forest_of_words, boosting_of_words, lightgbm_of_words)


@pytest.mark.parametrize("made", WORDED, ids=lambda made: made.__name__)
def test_a_row_that_differs_is_listed_with_its_label_where_labels_are_texts(
    made: Callable[..., tuple[Any, Any]], tmp_path: Path
) -> None:
    model, examples = made()
    other = released(tmp_path / "other", *made(trees=2))
    evidence = judged(released(tmp_path, model, examples), tmp_path / "graph", other)
    assert not evidence.holds
    told = [
        answer["prediction"] for each in evidence.differences for answer in (each.original, each.accelerated) if answer
    ]
    assert told
    assert set(told) <= set(model.classes_)


def test_a_release_of_text_labels_with_nulls_in_its_codes_is_accelerated_with_its_boundary_rows(tmp_path: Path) -> None:
    done = accelerated(released(tmp_path, *forest_of_words()), tmp_path / "target")
    assert done.evidence.holds
    assert sum(each.boundary for each in done.evidence.compared) > 0
    assert any(each.verdict == "boundary" for each in done.evidence.differences)


def test_a_step_whose_settings_no_converter_knows_stays_in_scikit_learn(tmp_path: Path) -> None:
    features, labels = credit()
    tail = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0], random_state=0)
    source = released(tmp_path, make_pipeline(ordinal(["Home"]), tail).fit(features[["Home", "Age"]], labels), features)
    done = accelerated(source, tmp_path / "target")
    assert done.evidence.holds
    assert done.evidence.kept == ["histgradientboostingclassifier (HistGradientBoostingClassifier)"]


def refusal(model: Any, examples: Any, folder: Path) -> SalverError:
    source = released(folder, model, examples)
    with pytest.raises(SalverError) as caught:
        converted(source.folder, source.manifest)
    assert caught.value.code == "unsupported-model"
    assert "github.com" not in str(caught.value)
    return caught.value


def test_a_step_that_no_cut_spares_is_refused_by_its_place_in_our_words(tmp_path: Path) -> None:
    features, labels = load_iris(return_X_y=True, as_frame=True)
    logs = FunctionTransformer(np.log1p)
    model = make_pipeline(logs, StandardScaler(), LogisticRegression()).fit(features, labels)
    found = refusal(model, features, tmp_path)
    assert found.message == "Pipeline can't be converted to ONNX: 1 of its steps has no converter"
    assert found.details == ("functiontransformer (FunctionTransformer): no converter for its settings",)


def test_a_reason_of_ours_is_told_with_the_step(tmp_path: Path) -> None:
    features, labels = load_iris(return_X_y=True, as_frame=True)
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]).fit(features.round(0), labels)
    (told,) = refusal(model, features.round(0), tmp_path).details
    assert told.endswith(": histogram gradient boosting with splits by category")


@pytest.mark.parametrize("loss", ["Logloss", "MultiClass"])
def test_a_plain_catboost_that_answers_raw_scores_of_classes_is_refused(loss: str, tmp_path: Path) -> None:
    from catboost import CatBoost

    features, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    said = {"loss_function": loss, "iterations": 5, "verbose": 0, "allow_writing_files": False}
    assert "a CatBoost that was trained on classes answers raw scores" in str(
        refusal(CatBoost(said).fit(features, labels), features, tmp_path)
    )


def test_a_plain_catboost_that_answers_numbers_is_accelerated(tmp_path: Path) -> None:
    from catboost import CatBoost

    features, target = load_diabetes(return_X_y=True, as_frame=True)
    said = {"loss_function": "RMSE", "iterations": 20, "verbose": 0, "allow_writing_files": False}
    assert judged(released(tmp_path, CatBoost(said).fit(features, target), features), tmp_path / "graph").holds


@pytest.mark.parametrize(
    ("ending", "code", "why"),
    [
        ("import os; os._exit(1)", "internal", "which is a bug in Salver"),
        ("import os; os.kill(os.getpid(), 9)", "load-failed", "was ended by SIGKILL"),
    ],
)
def test_an_acceleration_that_breaks_off_is_told_without_a_stack_and_leaves_its_log(
    ending: str, code: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = released(tmp_path, *polynomials())
    package = tmp_path / "broken" / "sitecustomize.py"
    package.parent.mkdir()
    package.write_text(f"import sys\nprint('last words', file=sys.stderr)\n{ending}\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with pytest.raises(SalverError) as caught:
        accelerated(source, tmp_path / "target")
    assert (caught.value.code, caught.value.details) == (code, ())
    assert why in caught.value.message
    log = Path(caught.value.hint.rpartition(" is in ")[2])
    assert log == tmp_path / "cache" / "logs" / "accelerate-m.log"
    assert "last words" in log.read_text()
