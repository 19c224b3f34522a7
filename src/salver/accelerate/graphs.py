"""Changes to finished ONNX graphs: which outputs they have, what those are called, and nothing that varies by run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def read(data: bytes) -> Any:
    """A graph as onnx holds it."""
    import onnx

    return onnx.ModelProto.FromString(data)


def written(graph: Any) -> bytes:
    """The bytes of a graph, always the same for the same graph."""
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def opens(data: bytes) -> bool:
    """Whether the runtime takes the graph."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's own errors have no common base
        return False
    return True


def shares_alone(data: bytes, output: str) -> bytes:
    """A classifier's graph that answers what a native booster does: the share of the second of two classes, or all."""
    from onnx import numpy_helper

    graph = read(data)
    shares = graph.graph.output[1]
    width = shares.type.tensor_type.shape.dim[1].dim_value
    if width == 2:
        graph.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "second_class"))
        _add(graph, "Gather", [shares.name, "second_class"], output, axis=1)
    else:
        _add(graph, "Identity", [shares.name], output)
    _outputs(graph, [(output, shares.type.tensor_type.elem_type, [None, 1 if width == 2 else width or None])])
    return written(graph)


def renamed(data: bytes, output: str) -> bytes:
    """The graph with its one output called `output`."""
    graph = read(data)
    old = graph.graph.output[0]
    _add(graph, "Identity", [old.name], output)
    _outputs(graph, [(output, old.type.tensor_type.elem_type, [None, None])])
    return written(graph)


def labelled(graph: Any, classes: Sequence[Any] | None) -> None:
    """Add the output `prediction` to a graph that answers `probabilities` alone: the class with the largest share."""
    from onnx import TensorProto, numpy_helper

    shares = graph.graph.output[0]
    width = shares.type.tensor_type.shape.dim[1].dim_value
    labels = np.arange(width) if classes is None else np.asarray(classes)
    texts = labels.dtype.kind in "OU"
    values = labels.astype(object) if texts else labels.astype(np.int64)
    graph.graph.initializer.append(numpy_helper.from_array(values, "classes"))
    _add(graph, "ArgMax", [shares.name], "best_class", axis=1, keepdims=0)
    _add(graph, "Gather", ["classes", "best_class"], "prediction", axis=0)
    kinds = [(shares.name, shares.type.tensor_type.elem_type, [None, width])]
    _outputs(graph, [("prediction", TensorProto.STRING if texts else TensorProto.INT64, [None]), *kinds])


def classifies(data: bytes) -> bool:
    """Whether a CatBoost graph answers classes."""
    return _ends_in_map(read(data))


def _ends_in_map(graph: Any) -> bool:
    return bool(graph.graph.node[-1].op_type == "ZipMap")


def without_maps(data: bytes, output: str) -> bytes:
    """A CatBoost graph whose probabilities are a matrix, not a list of maps, and whose score is called `output`."""
    from onnx import TensorProto

    graph = read(data)
    graph.ir_version = max(graph.ir_version, 4)
    nodes = graph.graph.node
    if _ends_in_map(graph):
        shares, label = nodes[-1].input[0], graph.graph.output[0]
        kind: int = label.type.tensor_type.elem_type
        del nodes[-1]
        nodes[0].output[1] = "probabilities"
        assert shares != "probabilities"
        _outputs(graph, [(label.name, kind, [None]), ("probabilities", TensorProto.FLOAT, [None, None])])
    else:
        nodes[-1].output[0] = output
        _outputs(graph, [(output, TensorProto.FLOAT, [None, None])])
    del graph.metadata_props[:]
    graph.graph.name, graph.doc_string = "model", ""
    return written(graph)


def plain(graph: Any) -> None:
    """Take out what tells of where and when a graph was exported: places in source files, names of modules."""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    for function in graph.functions:
        del function.metadata_props[:]
    for part in (graph.graph, *graph.functions):
        for each in (*part.node, *part.value_info):
            del each.metadata_props[:]
            each.doc_string = ""
    graph.doc_string = graph.graph.doc_string = ""
    graph.graph.name = "model"


def _add(graph: Any, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
    from onnx import helper

    graph.graph.node.append(helper.make_node(kind, inputs, [output], **attributes))


def _outputs(graph: Any, wanted: list[tuple[str, int, list[int | None]]]) -> None:
    from onnx import helper

    del graph.graph.output[:]
    graph.graph.output.extend(helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in wanted)
