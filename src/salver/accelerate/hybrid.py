"""Pipelines that no graph holds whole: what can be converted becomes the graph, the rest stays in scikit-learn.

Cut once, between two steps: the steps up to the last one without a converter stay before the graph, or else those from
the first one on stay after it. A matrix of float64 passes between them, as it does in the pipeline itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from salver.accelerate import boosters, graphs
from salver.accelerate.convert import Graph, convert, leaves, no_converter, unsupported
from salver.errors import SalverError
from salver.frameworks.onnx_half import BETWEEN
from salver.signature import Field, Signature, Tensor


class Half(NamedTuple):
    """What stays in scikit-learn: on which side of the graph, the pipeline of its steps, the width of the matrix."""

    side: str
    model: Any
    width: int

    @property
    def kept(self) -> list[str]:
        """Its steps, by place."""
        return [f"{place} ({type(step).__name__})" for place, step in leaves(self.model)]


class Converted(NamedTuple):
    """A graph of the whole model, or of what `half` leaves."""

    graph: Graph
    half: Half | None = None


def convert_most(model: Any, signature: Signature) -> Converted:
    """Convert a fitted estimator whole or, where steps have no converter, what lies before or after them.

    Raises `unsupported-model`, naming those steps, where nothing can be cut off.
    """
    boosters.register(step for _, step in leaves(model))
    lost = unsupported(model)
    if not lost:
        return Converted(convert(model, signature))
    for side, kept, rest in _cuts(model):
        with suppress(SalverError):
            return _cut(side, kept, rest, signature)
    raise no_converter(model, lost)


def _cuts(model: Any) -> Iterator[tuple[str, Any, Any]]:
    """The ways to cut a pipeline: the side of what is kept, that, and what is converted."""
    if not hasattr(model, "steps"):
        return
    from sklearn.pipeline import Pipeline

    steps = list(model.steps)
    bad = [place for place, (_, step) in enumerate(steps) if not isinstance(step, str) and unsupported(step)]
    first, after = bad[0], bad[-1] + 1
    if after < len(steps):
        yield "before", Pipeline(steps[:after]), Pipeline(steps[after:])
    if first:
        yield "after", Pipeline(steps[first:]), Pipeline(steps[:first])


def _cut(side: str, kept: Any, rest: Any, signature: Signature) -> Converted:
    latter = rest if side == "before" else kept
    half = Half(side, kept, int(getattr(latter, "n_features_in_", 0)))
    if not half.width or hasattr(latter, "feature_names_in_"):
        raise no_converter(kept, half.kept)  # what passes between is no matrix, or of unknown width
    middle: tuple[Field, ...] = (Tensor(BETWEEN, "float64", (-1, half.width)),)
    if side == "before":
        return Converted(convert(rest, Signature(middle, signature.outputs)), half)
    graph = convert(rest, Signature(signature.inputs, middle))
    return Converted(graph._replace(data=graphs.renamed(graph.data, BETWEEN)), half)
