"""Which example rows become golden rows, and how private values are kept out of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from salver.signature import Field, Tensor

Rows = Sequence[Mapping[str, Any]]

MAX_TEXT = 8 << 20
"""Characters of text in all golden rows together, bytes as base64."""


def choose(rows: Rows, limit: int) -> list[int]:
    """Which rows say most about a model, as sorted indices: the first and last, those with nulls, with the smallest
    and largest of each number and with each category, then rows evenly spread. The same rows give the same choice.
    """
    wanted: dict[int, None] = {0: None, len(rows) - 1: None}
    marks = [list(_marks([row[name] for row in rows])) for name in rows[0]]
    for rank in range(max(map(len, marks), default=0)):
        for column in marks:
            if rank < len(column) and len(wanted) < limit:
                wanted[column[rank]] = None
    for row in spread(len(rows), limit):
        if len(wanted) >= limit:
            break
        wanted[row] = None
    return sorted(_affordable(rows, list(wanted)[:limit]))


def _affordable(rows: Rows, wanted: Iterable[int]) -> Iterable[int]:
    """The first of these rows, and those after it as far as there is room for their text."""
    spent = 0
    for row in wanted:
        size = sum(len(value) for value in rows[row].values() if isinstance(value, str))
        if not spent or spent + size <= MAX_TEXT:
            spent += size
            yield row


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` indices below `count`, evenly spread."""
    if count <= limit:
        return list(range(count))
    return sorted({round(step * (count - 1) / (limit - 1)) for step in range(limit)}) if limit > 1 else [0]


def stand_in(row: Mapping[str, Any], fields: Iterable[Field]) -> dict[str, Any]:
    """The row with every private value replaced by one that says nothing, but that the signature allows."""
    return {
        field.name: _neutral(field, row[field.name]) if field.private else row[field.name]
        for field in fields
        if field.name in row
    }


def _marks(values: Sequence[Any]) -> Iterable[int]:
    """Rows of one column worth asking: its first null, smallest and largest number, first of each text."""
    nulls = [row for row, value in enumerate(values) if value is None]
    yield from nulls[:1]
    numbers = [(value, row) for row, value in enumerate(values) if _is_number(value)]
    if numbers:
        yield min(numbers)[1]
        yield max(numbers, key=lambda pair: (pair[0], -pair[1]))[1]
    first: dict[str | bool, int] = {}
    for row, value in enumerate(values):
        if isinstance(value, str | bool):
            first.setdefault(value, row)
    yield from list(first.values())[:16]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _neutral(field: Field, value: Any) -> Any:
    if isinstance(field, Tensor):
        return np.zeros_like(np.asarray(value)).tolist() if field.dtype != "str" else value
    if value is None:
        return None
    if field.type in ("float", "int"):
        low, high = field.minimum, field.maximum
        number = 0.0 if low is None or high is None or low <= 0 <= high else low
        return int(number) if field.type == "int" else float(number)
    if field.type == "category" and field.categories:
        return field.categories[0]
    return {"bool": False, "datetime": "2000-01-01T00:00:00"}.get(field.type, "")
