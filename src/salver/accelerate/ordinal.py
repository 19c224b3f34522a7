"""OrdinalEncoder as ONNX nodes that answer float64; skl2onnx's gives null a code like any category's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def conversions() -> dict[type[Any], Any]:
    """The conversion of OrdinalEncoder, as skl2onnx takes it."""
    from sklearn.preprocessing import OrdinalEncoder

    return {OrdinalEncoder: _convert}


def shapes() -> dict[type[Any], Any]:
    """The shape of its output."""
    from sklearn.preprocessing import OrdinalEncoder

    return {OrdinalEncoder: _shape}


def _shape(operator: Any) -> None:
    from skl2onnx.common.data_types import DoubleTensorType

    operator.outputs[0].type = DoubleTensorType([None, len(operator.raw_operator.categories_)])


def codes(encoder: Any, column: int) -> NDArray[np.float64]:
    """What each category of a column becomes, in the order of `categories_`; null is one of them."""
    found = np.arange(len(encoder.categories_[column]), dtype=np.float64)
    mapped = encoder._default_to_infrequent_mappings[column] if encoder._infrequent_enabled else None
    if mapped is not None:
        found[: len(mapped)] = mapped
    if column in encoder._missing_indices:
        found[encoder._missing_indices[column]] = encoder.encoded_missing_value
    return found


def _convert(scope: Any, operator: Any, container: Any) -> None:
    encoder = operator.raw_operator
    unknown = -1.0 if encoder.unknown_value is None else float(encoder.unknown_value)
    coded = []
    for column, (values, texts) in enumerate(_columns(scope, operator, container)):
        pairs = list(zip(encoder.categories_[column].tolist(), codes(encoder, column).tolist(), strict=True))
        coded.append((_texts if texts else _numbers)(scope, container, values, pairs, unknown))
    container.add_node("Concat", coded, operator.outputs[0].full_name, axis=1, op_version=13)


def _columns(scope: Any, operator: Any, container: Any) -> Iterator[tuple[str, bool]]:
    """The name of each column as values of its own, (rows, 1), and whether they are texts."""
    from onnx import TensorProto
    from skl2onnx.common.data_types import StringTensorType

    for each in operator.inputs:
        texts, width = isinstance(each.type, StringTensorType), int(each.type.shape[1])
        for place in range(width):
            name = each.full_name
            if width > 1:
                index, name = (scope.get_unique_variable_name(part) for part in ("ordinal_place", "ordinal_column"))
                container.add_initializer(index, TensorProto.INT64, [1], [place])
                container.add_node("Gather", [each.full_name, index], name, axis=1, op_version=13)
            yield name, texts


def _texts(scope: Any, container: Any, values: str, pairs: list[tuple[str, float]], unknown: float) -> str:
    single, answer = (scope.get_unique_variable_name(part) for part in ("ordinal_single", "ordinal"))
    container.add_node(
        "LabelEncoder", values, single, op_domain="ai.onnx.ml", op_version=2, default_float=unknown,
        keys_strings=[str(text).encode() for text, _ in pairs], values_floats=[code for _, code in pairs],
        name=scope.get_unique_operator_name("Ordinal"),
    )  # fmt: skip
    container.add_node("Cast", single, answer, to=11, op_version=13)
    return str(answer)


def _numbers(scope: Any, container: Any, values: str, pairs: list[tuple[float, float]], unknown: float) -> str:
    """Compare with each category in turn, as LabelEncoder has no float64."""
    from onnx import TensorProto

    def constant(number: float) -> str:
        name: str = scope.get_unique_variable_name("ordinal_number")
        container.add_initializer(name, TensorProto.DOUBLE, [1], [number])
        return name

    answer = constant(unknown)
    for number, code in pairs:
        same, chosen = (scope.get_unique_variable_name(part) for part in ("ordinal_same", "ordinal"))
        if number != number:
            container.add_node("IsNaN", values, same, op_version=13)
        else:
            container.add_node("Equal", [values, constant(float(number))], same, op_version=13)
        container.add_node("Where", [same, constant(code), answer], chosen, op_version=9)
        answer = chosen
    return answer
