"""Converters of XGBoost, LightGBM and CatBoost models, which onnxmltools has and skl2onnx has to be told of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from salver import plugins

NAMES: Final = frozenset({"XGBClassifier", "XGBRegressor", "LGBMClassifier", "LGBMRegressor"})


def register(steps: Iterable[Any]) -> None:
    """Tell skl2onnx how the boosters among `steps` are converted."""
    for step in steps:
        name = type(step).__name__
        if name in NAMES:
            _register(type(step), name)


def forget_names(step: Any) -> None:
    """Let a booster call its columns by place, as its converter wants it."""
    if type(step).__name__.startswith("XGB") and hasattr(step, "get_booster"):
        step.get_booster().feature_names = None


def _register(kind: type[Any], name: str) -> None:
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    classifier = name.endswith("Classifier")
    shape = calculate_linear_classifier_output_shapes if classifier else calculate_linear_regressor_output_shapes
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]} if classifier else None
    if not classifier and name.startswith("LGBM"):
        options = {"split": None}
    update_registered_converter(
        kind, f"{kind.__module__.partition('.')[0]}{name}", shape, _converter(name), options=options
    )


def _converter(name: str) -> Any:
    try:
        if name.startswith("XGB"):
            from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as found
        else:
            from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm as found
    except ModuleNotFoundError as problem:
        raise plugins.missing_extra("onnxmltools", needed_for=f"converting a {name} to ONNX") from problem
    return found
