"""KBinsDiscretizer as ONNX nodes in float64; skl2onnx compares in float32, and has no sparse answer."""

from __future__ import annotations

from typing import Any

import numpy as np


def conversions() -> dict[type[Any], Any]:
    """The conversion of KBinsDiscretizer, as skl2onnx takes it."""
    from sklearn.preprocessing import KBinsDiscretizer

    return {KBinsDiscretizer: _convert}


def shapes() -> dict[type[Any], Any]:
    """The shape of its output."""
    from sklearn.preprocessing import KBinsDiscretizer

    return {KBinsDiscretizer: _shape}


def _shape(operator: Any) -> None:
    from skl2onnx.common.data_types import DoubleTensorType

    counts = operator.raw_operator.n_bins_
    width = len(counts) if operator.raw_operator.encode == "ordinal" else int(sum(counts))
    operator.outputs[0].type = DoubleTensorType([None, width])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    from onnx import TensorProto

    def constant(numbers: list[Any], kind: int = TensorProto.DOUBLE) -> str:
        name: str = scope.get_unique_variable_name("bins_numbers")
        container.add_initializer(name, kind, [len(numbers)], numbers)
        return name

    def node(kind: str, inputs: list[str], version: int, **attributes: Any) -> str:
        name: str = scope.get_unique_variable_name("bins")
        container.add_node(kind, inputs, name, op_version=version, **attributes)
        return name

    values = node("Concat", [each.full_name for each in operator.inputs], 13, axis=1)
    axis, found = constant([1], TensorProto.INT64), []
    for column, edges in enumerate(operator.raw_operator.bin_edges_):
        inner = edges[1:-1].tolist() or [np.inf]  # one bin: no number reaches the next
        one = node("Gather", [values, constant([column], TensorProto.INT64)], 13, axis=1)
        reached = node("Cast", [node("GreaterOrEqual", [one, constant(inner)], 16)], 13, to=TensorProto.DOUBLE)
        answer = node("ReduceSum", [reached, axis], 13, keepdims=1)
        if operator.raw_operator.encode != "ordinal":
            every = constant([float(number) for number in range(len(edges) - 1)])
            answer = node("Cast", [node("Equal", [answer, every], 13)], 13, to=TensorProto.DOUBLE)
        found.append(answer)
    container.add_node("Concat", found, operator.outputs[0].full_name, axis=1, op_version=13)
