"""SimpleImputer as ONNX nodes in the type of its input; skl2onnx has it for float32 only."""

from __future__ import annotations

from typing import Any

import numpy as np


def conversions() -> dict[type[Any], Any]:
    """The conversion of SimpleImputer, as skl2onnx takes it."""
    from sklearn.impute import SimpleImputer

    return {SimpleImputer: _convert}


def shapes() -> dict[type[Any], Any]:
    """The shape of its output."""
    from sklearn.impute import SimpleImputer

    return {SimpleImputer: _shape}


def _shape(operator: Any) -> None:
    op = operator.raw_operator
    if op.add_indicator or len(op.statistics_) != sum(max(each.type.shape[1], 1) for each in operator.inputs):
        raise NotImplementedError("SimpleImputer with add_indicator, or one that drops empty columns")
    kind = type(operator.inputs[0].type)
    if any(type(each.type) is not kind for each in operator.inputs):
        raise NotImplementedError("SimpleImputer over numbers and texts at once")
    operator.outputs[0].type = kind([None, len(op.statistics_)])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    from onnx import TensorProto
    from skl2onnx.common.data_types import StringTensorType

    op = operator.raw_operator
    texts = isinstance(operator.inputs[0].type, StringTensorType)
    proto = TensorProto.STRING if texts else TensorProto.DOUBLE
    names = [each.full_name for each in operator.inputs]
    values = names[0]
    if len(names) > 1:
        values = scope.get_unique_variable_name("imputer_in")
        container.add_node("Concat", names, values, axis=1, op_version=13)
    fills = [str(each).encode() for each in op.statistics_] if texts else np.asarray(op.statistics_, float).tolist()
    fill = scope.get_unique_variable_name("imputer_fill")
    container.add_initializer(fill, proto, [1, len(fills)], fills)
    missing = scope.get_unique_variable_name("imputer_missing")
    if not texts and op.missing_values != op.missing_values:
        container.add_node("IsNaN", values, missing, op_version=13)
    else:
        wanted = op.missing_values.encode() if texts else float(op.missing_values)
        null = scope.get_unique_variable_name("imputer_null")
        container.add_initializer(null, proto, [1], [wanted])
        container.add_node("Equal", [values, null], missing, op_version=19)
    container.add_node("Where", [missing, fill, values], operator.outputs[0].full_name, op_version=9)
