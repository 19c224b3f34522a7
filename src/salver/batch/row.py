"""One row of a file on its way through a release."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from salver.errors import SalverError


class Record(NamedTuple):
    """One row of a file.

    `line` counts from 1 and is where the row begins (for Parquet and a JSON list, the number of the row). `original`
    maps every column to its value as it stood; `row` holds the declared inputs in their types, as far as they have
    them; with a `problem` the row can't be predicted.
    """

    line: int
    original: dict[str, Any]
    row: dict[str, Any]
    problem: SalverError | None = None


def whole(record: Record, outputs: dict[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any]:
    """A row with typed values and its outputs, null where it has none: what formats with types write."""
    return {**record.original, **record.row, **(outputs or dict.fromkeys(names))}


class Records(NamedTuple):
    """An open file: its columns where they are known up front, its rows, and how much of it was read (0 to 1)."""

    columns: list[str]
    rows: Iterator[Record]
    fraction: Callable[[], float]
    schema: Any = None
