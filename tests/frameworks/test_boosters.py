"""XGBoost, LightGBM and CatBoost: what is served is what the trained object says, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import msgspec
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import load_diabetes
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from salver import plugins
from salver.dispatch.launch import worker_environment
from salver.errors import SalverError
from salver.frameworks import Framework
from salver.publish.infer import infer_inputs, infer_outputs, to_columns, to_rows
from salver.signature import Column, Signature
from salver.testing.frameworks import Case
from tests.frameworks.boosted import (
    NUMBERS,
    TRAINED,
    cat_binary_with_text,
    cat_classifier,
    cat_without_names,
    features,
    lgb_booster,
    lgb_booster_without_names,
    lgb_classifier,
    loans,
    ranks,
    xgb_booster,
    xgb_classifier,
    xgb_regressor_without_names,
)
from tests.frameworks.contract import each_check
from tests.frameworks.served import served

SMALL = 300
each = pytest.mark.parametrize("trained", TRAINED, ids=lambda trained: trained.__name__)


def said(model: Any, inputs: Any, method: str) -> Any:
    """What the trained object itself says of what it was trained on."""
    if isinstance(model, xgboost.Booster):
        return model.predict(xgboost.DMatrix(inputs, enable_categorical=True))
    found = np.asarray(getattr(model, method)(inputs))
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found


def case(trained: Callable[[], Any], folder: Path, rows: int, **options: Any) -> tuple[Case, dict[str, Any]]:
    """The first rows of a model's training data as a case, and the options that a release of it would have."""
    (model, examples), adapter = trained(), plugins.framework(TRAINED[trained])
    inputs = infer_inputs(examples)
    columns = to_columns(examples[:rows], inputs)
    chosen = {**adapter.save(model, folder).options, **options}
    unknown = Signature(inputs, (Column("prediction", "float"),))
    outputs = infer_outputs(adapter.in_memory(model, folder, chosen, unknown)(columns))
    return Case(adapter, model, columns, Signature(inputs, outputs)), chosen


@each
@each_check
def test_the_adapters_keep_the_contract(
    check: Callable[[Case, Path], None], trained: Callable[[], Any], tmp_path: Path
) -> None:
    check(case(trained, tmp_path / "first", SMALL)[0], tmp_path)


@each
def test_a_loaded_model_says_what_the_trained_one_says(trained: Callable[[], Any], tmp_path: Path) -> None:
    one, options = case(trained, tmp_path, 10_000)
    entry = one.adapter.save(one.model, tmp_path).entry
    found = one.adapter.load(tmp_path, entry, options, one.signature)(one.columns)["prediction"]
    assert found.tolist() == said(one.model, trained()[1], "predict").tolist()


@each
def test_shares_of_classes_are_those_of_the_trained_model(trained: Callable[[], Any], tmp_path: Path) -> None:
    model, examples = trained()
    if not hasattr(model, "predict_proba"):
        with pytest.raises(SalverError) as caught:
            case(trained, tmp_path, SMALL, method="predict_proba")
        assert caught.value.code == "unsupported-model"
        return
    one, options = case(trained, tmp_path, 10_000, method="predict_proba")
    entry = one.adapter.save(model, tmp_path).entry
    found = one.adapter.load(tmp_path, entry, options, one.signature)(one.columns)
    assert found["prediction"].tolist() == said(model, examples, "predict").tolist()
    assert found["probabilities"].tolist() == model.predict_proba(examples).tolist()


@pytest.mark.parametrize("trained", [xgb_classifier, lgb_classifier, cat_classifier], ids=lambda one: one.__name__)
def test_ten_thousand_served_rows_are_those_of_the_trained_model(trained: Callable[[], Any], tmp_path: Path) -> None:
    model, examples = trained()
    rows = to_rows(examples, infer_inputs(examples))
    assert len(rows) == 10_000
    answers = served(tmp_path, model, examples, rows, options={"method": "predict_proba"})
    assert [answer["prediction"] for answer in answers] == said(model, examples, "predict").tolist()
    assert [answer["probabilities"] for answer in answers] == model.predict_proba(examples).tolist()


@pytest.mark.parametrize("trained", [xgb_booster, lgb_booster, cat_binary_with_text], ids=lambda one: one.__name__)
def test_served_answers_of_a_booster_and_of_text_features(trained: Callable[[], Any], tmp_path: Path) -> None:
    model, examples = trained()
    rows = to_rows(examples, infer_inputs(examples))
    answers = served(tmp_path, model, examples, rows)
    assert [answer["prediction"] for answer in answers] == said(model, examples, "predict").tolist()


def test_their_classes_are_not_scikit_learns_but_a_pipeline_that_ends_in_one_is() -> None:
    sklearn: Framework = plugins.framework("sklearn")
    for trained in TRAINED:
        assert not sklearn.handles(trained()[0])
    pipeline = make_pipeline(StandardScaler(), xgboost.XGBRegressor(n_estimators=2)).fit(
        *load_diabetes(return_X_y=True)
    )
    assert sklearn.handles(pipeline)
    assert not any(plugins.framework(name).handles(pipeline) for name in ("xgboost", "lightgbm", "catboost"))


@pytest.mark.parametrize("trained", [xgb_classifier, lgb_classifier], ids=lambda one: one.__name__)
def test_a_category_that_training_did_not_see_is_missing(trained: Callable[[], Any], tmp_path: Path) -> None:
    one, options = case(trained, tmp_path, SMALL, method="predict_proba")
    predict = one.adapter.load(tmp_path, one.adapter.save(one.model, tmp_path).entry, options, one.signature)
    state = np.array(["Atlantis"] * SMALL, object)
    given = predict({**one.columns, "state": state})["probabilities"]
    missing = features()[:SMALL].assign(state=pd.Categorical([None] * SMALL, features()["state"].cat.categories))
    assert given.tolist() == one.model.predict_proba(missing).tolist()


CITIES = ["Zürich", "Bern", "Genève"]


def cities() -> tuple[Any, pd.DataFrame]:
    """A model that needs the city, trained on names beyond ASCII in an order of their own."""
    table = pd.DataFrame({"city": pd.Categorical(CITIES * 50, categories=CITIES)})
    target = table["city"].cat.codes.astype(float)
    return xgboost.XGBRegressor(n_estimators=50, enable_categorical=True).fit(table, target), table


def test_categories_beyond_ascii_come_from_the_examples_since_xgboost_cuts_them(tmp_path: Path) -> None:
    (model, table), adapter = cities(), plugins.framework("xgboost")
    saved = adapter.save(model, tmp_path)
    assert saved.options["cut"] == {"city": ["Zürich", "Bern", "Genè"]}
    signature = Signature(infer_inputs(table), (Column("prediction", "float"),))
    found = adapter.load(tmp_path, saved.entry, saved.options, signature)(to_columns(table, signature.inputs))
    assert found["prediction"].tolist() == model.predict(table).tolist()
    assert len(set(found["prediction"].tolist())) == 3


def test_other_categories_than_those_of_training_are_refused_where_xgboost_cuts_them(tmp_path: Path) -> None:
    (model, table), adapter = cities(), plugins.framework("xgboost")
    saved = adapter.save(model, tmp_path)
    sorted_ones = Signature(infer_inputs(table.astype(str).astype("category")), (Column("prediction", "float"),))
    with pytest.raises(SalverError) as caught:
        adapter.load(tmp_path, saved.entry, saved.options, sorted_ones)
    assert caught.value.code == "bad-signature"
    assert "'city'" in caught.value.message


def test_names_that_lightgbm_writes_without_spaces_are_found(tmp_path: Path) -> None:
    table = loans()[list(NUMBERS)].rename(columns=lambda name: name.replace("_", " "))
    model = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(table, ranks())
    signature, adapter = Signature(infer_inputs(table), (Column("prediction", "float"),)), plugins.framework("lightgbm")
    saved = adapter.save(model, tmp_path)
    found = adapter.load(tmp_path, saved.entry, saved.options, signature)(to_columns(table, signature.inputs))
    assert found["prediction"].tolist() == model.predict(table).tolist()


class Doubled(xgboost.XGBRegressor):  # type: ignore[misc]
    def predict(self, *inputs: Any, **options: Any) -> Any:
        return 2 * super().predict(*inputs, **options)


def test_the_same_training_of_catboost_is_the_same_file(tmp_path: Path) -> None:
    data = load_diabetes()
    adapter = plugins.framework("catboost")
    trained = []
    for name in "ab":
        model = catboost.CatBoostRegressor(iterations=5, verbose=0, allow_writing_files=False, random_seed=0)
        adapter.save(model.fit(data.data, data.target), tmp_path / name)
        trained.append(model.get_metadata()["model_guid"])
    assert trained[0] != trained[1]  # and the trained models keep theirs
    one, other = ((tmp_path / name / "model" / "model.cbm").read_bytes() for name in "ab")
    assert one == other


def test_a_class_with_a_predict_of_its_own_is_refused(tmp_path: Path) -> None:
    model = Doubled(n_estimators=2).fit(*load_diabetes(return_X_y=True))
    with pytest.raises(SalverError) as caught:
        plugins.framework("xgboost").save(model, tmp_path)
    assert caught.value.code == "unsupported-model"
    assert "Doubled has its own predict" in caught.value.message


@pytest.mark.parametrize(
    "model",
    [xgboost.XGBClassifier(), lightgbm.LGBMClassifier(), catboost.CatBoostClassifier()],
    ids=lambda model: type(model).__name__,
)
def test_a_model_that_is_not_trained_is_refused(model: Any, tmp_path: Path) -> None:
    adapter = next(plugins.framework(name) for name in ("xgboost", "lightgbm", "catboost") if name in model.__module__)
    with pytest.raises(SalverError) as caught:
        adapter.save(model, tmp_path)
    assert caught.value.code == "unsupported-model"
    assert "not trained" in caught.value.message


@pytest.mark.parametrize(
    ("trained", "device", "code"),
    [
        (xgb_regressor_without_names, "tpu", "bad-settings"),
        (xgb_regressor_without_names, "cuda", "load-failed"),
        (cat_without_names, "tpu", "bad-settings"),
    ],
)
def test_a_device_that_is_not_there_is_said(trained: Callable[[], Any], device: str, code: str, tmp_path: Path) -> None:
    one, options = case(trained, tmp_path, SMALL)
    with pytest.raises(SalverError) as caught:
        one.adapter.load(
            tmp_path, one.adapter.save(one.model, tmp_path).entry, {**options, "device": device}, one.signature
        )
    assert caught.value.code == code


_COUNT = """
import importlib, os, sys
from pathlib import Path
import msgspec, numpy as np
from salver import plugins
from salver.signature import Signature
folder = Path(sys.argv[1])
sys.modules.update(dict.fromkeys(sys.argv[2:]))
given = msgspec.json.decode((folder / "given.json").read_bytes())
signature = msgspec.convert(given["signature"], Signature)
importlib.import_module(given["name"])
before = len(os.listdir("/proc/self/task"))
predict = plugins.framework(given["name"]).load(folder, given["entry"], given["options"], signature)
with np.load(folder / "in.npz", allow_pickle=True) as columns:
    first = predict({name: columns[name] for name in columns})
    for _ in range(2):
        predict({name: np.tile(columns[name], 40) for name in columns})
print(msgspec.json.encode([len(os.listdir("/proc/self/task")) - before, first["prediction"].tolist()]).decode())
"""


def worked(trained: Callable[[], Any], folder: Path, threads: int, without: tuple[str, ...] = ()) -> tuple[int, Any]:
    """How many threads predicting started in a process with a worker's environment, and what it predicted."""
    one, options = case(trained, folder, SMALL)
    given = {
        "name": one.adapter.name,
        "entry": one.adapter.save(one.model, folder).entry,
        "options": options,
        "signature": msgspec.to_builtins(one.signature),
    }
    (folder / "given.json").write_bytes(msgspec.json.encode(given))
    np.savez(folder / "in.npz", allow_pickle=True, **one.columns)
    command = [sys.executable, "-P", "-c", _COUNT, str(folder), *without]
    done = subprocess.run(
        command, env=worker_environment(os.environ, threads), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    started, predicted = msgspec.json.decode(done.stdout.splitlines()[-1])
    return started, predicted


@pytest.mark.parametrize(
    "trained", [xgb_regressor_without_names, lgb_booster_without_names], ids=lambda one: one.__name__
)
def test_a_worker_of_one_thread_starts_no_other_and_one_of_two_starts_one(
    trained: Callable[[], Any], tmp_path: Path
) -> None:
    assert (worked(trained, tmp_path, 1)[0], worked(trained, tmp_path, 2)[0]) == (0, 1)


@pytest.mark.parametrize("trained", [xgb_classifier, lgb_classifier], ids=lambda one: one.__name__)
def test_a_worker_needs_neither_pandas_nor_scikit_learn(trained: Callable[[], Any], tmp_path: Path) -> None:
    model, examples = trained()
    found = worked(trained, tmp_path, 1, without=("pandas", "sklearn"))[1]
    assert found == said(model, examples[:SMALL], "predict").tolist()
