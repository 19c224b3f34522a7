"""A pipeline of which one half is an ONNX graph and the other stays in scikit-learn, before the graph or after it.

Option `half`: `side` (before, after), the `entry` of the scikit-learn half, and the `width` of the float64 matrix that
passes between them. The other options are shared by both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from salver.frameworks import Predict, sklearn
from salver.signature import Signature, Tensor

BETWEEN: Final = "between"
Load = Callable[[Signature], Predict]
"""Opens the graph as a model of the given signature."""


def load(folder: Path, options: Mapping[str, Any], signature: Signature, graph: Load) -> Predict:
    """Open both halves; the function that predicts with one after the other."""
    half = options["half"]
    middle = (Tensor(BETWEEN, "float64", (-1, int(half["width"]))),)
    one, other = Signature(signature.inputs, middle), Signature(middle, signature.outputs)
    if half["side"] == "before":
        first = sklearn.FRAMEWORK.load(folder, half["entry"], {**options, "method": "transform"}, one)
        second = graph(other)
    else:
        first, second = graph(one), sklearn.FRAMEWORK.load(folder, half["entry"], options, other)
    return lambda columns: second(first(columns))
