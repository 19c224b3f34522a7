"""The model in a release folder, as it was before it was saved, and the graph that it becomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from salver import plugins
from salver.accelerate import exports, graphs
from salver.accelerate.convert import Graph
from salver.accelerate.hybrid import Converted, convert_most
from salver.errors import error
from salver.frameworks import boosting, pickled, skops_file
from salver.release import MODEL_DIR, Manifest

Options = Mapping[str, Any]

SHARES = ("binary:logistic", "multi:softprob", "binary", "multiclass")
"""Objectives for which a native booster answers shares; XGBoost's, then LightGBM's."""
LABELS = ("multi:softmax", "binary:hinge", "binary:logitraw", "rank:")
"""Objectives of XGBoost whose native answers no converter gives."""
REGRESSION = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")


class Rebuilt(NamedTuple):
    """A model that converters take; `shares` where the original answers the shares of a classifier alone."""

    model: Any
    shares: bool = False


def converted(folder: Path, manifest: Manifest) -> Converted:
    """Convert the artifact of a release whose adapter has already loaded it, and so checked that it may be."""
    export = EXPORTS.get(manifest.framework)
    if export is not None:
        return Converted(export(folder, manifest))
    rebuilt = LOADERS[manifest.framework](folder / MODEL_DIR / manifest.entry, manifest.options)
    found = convert_most(rebuilt.model, manifest.signature)
    if not rebuilt.shares:
        return found
    data = graphs.shares_alone(found.graph.data, manifest.signature.outputs[0].name)
    return found._replace(graph=found.graph._replace(data=data))


def require_known(framework: str) -> None:
    """Raise `unsupported-model` for a framework that nothing converts, `missing-extra` where its converter isn't here.

    Imports nothing.
    """
    if framework not in {*LOADERS, *EXPORTS}:
        raise _can_not(f"nothing converts a release of the framework {framework}")
    for package in ("onnxruntime", "onnx", *(("skl2onnx",) if framework in LOADERS else ())):
        if find_spec(package) is None:
            raise plugins.missing_extra(package, needed_for="converting a model to ONNX")


def _can_not(why: str) -> Exception:
    return error(
        "unsupported-model",
        f"the model can't be converted to ONNX: {why}",
        hint="nothing was published; releases of these frameworks can be accelerated: "
        + ", ".join((*LOADERS, *EXPORTS)),
    )


def _sklearn(path: Path, options: Options) -> Rebuilt:
    if options.get("method", "predict") not in ("predict", "predict_proba"):
        raise _can_not(f"it answers {options['method']}, where a graph has predict and predict_proba")
    if path.suffix == ".skops":
        return Rebuilt(skops_file.load(path, options.get("trusted", ())))
    return Rebuilt(pickled.load(path, options.get(pickled.OPTION)))


def _xgboost(path: Path, options: Options) -> Rebuilt:
    xgboost = boosting.package("xgboost")
    booster = xgboost.Booster(model_file=path)
    if options.get("categories") or options.get("cut") or "c" in (booster.feature_types or ()):
        raise _can_not("of XGBoost, models without categories can be")
    if "missing" in options:
        raise _can_not(f"it takes {options['missing']} for a missing value, where a graph knows null alone")
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    native = options.get("kind") == "booster"
    if native and objective.startswith(LABELS):
        raise _can_not(f"of XGBoost, a Booster with the objective {objective} can't be")
    shares = native and objective in SHARES
    model = (xgboost.XGBClassifier if shares or "classes" in options else xgboost.XGBRegressor)()
    model.load_model(path)
    return Rebuilt(model, shares)


def _lightgbm(path: Path, options: Options) -> Rebuilt:
    lightgbm = boosting.package("lightgbm")
    booster = lightgbm.Booster(model_file=str(path))
    described = booster.dump_model()
    kind = str(described.get("objective", "")).partition(" ")[0]
    shares = "classes" not in options and kind in SHARES
    if booster.pandas_categorical or not (shares or kind in REGRESSION or "classes" in options):
        raise _can_not("of LightGBM, classifiers and regressors without categories can be")
    classifies = shares or "classes" in options
    model = (lightgbm.LGBMClassifier if classifies else lightgbm.LGBMRegressor)()
    model._Booster, model._objective, model.fitted_ = booster, kind, True
    model._n_features = model._n_features_in = booster.num_feature()
    if classifies:
        model._classes = np.array(options.get("classes", range(max(int(described["num_class"]), 2))))
        model._n_classes = len(model._classes)
    return Rebuilt(model, shares)


LOADERS: Mapping[str, Callable[[Path, Options], Rebuilt]] = {
    "sklearn": _sklearn,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
}

EXPORTS: Mapping[str, Callable[[Path, Manifest], Graph]] = {"catboost": exports.catboost, "torch": exports.torch}
