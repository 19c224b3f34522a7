"""Pipelines that no graph holds whole: what can be converted becomes the graph, the rest stays in scikit-learn.

Cut once, between two steps: the steps up to the last one without a converter stay before the graph, or else those from
the first one on stay after it. A matrix of float64 passes between them, as it does in the pipeline itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from salver.accelerate import graphs
from salver.accelerate.convert import Graph, Lost, Unconvertible, convert, leaves
from salver.errors import SalverError, error
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
    """Convert a fitted estimator whole or, where steps can't be converted, what lies before or after them.

    Raises Unconvertible, naming those steps, where nothing can be cut off.
    """
    try:
        return Converted(convert(model, signature))
    except Unconvertible as problem:
        return _in_halves(model, signature, problem)


def _in_halves(model: Any, signature: Signature, refused: Unconvertible) -> Converted:
    more: list[Lost] = []
    for side, kept, rest in _cuts(model, refused.lost):
        try:
            return _cut(side, kept, rest, signature)
        except Unconvertible as problem:
            more += (lost for lost in problem.lost if refused.lost and lost not in (*refused.lost, *more))
        except SalverError:  # the rest takes what no graph does
            continue
    if not more:
        raise refused
    return _in_halves(model, signature, Unconvertible(model, (*refused.lost, *more)))


def _cuts(model: Any, lost: Sequence[Lost]) -> Iterator[tuple[str, Any, Any]]:
    """The ways to cut a pipeline: the side of what is kept, that, and what is converted.

    All ways, those that keep fewer steps first, where none of the steps is known to be at fault.
    """
    if not hasattr(model, "steps"):
        return
    from sklearn.pipeline import Pipeline

    steps = list(model.steps)
    bad = [place for place, (name, _) in enumerate(steps) if any(_within(each, name) for each in lost)]
    middle = range(1, len(steps))
    for after in [bad[-1] + 1] if bad else middle:
        if after in middle:
            yield "before", Pipeline(steps[:after]), Pipeline(steps[after:])
    for first in [bad[0]] if bad else reversed(middle):
        if first in middle:
            yield "after", Pipeline(steps[first:]), Pipeline(steps[:first])


def _within(lost: Lost, name: str) -> bool:
    return lost.place == name or lost.place.startswith(f"{name}/")


def _cut(side: str, kept: Any, rest: Any, signature: Signature) -> Converted:
    latter = rest if side == "before" else kept
    half = Half(side, kept, int(getattr(latter, "n_features_in_", 0)))
    if not half.width or hasattr(latter, "feature_names_in_"):
        why = "what passes between is no matrix, or of unknown width"
        raise error("unsupported-model", f"the pipeline can't be cut here: {why}")
    middle: tuple[Field, ...] = (Tensor(BETWEEN, "float64", (-1, half.width)),)
    if side == "before":
        return Converted(convert(rest, Signature(middle, signature.outputs)), half)
    graph = convert(rest, Signature(signature.inputs, middle))
    return Converted(graph._replace(data=graphs.renamed(graph.data, BETWEEN)), half)
