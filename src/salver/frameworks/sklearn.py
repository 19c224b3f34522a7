"""scikit-learn estimators and pipelines, saved with skops where it can vouch for every type, else pickled."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salver import plugins
from salver.errors import error
from salver.frameworks import Columns, Predict, Saved, pickled, sklearn_inputs, skops_file
from salver.frameworks.answers import promised
from salver.frameworks.arrange import Arrange
from salver.frameworks.owners import is_own
from salver.release import CODE_DIR, MODEL_DIR
from salver.signature import Signature

MAX_BATCH: Final = 1024
"""A call costs half a millisecond of checks however few its rows: 1,000 rows in calls of 64 take twice as long."""

METHODS: Final = ("predict", "predict_proba", "decision_function", "score_samples", "transform")

AUDITED: Final = frozenset(
    {
        # Plain data holders of scikit-learn and numpy, read in their sources: building one from a file runs no code of
        # the file's choosing. skops leaves the two tree types out because a forged one can crash the process; a
        # release's files are digest-checked before they are read, and a crash stays in the worker.
        "numpy.dtype",
        "sklearn._loss.loss.CyHalfBinomialLoss",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Matern",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.gaussian_process.kernels.Sum",
        "sklearn.gaussian_process.kernels.WhiteKernel",
        "sklearn.linear_model._sgd_fast.Hinge",
        "sklearn.linear_model._sgd_fast.Log",
        "sklearn.linear_model._sgd_fast.ModifiedHuber",
        "sklearn.linear_model._sgd_fast.SquaredHinge",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.metrics._dist_metrics.ManhattanDistance64",
        "sklearn.metrics._dist_metrics.MinkowskiDistance64",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.model_selection._split.KFold",
        "sklearn.model_selection._split.StratifiedKFold",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
    }
)
_WRAPPERS: Final = frozenset(
    {
        "sklearn.model_selection._search.GridSearchCV",
        "sklearn.model_selection._search.RandomizedSearchCV",
        "sklearn.model_selection._search_successive_halving.HalvingGridSearchCV",
        "sklearn.model_selection._search_successive_halving.HalvingRandomSearchCV",
        "sklearn.pipeline.Pipeline",
    }
)
"""Classes whose predict and predict_proba are those of the estimator they hold."""

_ARGMAX: Final = frozenset(
    {
        "sklearn.calibration.CalibratedClassifierCV",
        "sklearn.ensemble._bagging.BaggingClassifier",
        "sklearn.ensemble._forest.ExtraTreesClassifier",
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.ensemble._voting.VotingClassifier",
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._classes.ExtraTreeClassifier",
    }
)
"""Classifiers whose predict is the first of the largest shares, ties included, as their sources say."""

_ARGMAX_BUT_TIES: Final = frozenset(
    {
        "sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
        "sklearn.ensemble._gb.GradientBoostingClassifier",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.linear_model._logistic.LogisticRegressionCV",
    }
)
"""Classifiers whose predict is the largest score, which the shares grow with. Rounding may level two of them."""

_LEVEL: Final = 1 - 1e-6
"""Two shares are level from this part of the larger one on: well beyond what rounding does, in 32 bits too."""

_OTHERS: Final = frozenset({"xgboost", "lightgbm", "catboost"})
"""Packages with an adapter of their own, whose classes inherit from scikit-learn's."""


class Sklearn:
    """The adapter of scikit-learn.

    Options: `method`, one of `METHODS`; `predict_proba` answers the class as `prediction` and the share of each class
    as `probabilities`.
    """

    name = "sklearn"
    options = ("method",)
    takes_categories = True

    def handles(self, model: object) -> bool:
        """Whether a base of the model's class comes from scikit-learn and it predicts."""
        if isinstance(model, type):
            return False
        bases = {base.__module__.partition(".")[0] for base in type(model).__mro__}
        return "sklearn" in bases and bases.isdisjoint(_OTHERS) and hasattr(model, "predict")

    def save(self, model: Any, folder: Path) -> Saved:
        """Write model/model.skops, or model/model.joblib where skops can't keep the model or vouch for a type."""
        target = folder / MODEL_DIR
        target.mkdir(parents=True, exist_ok=True)
        path = target / "model.skops"
        reason = _save_skops(model, path)
        if not reason:
            trusted = skops_file.untrusted(path)
            named = {f"{module}:" for module in skops_file.modules(path) | {"skops"}} | set(map(_split, trusted))
            return Saved(path.name, {"trusted": sorted(trusted), "imports": _imports(model, named)}, "", MAX_BATCH)
        path.unlink(missing_ok=True)
        used = _import("joblib", lambda: pickled.save(model, target / "model.joblib"))
        options = {"pickle": True, "globals": sorted(used), "imports": _imports(model, used | {"joblib:"})}
        return Saved("model.joblib", options, f"joblib pickle: {reason}", MAX_BATCH)

    def load(self, folder: Path, entry: str, options: Mapping[str, Any], signature: Signature) -> Predict:
        """Load the artifact below `folder`; raises `untrusted-artifact` before anything forbidden is built."""
        path = folder / MODEL_DIR / entry
        if path.suffix == ".skops":
            trusted = [str(name) for name in options.get("trusted", ())]
            beyond = [name for name in trusted if name not in AUDITED and not _in_code(folder, name)]
            if beyond:
                raise error(
                    "untrusted-artifact",
                    f"{entry}: the release trusts types that are neither its own code nor audited",
                    details=tuple(beyond),
                )
            model = _import("skops", lambda: skops_file.load(path, trusted))
        elif options.get("pickle") is True:
            model = _import("joblib", lambda: pickled.load(path, options.get(pickled.OPTION)))
        else:
            raise error("untrusted-artifact", f"{entry} is a pickle, and the release doesn't say that it needs one")
        arranged = sklearn_inputs.matrix(model, options, signature)
        return promised(self._call(model, options, signature, arranged), signature)

    def columns(self, model: Any) -> tuple[str, ...]:
        """The names of the columns that the model was trained on, in order; () where it doesn't know them."""
        return sklearn_inputs.columns(model)

    def in_memory(
        self, model: Any, folder: Path, options: Mapping[str, Any], signature: Signature
    ) -> Callable[[Columns], Any]:
        """The function that predicts with `model` as it is in memory; its raw answers show what the outputs are."""
        del folder
        return self._call(model, options, signature)

    def _call(
        self, model: Any, options: Mapping[str, Any], signature: Signature, arranged: Arrange | None = None
    ) -> Callable[[Columns], Any]:
        method = options.get("method", "predict")
        if method not in METHODS:
            raise error("bad-settings", f"sklearn: unknown method {method!r}", hint=f"one of {', '.join(METHODS)}")
        if not hasattr(model, method):
            raise error("unsupported-model", f"{type(model).__name__} has no {method}", hint="choose another method")
        arranged = arranged or sklearn_inputs.arrangement(model, options, signature)
        call = _method(model, method)
        if method == "transform":
            return lambda columns: np.asarray(_dense(call(arranged(columns))))
        if method != "predict_proba":
            return lambda columns: _dense(call(arranged(columns)))
        return _with_shares(model, arranged)


FRAMEWORK = Sklearn()


def _save_skops(model: Any, path: Path) -> str:
    """Write the skops file and read it back; returns why it can't be used, or ''."""
    try:
        _import("skops", lambda: skops_file.save(model, path))
        beyond = [name for name in skops_file.untrusted(path) if name not in AUDITED and not is_own(name)]
        if beyond:
            return f"skops can't vouch for {', '.join(beyond)}"
        skops_file.load(path, skops_file.untrusted(path))
    except (TypeError, ValueError, AttributeError, KeyError, ImportError, RecursionError) as problem:
        return f"skops can't keep it: {type(problem).__name__}: {problem}"
    return ""


def _import(package: str, act: Callable[[], Any]) -> Any:
    """Do `act`; if it fails because one of our optional packages is missing, say what to type."""
    try:
        return act()
    except ModuleNotFoundError as problem:
        if problem.name in (package, "sklearn", "pandas"):
            raise plugins.missing_extra(problem.name or package, needed_for="a scikit-learn model") from None
        raise


def _imports(model: Any, named: set[str]) -> list[str]:
    """What the artifact needs importable, from what it names as `module:name`: the user's own things as they are,
    packages by their first name.
    """
    wanted = {"sklearn"} | ({"pandas"} if hasattr(model, "feature_names_in_") else set())
    for name in named:
        root = name.partition(":")[0].partition(".")[0]
        if name != "__main__:" and root != "builtins" and root not in sys.stdlib_module_names:
            wanted.add(name if root == "__main__" or is_own(root) else root)
    bare = {name.partition(":")[0] + ":" for name in wanted if not name.endswith(":")}
    return sorted(name.removesuffix(":") for name in wanted - bare)


def _split(name: str) -> str:
    """`features.scaling.Scaler` as `features.scaling:Scaler`: the longest part that is a module, then the name."""
    module = name.rpartition(".")[0]
    while module and module not in sys.modules:
        module = module.rpartition(".")[0]
    return f"{module}:{name[len(module) + 1 :]}"


def _in_code(folder: Path, name: str) -> bool:
    root = folder / CODE_DIR / name.partition(".")[0]
    return root.is_dir() or root.with_suffix(".py").is_file()


def _with_shares(model: Any, arranged: Arrange) -> Callable[[Columns], Columns]:
    """The class that `model.predict` says beside the share of each; asks predict only where the shares can't tell."""
    predict, shares_of = _method(model, "predict"), _method(model, "predict_proba")
    classes: Any = getattr(model, "classes_", None)
    if isinstance(classes, list):
        raise error(
            "unsupported-model",
            f"{type(model).__name__} has several targets, each with shares of its own",
            hint="choose method = 'predict'",
        )
    kind = _kind(model)

    def argmax(columns: Columns) -> Columns:
        shares = shares_of(arranged(columns))
        return {"prediction": classes[shares.argmax(axis=1)], "probabilities": shares}

    def argmax_but_ties(columns: Columns) -> Columns:
        inputs = arranged(columns)
        shares = shares_of(inputs)
        found = predict(inputs) if _tied(shares) else classes[shares.argmax(axis=1)]
        return {"prediction": found, "probabilities": shares}

    def both(columns: Columns) -> Columns:
        inputs = arranged(columns)
        return {"prediction": np.asarray(_dense(predict(inputs))), "probabilities": shares_of(inputs)}

    return argmax if kind in _ARGMAX else argmax_but_ties if kind in _ARGMAX_BUT_TIES else both


def _method(model: Any, name: str) -> Callable[[Any], Any]:
    """A method of the model, on a copy where a step such as `StandardScaler(copy=False)` works in what it is given."""
    call: Callable[[Any], Any] = getattr(model, name)
    try:
        given = model.get_params()
    except AttributeError:  # it has none, or another version of scikit-learn made it, with others than this one knows
        given = {}
    if any(key.rpartition("__")[2] == "copy" and value is False for key, value in given.items()):
        return lambda inputs: call(inputs.copy())
    return call


def _kind(model: Any) -> str:
    """The full name of the class that decides what `model` predicts, behind wrappers that only pass it on."""
    while True:
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        if kind not in _WRAPPERS:
            return kind
        model = model.steps[-1][1] if hasattr(model, "steps") else getattr(model, "best_estimator_", None)


def _tied(shares: NDArray[Any]) -> bool:
    """Whether a row has two largest shares that rounding may have levelled, or NaN."""
    below = shares < shares.max(axis=1, keepdims=True) * _LEVEL
    return int(np.count_nonzero(below)) < shares.size - len(shares)


def _dense(values: Any) -> Any:
    """What a transformer or a multilabel classifier answers, without gaps where it is sparse."""
    return values.toarray() if hasattr(values, "toarray") else values
