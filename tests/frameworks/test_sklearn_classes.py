"""The class that a released scikit-learn classifier answers is the one that its own predict says, ties included."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import CategoricalNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from salver.errors import SalverError
from salver.frameworks import sklearn as sklearn_adapter
from salver.packaging import closure
from salver.publish.infer import infer_inputs, infer_outputs, to_columns
from salver.release import CODE_DIR
from salver.signature import Column, Signature, Tensor

pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn's words about small fits and far rows

SKLEARN = sklearn_adapter.FRAMEWORK

Rows = NDArray[np.float64]
Predict = Callable[[Any], Any]

TOLD = {
    "SVC, iris",
    "huber, iris",
    "one against the rest, iris",
    "subclass with a predict of its own, iris",
}
"""Some of the cases whose rows show another class than that of the largest share."""


class Doubtful(LogisticRegression):  # type: ignore[misc]
    """Says 0 unless it is quite sure: what it predicts is not the largest share."""

    def predict(self, rows: Any) -> Any:
        shares = self.predict_proba(rows)
        return np.where(shares.max(axis=1) > 0.9, super().predict(rows), self.classes_[0])


class Last(Pipeline):  # type: ignore[misc]
    """A pipeline that predicts in its own way, as packages beside scikit-learn have them."""

    def predict(self, rows: Any) -> Any:
        return np.full(len(rows), self.classes_[-1])


class WithoutClasses(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Has shares, and no `classes_`."""

    def fit(self, rows: Any, labels: Any) -> WithoutClasses:
        self.n_features_in_ = rows.shape[1]
        self.labels_ = np.unique(labels)
        return self

    def predict(self, rows: Any) -> Any:
        return self.labels_[(np.asarray(rows)[:, 0] > 5).astype(int)]

    def predict_proba(self, rows: Any) -> Any:
        return np.full((len(rows), 2), 0.5)


SETTINGS: dict[str, dict[str, Any]] = {
    "AdaBoostClassifier": {"n_estimators": 5},
    "CalibratedClassifierCV": {"cv": 2},
    "BaggingClassifier": {"n_estimators": 4},
    "ExtraTreesClassifier": {"n_estimators": 6},
    "GaussianProcessClassifier": {"optimizer": None},
    "GradientBoostingClassifier": {"n_estimators": 6},
    "HistGradientBoostingClassifier": {"max_iter": 2},
    "LogisticRegressionCV": {"Cs": 2, "cv": 2, "max_iter": 20, "use_legacy_attributes": False},
    "MLPClassifier": {"hidden_layer_sizes": (5,), "max_iter": 30},
    "NuSVC": {"probability": True},
    "RadiusNeighborsClassifier": {"outlier_label": "most_frequent"},
    "RandomForestClassifier": {"n_estimators": 6},
    "SGDClassifier": {"loss": "log_loss"},
    "SVC": {"probability": True},
}
COMPOSED: dict[str, Any] = {
    "bagged without shares": BaggingClassifier(SVC(), n_estimators=4),
    "calibrated by steps": CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2),
    "categories": make_pipeline(KBinsDiscretizer(encode="ordinal"), CategoricalNB()),
    "chosen among SVC": GridSearchCV(SVC(probability=True), {"C": [0.1, 1]}, cv=2),
    "chosen among logistic": GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=2
    ),
    "chosen among pipelines": RandomizedSearchCV(
        Pipeline([("scaler", StandardScaler()), ("model", OneVsRestClassifier(SVC(probability=True)))]),
        {"scaler__with_mean": [True, False]},
        n_iter=2,
        cv=2,
    ),
    "even votes": RandomForestClassifier(n_estimators=4, max_depth=2),
    "frozen": FrozenEstimator(SVC(probability=True)),
    "huber": SGDClassifier(loss="modified_huber"),
    "huber in a pipeline": make_pipeline(StandardScaler(), SGDClassifier(loss="modified_huber")),
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "logistic, one against the rest": make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression())),
    "logistic, steep": make_pipeline(StandardScaler(), LogisticRegression(C=1e6, max_iter=1000)),
    "nearest, by distance": KNeighborsClassifier(4, weights="distance"),
    "nearest, even": make_pipeline(MinMaxScaler(), KNeighborsClassifier(4)),
    "one against the rest": OneVsRestClassifier(SVC(probability=True)),
    "pipeline with a predict of its own": Last([("scaler", StandardScaler()), ("model", LogisticRegression())]),
    "stacked on SVC": StackingClassifier([("nb", GaussianNB())], SVC(probability=True), cv=2),
    "stacked on logistic": StackingClassifier([("nb", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=1))]),
    "subclass with a predict of its own": Doubtful(),
    "subclass in a pipeline": make_pipeline(StandardScaler(), Doubtful()),
    "stump": DecisionTreeClassifier(max_depth=1),
    "vote": VotingClassifier([("nb", GaussianNB()), ("tree", DecisionTreeClassifier(max_depth=1))], voting="soft"),
    "works in what it is given": make_pipeline(StandardScaler(copy=False), SVC(probability=True)),
}
OF_TWO: dict[str, Any] = {
    "fixed threshold": FixedThresholdClassifier(LogisticRegression(max_iter=30), threshold=0.8),
    "fixed threshold in a pipeline": make_pipeline(StandardScaler(), FixedThresholdClassifier(GaussianNB())),
    "no classes": WithoutClasses(),
    "self-training": SelfTrainingClassifier(SVC(probability=True)),
    "tuned threshold": TunedThresholdClassifierCV(LogisticRegression(max_iter=30), cv=2),
}


def built_in() -> Iterator[tuple[str, Any]]:
    """Every classifier of scikit-learn that takes any numbers, can be made without another model, and says shares."""
    for name, kind in all_estimators("classifier"):
        needs = any(one.default is one.empty for one in inspect.signature(kind).parameters.values())
        if hasattr(kind, "predict_proba") and not needs and name not in ("CategoricalNB", "SelfTrainingClassifier"):
            yield name, kind(**SETTINGS.get(name, {}))


BUILT_IN = dict(built_in())


def iris() -> tuple[Rows, Any]:
    data = load_iris()
    return data.data, data.target_names[data.target]


def cancer() -> tuple[Rows, Any]:
    features, labels = load_breast_cancer(return_X_y=True)
    return features[:200, :4], labels[:200]


CASES = [
    pytest.param(model, data, id=f"{name}, {data.__name__}")
    for data, models in ((iris, BUILT_IN | COMPOSED), (cancer, BUILT_IN | COMPOSED | OF_TWO))
    for name, model in models.items()
]


def fitted(model: Any, rows: Rows, labels: Any) -> Any:
    if isinstance(model, FrozenEstimator):
        return FrozenEstimator(fitted(model.estimator, rows, labels))
    model = clone(model)
    if "random_state" in model.get_params():
        model.set_params(random_state=0)
    return model.fit(rows.copy(), labels)


def at_boundaries(model: Any, rows: Rows) -> Rows:
    """Rows on both sides of where the prediction changes, as near as doubles get, between rows of other classes."""
    pairs = rows[::9], rows[::-9]
    differ = model.predict(pairs[0].copy()) != model.predict(pairs[1].copy())
    low, high = (side[differ][:8].copy() for side in pairs)
    if not len(low):
        return low
    first = model.predict(low.copy())
    for _ in range(64):
        middle = low + (high - low) / 2
        same = (model.predict(middle.copy()) == first)[:, None]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return np.concatenate([low, high])


def asked(model: Any, rows: Rows) -> Rows:
    """What is at boundaries, what lies between two real rows, rows far beyond all, and the real ones."""
    between = (rows[::5] + rows[::-5]) / 2
    return np.concatenate([at_boundaries(model, rows), between, rows[::30] * 50, rows[::30] * -50, rows])


def answered(model: Any, rows: Rows, folder: Path, **chosen: str) -> tuple[Predict, Predict]:
    """What predicts in a worker, and what does with the model in memory."""
    inputs, saved = infer_inputs(rows), SKLEARN.save(model, folder)
    for relative, source in closure.close(saved.options["imports"]).files.items():
        (folder / CODE_DIR / relative).parent.mkdir(parents=True, exist_ok=True)
        (folder / CODE_DIR / relative).write_bytes(source)
    options = {**saved.options, "method": "predict_proba", **chosen}
    own = SKLEARN.in_memory(model, folder, options, Signature(inputs, (Column("unknown", "float"),)))
    shown = own(to_columns(rows, inputs))
    outputs = infer_outputs(shown)
    return SKLEARN.load(folder, saved.entry, options, Signature(inputs, outputs)), own


@pytest.mark.parametrize(("model", "data"), CASES)
def test_the_class_is_what_predict_says(model: Any, data: Callable[[], tuple[Rows, Any]], tmp_path: Path) -> None:
    rows, labels = data()
    model = fitted(model, rows, labels)
    questions = asked(model, rows)
    columns = to_columns(questions, infer_inputs(rows))
    for predict in answered(model, rows, tmp_path):
        answer = predict(columns)
        assert answer["prediction"].tolist() == model.predict(questions.copy()).tolist()
        assert np.array_equal(answer["probabilities"], model.predict_proba(questions.copy()), equal_nan=True)
        for row in range(0, 40, 4):
            alone = predict({name: values[row : row + 1] for name, values in columns.items()})
            assert alone["prediction"].tolist() == model.predict(questions[row : row + 1].copy()).tolist(), row


def test_shares_that_rounding_levels_are_told_apart_as_predict_does(tmp_path: Path) -> None:
    rows, labels = cancer()
    model = LogisticRegression().fit(rows[:, :1], labels)
    model.coef_[:], model.intercept_[:] = 1, 0
    questions = np.array([[1e-18], [-1e-18], [0.0], [3.0], [-3.0], [np.float64(2**-54)]])
    assert (model.predict_proba(questions)[[0, 1, 2, 5]] == 0.5).all()
    for predict in answered(model, questions, tmp_path):
        said = predict(to_columns(questions, infer_inputs(questions)))["prediction"].tolist()
        assert said == model.predict(questions).tolist() == [1, 0, 0, 1, 0, 1]


@pytest.mark.parametrize(("model", "data"), [case for case in CASES if case.id in TOLD])
def test_the_rows_tell_the_largest_share_from_what_predict_says(
    model: Any, data: Callable[[], tuple[Rows, Any]]
) -> None:
    rows, labels = data()
    model = fitted(model, rows, labels)
    questions = asked(model, rows)
    largest = model.predict_proba(questions.copy()).argmax(axis=1)
    assert (np.unique(labels)[largest] != model.predict(questions.copy())).any()


def test_the_shares_of_well_known_models_cost_no_second_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("predict was asked too")

    rows, labels = iris()
    made = LogisticRegression(), RandomForestClassifier(5), HistGradientBoostingClassifier(max_iter=2)
    for number, last in enumerate(made):
        model = make_pipeline(StandardScaler(), last).fit(rows, labels)
        said = model.predict(rows)
        for predict in answered(model, rows, tmp_path / str(number)):
            with monkeypatch.context() as patched:
                patched.setattr(type(last), "predict", refuse)
                assert predict(to_columns(rows, infer_inputs(rows)))["prediction"].tolist() == said.tolist()


def marks() -> tuple[Rows, Any]:
    """Three labels that a flower has or has not: most have one, some none, some two."""
    data = load_iris()
    return data.data, np.stack([data.target == 0, data.data[:, 0] > 5.8, data.data[:, 3] > 1.6], axis=1).astype(int)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    "model",
    [
        OneVsRestClassifier(LogisticRegression()),
        OneVsRestClassifier(SVC(probability=True)),
        make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression())),
        GridSearchCV(OneVsRestClassifier(LogisticRegression()), {"estimator__C": [0.1, 1]}, cv=2),
        MLPClassifier((5,), max_iter=300),
    ],
    ids=["logistic", "SVC", "pipeline", "chosen", "network"],
)
def test_several_labels_are_answered_as_predict_does(model: Any, sparse: bool, tmp_path: Path) -> None:
    rows, labels = marks()
    model = fitted(model, rows, csr_array(labels) if sparse else labels)
    said = model.predict(rows)
    said = said.toarray() if hasattr(said, "toarray") else said
    assert {0, 1, 2} <= set(said.sum(axis=1).tolist())
    columns = to_columns(rows, infer_inputs(rows))
    for method in ("predict", "predict_proba"):
        predict, _ = answered(model, rows, tmp_path / method, method=method)
        answer = predict(columns)
        assert answer["prediction"].tolist() == said.tolist()
        if method == "predict_proba":
            assert answer["probabilities"].tolist() == model.predict_proba(rows).tolist()


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(4),
        KNeighborsClassifier(),
        make_pipeline(StandardScaler(), DecisionTreeClassifier()),
        MultiOutputClassifier(LogisticRegression()),
        ClassifierChain(LogisticRegression()),
    ],
    ids=["forest", "nearest", "tree", "each", "chain"],
)
def test_several_targets_have_no_shares_but_are_answered_without(model: Any, tmp_path: Path) -> None:
    rows, labels = marks()
    model = fitted(model, rows, labels)
    with pytest.raises(SalverError) as caught:
        answered(model, rows, tmp_path / "shares")
    assert caught.value.code == "unsupported-model"
    assert "several targets" in caught.value.message
    assert "method = 'predict'" in caught.value.hint
    predict, _ = answered(model, rows, tmp_path, method="predict")
    assert predict(to_columns(rows, infer_inputs(rows)))["prediction"].tolist() == model.predict(rows).tolist()


def test_a_step_that_works_in_what_it_is_given_leaves_the_request_alone(tmp_path: Path) -> None:
    rows, labels = iris()
    model = fitted(make_pipeline(StandardScaler(copy=False), SVC(probability=True)), rows, labels)
    outputs = (Column("prediction", "str"), Tensor("probabilities", "float64", (-1, 3)))
    signature = Signature((Tensor("input", "float64", (-1, 4)),), outputs)
    saved = SKLEARN.save(model, tmp_path)
    predict = SKLEARN.load(tmp_path, saved.entry, {**saved.options, "method": "predict_proba"}, signature)
    given = rows.copy()
    answer = predict({"input": given})
    assert given.tolist() == rows.tolist()
    assert answer["prediction"].tolist() == model.predict(rows.copy()).tolist()
    assert answer["probabilities"].tolist() == model.predict_proba(rows.copy()).tolist()
