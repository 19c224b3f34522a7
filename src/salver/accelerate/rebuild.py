"""The model object in a release folder, as it was before it was saved: what converters take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from salver.errors import error
from salver.frameworks import boosting, pickled, skops_file
from salver.release import MODEL_DIR, Manifest

Options = Mapping[str, Any]


def model_of(folder: Path, manifest: Manifest) -> Any:
    """Load the artifact of a release whose adapter has already loaded it, and so checked that it may be."""
    load = LOADERS.get(manifest.framework)
    if load is None:
        raise _can_not(f"nothing converts a release of the framework {manifest.framework}")
    return load(folder / MODEL_DIR / manifest.entry, manifest.options)


def _can_not(why: str) -> Exception:
    return error(
        "unsupported-model",
        f"the model can't be converted to ONNX: {why}",
        hint=f"nothing was published; releases of these frameworks can be accelerated: {', '.join(LOADERS)}",
    )


def _sklearn(path: Path, options: Options) -> Any:
    if options.get("method", "predict") not in ("predict", "predict_proba"):
        raise _can_not(f"it answers {options['method']}, where a graph has predict and predict_proba")
    if path.suffix == ".skops":
        return skops_file.load(path, options.get("trusted", ()))
    return pickled.load(path, options.get(pickled.OPTION))


def _xgboost(path: Path, options: Options) -> Any:
    xgboost = boosting.package("xgboost")
    if options.get("kind") == "booster" or options.get("categories"):
        raise _can_not("of XGBoost, the models of its scikit-learn API without categories can be")
    model = (xgboost.XGBClassifier if "classes" in options else xgboost.XGBRegressor)()
    model.load_model(path)
    return model


def _lightgbm(path: Path, options: Options) -> Any:
    lightgbm = boosting.package("lightgbm")
    booster = lightgbm.Booster(model_file=str(path))
    described = booster.dump_model()
    kind = str(described.get("objective", "")).partition(" ")[0]
    regression = kind in ("regression", "regression_l1", "huber", "fair", "quantile", "mape")
    if booster.pandas_categorical or not (regression or "classes" in options):
        raise _can_not("of LightGBM, classifiers and regressors without categories can be")
    model = (lightgbm.LGBMClassifier if "classes" in options else lightgbm.LGBMRegressor)()
    model._Booster, model._objective, model.fitted_ = booster, kind, True
    model._n_features = model._n_features_in = booster.num_feature()
    if "classes" in options:
        model._classes = np.array(options["classes"])
        model._n_classes = len(model._classes)
    return model


LOADERS: Mapping[str, Callable[[Path, Options], Any]] = {
    "sklearn": _sklearn,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
}
