"""Rows that tell two models apart if anything does: nulls, unseen categories, ends of ranges, neighbours of splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salver.signature import Column, Field
from salver.tables import may_be_null

Row = dict[str, Any]
Columns = Mapping[str, NDArray[Any]]
Scores = Callable[[Columns, int], NDArray[Any]]

BASES = 4
MIXED = 500
CATEGORIES = 50
GRID = 17
BEYOND_FLOAT32 = 1e39


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices below `count`, evenly spread."""
    return sorted({round(step * (count - 1) / max(limit - 1, 1)) for step in range(min(count, limit))})


def edge_rows(inputs: Sequence[Field], rows: Sequence[Row]) -> list[Row]:
    """Rows of the sample with one value replaced by each special one, all nulls at once, and random mixtures of all.

    The same sample gives the same rows.
    """
    bases = [rows[index] for index in spread(len(rows), BASES)]
    columns = [field for field in inputs if isinstance(field, Column)]
    special = {field.name: list(specials(field)) for field in columns}
    found = [{**base, name: value} for name, values in special.items() for value in values for base in bases]
    nulls = {field.name: None for field in columns if may_be_null(field)}
    found += [{**base, **nulls} for base in bases] if nulls else []
    chance = np.random.default_rng(0)
    for _ in range(MIXED if columns else 0):
        row = dict(rows[int(chance.integers(len(rows)))])
        for field in columns:
            other = rows[int(chance.integers(len(rows)))].get(field.name)
            choices = special[field.name]
            row[field.name] = (
                choices[int(chance.integers(len(choices)))] if choices and chance.random() < 0.1 else other
            )
        found.append({name: value for name, value in row.items() if value is not None or name in nulls})
    return found


def specials(field: Column) -> Iterator[Any]:
    """The values of one column worth asking; only those inside where the signature enforces it."""
    if may_be_null(field):
        yield None
    match field.type:
        case "float":
            yield from _floats(field)
        case "int":
            yield from _ints(field)
        case "bool":
            yield from (True, False)
        case "str" | "category":
            known = list(field.categories or ())[:CATEGORIES]
            yield from known
            if not field.enforce:
                yield from ("", "nan", "None", "a category that nobody has seen", *(f"{text} " for text in known[:1]))
                yield from (text.swapcase() for text in known[:1])


def _floats(field: Column) -> Iterator[float]:
    low, high = _range(field)
    span = high - low
    inside = [low, high, (low + high) / 2]
    single = [float(np.float32(value)) for value in inside]
    between = [float(np.nextafter(np.float32(v), np.float32(np.inf), dtype=np.float32)) for v in single]
    halves = [(one + other) / 2 for one, other in zip(single, between, strict=True)]
    neighbours = [float(np.nextafter(value, way)) for value in halves for way in (-np.inf, np.inf)]
    outside = [low - span, high + span, 0.0, 1e-40, 2.0**24 + 1, BEYOND_FLOAT32, -BEYOND_FLOAT32]
    yield from _allowed(field, [*inside, *single, *between, *halves, *neighbours, *outside])


def _ints(field: Column) -> Iterator[int]:
    low, high = (int(end) for end in _range(field))
    yield from map(int, _allowed(field, [low, high, (low + high) // 2, low - 1, high + 1, 0, 2**24 + 1, -(2**24) - 1]))


def _range(field: Column) -> tuple[float, float]:
    low = 0.0 if field.minimum is None else field.minimum
    return low, max(low, 1.0 if field.maximum is None else field.maximum)


def _allowed(field: Column, values: Sequence[Any]) -> Iterator[Any]:
    low, high = (field.minimum, field.maximum) if field.enforce else (None, None)
    for value in dict.fromkeys(values):
        if (low is None or value >= low) and (high is None or value <= high):
            yield value


def split_rows(scores: Scores, inputs: Sequence[Field], columns: Columns, rows: Sequence[Row]) -> list[Row]:
    """Rows on both sides of places where the answer jumps as one number grows, two doubles apart, and near them.

    Each numeric column of a few rows is walked over its range; an interval whose ends get different answers is halved
    until no double is left between. That finds the splits of trees and the boundaries of classes whatever stands
    before them.
    """
    walks = [
        (index, field, float(low), float(high))
        for index in spread(len(rows), BASES)
        for field in inputs
        if isinstance(field, Column) and field.type == "float" and field.maximum is not None
        for low, high in _intervals(field)
    ]
    if not walks:
        return []
    low, high = (np.array([walk[end] for walk in walks]) for end in (2, 3))
    base = {name: values[[walk[0] for walk in walks]] for name, values in columns.items()}
    places: dict[str, NDArray[Any]] = {}
    for name in {field.name for _, field, _, _ in walks}:
        places[name] = np.array([field.name == name for _, field, _, _ in walks])

    def ask(values: NDArray[Any]) -> NDArray[Any]:
        given = {name: np.where(places[name], values, each) if name in places else each for name, each in base.items()}
        return scores(given, len(walks))

    at_low, at_high = ask(low), ask(high)
    jumps = _differ(at_low, at_high)
    for _ in range(70):
        middle = low + (high - low) / 2
        left = _differ(at_low, ask(middle))
        high, low = np.where(left, middle, high), np.where(left, low, middle)
    return [
        {**rows[walks[place][0]], walks[place][1].name: value}
        for place in np.flatnonzero(jumps).tolist()
        for value in _beside(float(low[place]), float(high[place]), walks[place][1])
    ]


def _intervals(field: Column) -> Iterator[tuple[Any, Any]]:
    grid = np.linspace(*_range(field), GRID)
    yield from pairwise(grid)


def _differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    same = one == other
    return ~np.asarray(np.asarray(same, bool).reshape(len(one), -1).all(axis=1), np.bool_)


def _beside(low: float, high: float, field: Column) -> Iterator[Any]:
    single = float(np.float32(low))
    wider = [float(np.nextafter(np.float32(low), np.float32(way), dtype=np.float32)) for way in (-np.inf, np.inf)]
    yield from _allowed(field, [low, high, single, *wider])
