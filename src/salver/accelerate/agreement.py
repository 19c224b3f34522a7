"""Makes the nodes of a graph agree on float64 where a converter has mixed it with float32.

Converters answer float32 for what holds small whole numbers alone (the columns of categories, a column of ones), and
take what follows for float32 where the first column is text. No runtime opens such a graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from salver.accelerate import graphs

Kinds = Mapping[str, int]
"""The element type of each known value, by its name."""


Shape = Callable[[Any], None]


def shapes(steps: Iterable[Any]) -> dict[type[Any], Shape]:
    """Shape calculators of transformers that answer float64 to float64 where skl2onnx only guesses what they answer."""
    from skl2onnx._supported_operators import sklearn_operator_name_map as known
    from skl2onnx.common._registration import get_shape_calculator

    kinds = {type(step) for step in steps if hasattr(step, "transform") and type(step) in known}
    return {kind: _widened(get_shape_calculator(known[kind])) for kind in kinds}


def _widened(shape: Shape) -> Shape:
    def calculate(operator: Any) -> None:
        from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

        answer = operator.outputs[0]
        guessed = answer.type
        shape(operator)
        left = answer.type is guessed and isinstance(guessed, FloatTensorType)
        if left and isinstance(operator.inputs[0].type, DoubleTensorType):
            answer.type = DoubleTensorType(guessed.shape)

    return calculate


def agreed(data: bytes) -> bytes:
    """The graph with float32 cast to float64 where a node is given both, and each output declared as what it is."""
    from onnx import TensorProto, helper

    graph = graphs.read(data)
    versions = {each.domain: each.version for each in graph.opset_import}
    kinds = {each.name: each.type.tensor_type.elem_type for each in graph.graph.input}
    kinds |= {each.name: each.data_type for each in graph.graph.initializer}
    nodes: list[Any] = []
    for node in graph.graph.node:
        for place in _single(node, versions, kinds):
            wide = f"{node.input[place]}_float64"
            if wide not in kinds:
                nodes.append(helper.make_node("Cast", [node.input[place]], [wide], to=TensorProto.DOUBLE))
                kinds[wide] = TensorProto.DOUBLE
            node.input[place] = wide
        kinds |= _answered(node, versions, kinds)
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    del graph.graph.value_info[:]
    for output in graph.graph.output:
        declared = output.type.tensor_type
        declared.elem_type = kinds.get(output.name, declared.elem_type)
    return graphs.written(graph)


def _schema(node: Any, versions: Mapping[str, int]) -> Any:
    """What is known of a node's operation; None of one that ONNX doesn't have."""
    from onnx import defs

    with suppress(defs.SchemaError):
        return defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    return None


def _single(node: Any, versions: Mapping[str, int], kinds: Kinds) -> Iterator[int]:
    """The inputs of a node that are float32 while others that must have the same type are float64."""
    from onnx import TensorProto

    schema = _schema(node, versions)
    if schema is None or not schema.inputs:
        return
    alike: dict[str, list[int]] = defaultdict(list)
    for place in range(len(node.input)):
        alike[schema.inputs[min(place, len(schema.inputs) - 1)].type_str].append(place)
    for places in alike.values():
        found = [kinds.get(node.input[place]) for place in places]
        if TensorProto.DOUBLE in found:
            yield from (place for place, kind in zip(places, found, strict=True) if kind == TensorProto.FLOAT)


def _answered(node: Any, versions: Mapping[str, int], kinds: Kinds) -> dict[str, int]:
    """The element types of a node's outputs, as far as they are known."""
    from onnx import helper, shape_inference

    schema = _schema(node, versions)
    if schema is None or any(name not in kinds for name in node.input if name):
        return {}
    given = {name: helper.make_tensor_type_proto(kinds[name], None) for name in node.input if name}
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    with suppress(Exception):  # what can't be inferred stays unknown
        found = shape_inference.infer_node_outputs(schema, node, given, opset_imports=imports)
        return {name: kind.tensor_type.elem_type for name, kind in found.items() if kind.tensor_type.elem_type}
    return {}
