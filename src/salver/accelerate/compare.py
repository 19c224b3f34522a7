"""Whether two models answer alike: pure comparisons of their answers, and of the original's around a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from salver.release import Tolerance
from salver.signature import Column, Field, Tensor

Columns = Mapping[str, NDArray[Any]]
Answer = Callable[[Columns, int], Columns]

SHARE = 0.1
"""Numbers small beside the largest of their output may differ by the tolerance of this share of it."""
AROUND = 32
"""How many random neighbours of a row are asked beside those that differ in one column."""


class Alike(Struct, frozen=True):
    """Row by row: whether two answers have the same bits, and whether they are the same within the tolerances."""

    equal: NDArray[np.bool_]
    close: NDArray[np.bool_]


def tolerances(outputs: tuple[Field, ...], expected: Columns, rtol: float) -> dict[str, Tolerance]:
    """One tolerance for each output of fractions, from what the original answered to rows of its kind."""
    found: dict[str, Tolerance] = {}
    for field in outputs:
        if is_number(field):
            values = np.abs(expected[field.name].astype(np.float64))
            scale = float(values[np.isfinite(values)].max(initial=0.0))
            found[field.name] = Tolerance(rtol, float(f"{rtol * SHARE * scale:.3g}"))
    return found


def is_number(field: Field) -> bool:
    """Whether an output holds fractions, which a tolerance may be stated for."""
    return field.dtype.startswith("float") if isinstance(field, Tensor) else field.type == "float"


def alike(expected: Columns, got: Columns, allowed: Mapping[str, Tolerance], count: int) -> Alike:
    """Compare two answers to the same rows."""
    equal, close = np.ones(count, bool), np.ones(count, bool)
    for name, wanted in expected.items():
        same = _same(wanted, got[name])
        equal &= same
        rule = allowed.get(name)
        close &= same if rule is None else same | _within(wanted, got[name], wanted, rule)
    return Alike(equal, close)


def largest(expected: Columns, got: Columns, rows: NDArray[np.bool_]) -> dict[str, float]:
    """The largest difference of each output of numbers over these rows."""
    found: dict[str, float] = {}
    for name, wanted in expected.items():
        if wanted.dtype.kind == "f" and rows.any():
            gap = np.abs(got[name].astype(np.float64) - wanted)[rows]
            found[name] = float(f"{float(gap[np.isfinite(gap)].max(initial=0.0)):.3g}")
    return found


def _same(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    both = one == other
    if one.dtype.kind == "f":
        both = both | (np.isnan(one) & np.isnan(other))
    return _rowwise(np.asarray(both, bool))


def _within(low: NDArray[Any], got: NDArray[Any], high: NDArray[Any], rule: Tolerance) -> NDArray[np.bool_]:
    """Whether numbers lie between two answers, or beyond them by no more than the tolerance."""
    room = rule.atol + rule.rtol * np.maximum(np.abs(low), np.abs(high))
    with np.errstate(invalid="ignore"):
        inside = (got >= low - room) & (got <= high + room)
    return _rowwise(inside | (np.isnan(low) & np.isnan(got)))


def _rowwise(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(values.reshape(len(values), -1).all(axis=1), np.bool_)


def around(columns: Columns, inputs: tuple[Field, ...], distance: float) -> tuple[Columns, int]:
    """The neighbours of one row: each number and all of them together moved by `distance`, relative to its size.

    A number that is smaller than its column's range is moved by `distance` of a thousandth of that.
    """
    moved = [field for field in inputs if _moves(field, columns[field.name])]
    signs = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (AROUND, len(moved)))
    alone = np.concatenate([np.eye(len(moved)), -np.eye(len(moved))])
    signs = np.concatenate(
        [np.zeros((1, len(moved))), alone, np.ones((1, len(moved))), -np.ones((1, len(moved))), signs]
    )
    count = len(signs)
    near = {name: np.repeat(values, count, axis=0) for name, values in columns.items()}
    for place, field in enumerate(moved):
        values = near[field.name]
        with np.errstate(over="ignore"):
            step = (signs[:, place] * distance).reshape(-1, *([1] * (values.ndim - 1)))
            near[field.name] = (values + step * np.maximum(np.abs(values), _least(field))).astype(values.dtype)
    return near, count


def _moves(field: Field, values: NDArray[Any]) -> bool:
    return values.dtype.kind == "f" and not (isinstance(field, Column) and field.type == "int")


def _least(field: Field) -> float:
    if isinstance(field, Tensor) or field.minimum is None or field.maximum is None:
        return 0.0
    return max(abs(field.minimum), abs(field.maximum)) * 1e-3


def near_boundary(near: Columns, got: Columns, allowed: Mapping[str, Tolerance]) -> bool:
    """Whether one row's answer is among the original's answers to its neighbours: the same class, numbers between.

    A class is also excused where the shares of the original's two best are equal within the tolerance.
    """
    tied = any(_tied(values[0], allowed[name]) for name, values in near.items() if name in allowed and values.ndim == 2)
    for name, values in near.items():
        answer = got[name]
        rule = allowed.get(name)
        if rule is None:
            if not tied and not any(_same(values[row : row + 1], answer)[0] for row in range(len(values))):
                return False
        elif not _within(values.min(axis=0, keepdims=True), answer, values.max(axis=0, keepdims=True), rule)[0]:
            return False
    return True


def _tied(shares: NDArray[Any], rule: Tolerance) -> bool:
    best = np.sort(shares)[-2:]
    return len(best) == 2 and bool(best[1] - best[0] <= rule.atol + rule.rtol * best[1])
