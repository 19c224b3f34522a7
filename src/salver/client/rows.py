"""Rows as people hold them (a mapping, a list of them, a DataFrame) as the JSON body the server reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import msgspec
import numpy as np

from salver.errors import error
from salver.protocols import Codec


def encode(rows: Any) -> bytes:
    """The request body of one row, a list of rows or a DataFrame. Missing values (NaN, NaT, NA) become null."""
    return _ENCODER.encode(_records(rows) if _is_frame(rows) else _plain_rows(rows))


def problems_of(body: bytes, codec: Codec) -> list[str]:
    """Everything the signature forbids in a body, as the server would say it."""
    part = codec.decode([body]).parts[0]
    if part.failure is not None:
        return list(part.failure.details or (part.failure.message,))
    problems: list[str] = []
    for _, problem in sorted(part.errors.items()):  # each names its place itself
        problems += problem.details or (problem.message,)
    return problems


def _plain_rows(rows: Any) -> Any:
    if isinstance(rows, Mapping):
        return dict(rows)
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)) and all(isinstance(r, Mapping) for r in rows):
        return [dict(row) for row in rows]
    raise error(
        "bad-request",
        f"rows can't be of type {type(rows).__name__}",
        hint="give a mapping from column to value, a list of such mappings, or a DataFrame",
    )


def _is_frame(rows: Any) -> bool:
    return hasattr(rows, "to_dict") and hasattr(rows, "columns") and hasattr(rows, "isna")


def _records(frame: Any) -> list[dict[str, Any]]:
    """A DataFrame as rows: missing values as None, and whole floats of a column with gaps as the integers they were."""
    missing = frame.isna().to_numpy()
    columns = []
    for place, name in enumerate(frame.columns):
        values = [None if gap else value for value, gap in zip(frame[name].tolist(), missing[:, place], strict=True)]
        columns.append((str(name), _integers(values) if missing[:, place].any() else values))
    return [{name: values[row] for name, values in columns} for row in range(len(frame))]


def _integers(values: list[Any]) -> list[Any]:
    present = [value for value in values if value is not None]
    if all(isinstance(value, float) and value.is_integer() for value in present):
        return [None if value is None else int(value) for value in values]
    return values


def _foreign(value: Any) -> Any:
    """A value JSON has no word for: numpy's, pandas' and dates."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, date):
        return None if str(value) == "NaT" else value.isoformat()
    if type(value).__name__ == "NAType":
        return None
    raise error("bad-request", f"a row holds a value of type {type(value).__name__}, which has no JSON form")


_ENCODER = msgspec.json.Encoder(enc_hook=_foreign)
