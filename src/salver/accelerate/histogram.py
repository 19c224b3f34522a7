"""Histogram gradient boosting as one ONNX tree ensemble whose splits are float64, as scikit-learn compares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINKS = {"squared_error", "absolute_error", "quantile"}
"""Losses whose raw prediction is the answer; those of counts answer its exponential."""
COUNTS = {"poisson", "gamma"}


def conversions() -> dict[type[Any], Any]:
    """The conversion of both estimators, as skl2onnx takes it."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return {HistGradientBoostingClassifier: _classifier, HistGradientBoostingRegressor: _regressor}


def nodes(predictors: list[list[Any]]) -> Iterator[dict[str, Any]]:
    """Every node of every tree, in the words of ONNX; NotImplementedError for a split by categories."""
    for tree, (target, predictor) in enumerate((k, p) for trees in predictors for k, p in enumerate(trees)):
        for number, node in enumerate(predictor.nodes):
            leaf = bool(node["is_leaf"])
            if node["is_categorical"]:
                raise NotImplementedError("histogram gradient boosting with splits by category")
            yield {
                "treeids": tree,
                "nodeids": number,
                "featureids": int(node["feature_idx"]),
                "modes": "LEAF" if leaf else "BRANCH_LEQ",
                "values": 0.0 if leaf else float(node["num_threshold"]),
                "truenodeids": int(node["left"]),
                "falsenodeids": int(node["right"]),
                "missing_value_tracks_true": int(node["missing_go_to_left"]),
                "target": target,
                "weight": float(node["value"]),
            }


def attributes(model: Any) -> Mapping[str, Any]:
    """The attributes of TreeEnsembleRegressor, thresholds and leaves as float64 tensors."""
    from onnx import numpy_helper

    def tensor(values: list[float] | NDArray[Any], name: str) -> Any:
        return numpy_helper.from_array(np.asarray(values, np.float64), name)

    every = list(nodes(model._predictors))
    leaves = [node for node in every if node["modes"] == "LEAF"]
    plain = ("treeids", "nodeids", "featureids", "modes", "truenodeids", "falsenodeids", "missing_value_tracks_true")
    return {
        **{f"nodes_{name}": [node[name] for node in every] for name in plain},
        "nodes_values_as_tensor": tensor([node["values"] for node in every], "values"),
        "target_treeids": [node["treeids"] for node in leaves],
        "target_nodeids": [node["nodeids"] for node in leaves],
        "target_ids": [node["target"] for node in leaves],
        "target_weights_as_tensor": tensor([node["weight"] for node in leaves], "weights"),
        "base_values_as_tensor": tensor(np.asarray(model._baseline_prediction).ravel(), "base"),
        "n_targets": len(model._predictors[0]),
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }


def _raw(scope: Any, operator: Any, container: Any) -> str:
    """Add the trees; the name of their raw scores, in float64."""
    names = [each.full_name for each in operator.inputs]
    values = names[0]
    if len(names) > 1:
        values = scope.get_unique_variable_name("hist_in")
        container.add_node("Concat", names, values, axis=1, op_version=13)
    single: str = scope.get_unique_variable_name("hist_single")
    raw: str = scope.get_unique_variable_name("hist_raw")
    where = {"op_domain": "ai.onnx.ml", "op_version": 3, "name": scope.get_unique_operator_name("Trees")}
    trees = attributes(operator.raw_operator)
    container.add_node("TreeEnsembleRegressor", values, single, **where, **trees)
    container.add_node("Cast", single, raw, to=11, op_version=13)
    return raw


def _regressor(scope: Any, operator: Any, container: Any) -> None:
    loss = operator.raw_operator.loss
    if loss not in LINKS | COUNTS:
        raise NotImplementedError(f"histogram gradient boosting with the loss {loss!r}")
    raw = _raw(scope, operator, container)
    kind = "Exp" if loss in COUNTS else "Identity"
    container.add_node(kind, raw, operator.outputs[0].full_name, op_version=13)


def _classifier(scope: Any, operator: Any, container: Any) -> None:
    from onnx import TensorProto

    model = operator.raw_operator
    raw, shares = _raw(scope, operator, container), operator.outputs[1].full_name
    if len(model._predictors[0]) == 1:
        one, yes, no = (scope.get_unique_variable_name(name) for name in ("hist_one", "hist_yes", "hist_no"))
        container.add_initializer(one, TensorProto.DOUBLE, [1], [1.0])
        container.add_node("Sigmoid", raw, yes, op_version=13)
        container.add_node("Sub", [one, yes], no, op_version=14)
        container.add_node("Concat", [no, yes], shares, axis=1, op_version=13)
    else:
        container.add_node("Softmax", raw, shares, axis=1, op_version=13)
    place, classes = scope.get_unique_variable_name("hist_best"), scope.get_unique_variable_name("hist_classes")
    texts = model.classes_.dtype.kind in "OU"
    kind = TensorProto.STRING if texts else TensorProto.INT64
    values = [str(each).encode() for each in model.classes_] if texts else [int(each) for each in model.classes_]
    container.add_initializer(classes, kind, [len(values)], values)
    container.add_node("ArgMax", shares, place, axis=1, keepdims=0, op_version=13)
    container.add_node("Gather", [classes, place], operator.outputs[0].full_name, axis=0, op_version=13)
