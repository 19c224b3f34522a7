"""The reference profile of a release: how each column of its examples was distributed, frozen for comparisons later.

Only aggregates are kept, never rows: of a private column its counts alone, of free text no value that is rare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from salver.signature import Column, Field, Signature, Tensor

FORMAT = 1
PERCENTILES = (0.1, 1, 5, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 95, 99, 99.9)
BINS = 10
MAX_LEVELS = 50
MAX_WHOLE_LEVELS = 20
"""Whole numbers with at most so many distinct values are compared like categories."""
RARE = 5
"""Free text that fewer rows share may point to a person, so it isn't kept."""


class Summary(Struct, frozen=True, tag_field="kind", omit_defaults=True, kw_only=True):
    """What every profile of a column says: its rows, and which share of them had no value."""

    count: int
    missing_share: float


class Number(Summary, frozen=True, tag="number", omit_defaults=True, kw_only=True):
    """Numbers. All but `non_finite` describes the finite ones; a column without any has no further facts.

    `edges` cut the line into quantile bins: bin i holds what is above edge i-1 and at most edge i, so `counts` has one
    more entry than `edges`. Ties make fewer than ten bins. `levels` are (value, rows) of whole numbers with few values.
    """

    non_finite: int = 0
    zeros: int = 0
    distinct: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: dict[str, float] = {}
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    levels: tuple[tuple[int, int], ...] = ()


class Text(Summary, frozen=True, tag="text", omit_defaults=True, kw_only=True):
    """Categories and text: (value, rows) of at most 50 levels, the rows of all others, and how long values are."""

    distinct: int
    levels: tuple[tuple[str, int], ...]
    other: int
    length_quantiles: dict[str, float] = {}


class Flag(Summary, frozen=True, tag="bool", omit_defaults=True, kw_only=True):
    """Booleans: how many were true."""

    true: int


class Time(Summary, frozen=True, tag="datetime", omit_defaults=True, kw_only=True):
    """Dates: the first and the last, ISO 8601 in UTC."""

    first: str | None = None
    last: str | None = None


class Array(Summary, frozen=True, tag="tensor", omit_defaults=True, kw_only=True):
    """Tensors: the shape over all rows, and for numbers the finite elements' range and mean."""

    shape: tuple[int, ...]
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None


class Hidden(Summary, frozen=True, tag="private", omit_defaults=True, kw_only=True):
    """A private column, of which nothing more is kept."""


class Blob(Summary, frozen=True, tag="bytes", omit_defaults=True, kw_only=True):
    """Bytes: how long values are, and nothing of what they hold."""

    length_quantiles: dict[str, float] = {}


Kind = Number | Text | Flag | Time | Blob | Array | Hidden


class Profile(Struct, frozen=True, omit_defaults=True):
    """The profile of a release's examples: one entry per input, and per output where answers were profiled."""

    format: int
    rows: int
    inputs: dict[str, Kind]
    outputs: dict[str, Kind] = {}


def profile(
    columns: Mapping[str, NDArray[Any]], signature: Signature, outputs: Mapping[str, NDArray[Any]] | None = None
) -> bytes:
    """The reference profile as JSON, of the inputs' `columns` and perhaps the `outputs` that they got.

    Missing is None, NaN or NaT. Equal arrays give equal bytes, in whatever order their rows are.
    """
    rows = max((len(values) for values in columns.values()), default=0)
    made = Profile(
        FORMAT,
        rows,
        {field.name: _summary(field, columns[field.name]) for field in signature.inputs if field.name in columns},
        {field.name: _summary(field, outputs[field.name]) for field in signature.outputs if field.name in outputs}
        if outputs
        else {},
    )
    return msgspec.json.encode(made) + b"\n"


def read(data: bytes) -> Profile:
    """Read what `profile` wrote."""
    return msgspec.json.decode(data, type=Profile)


def _summary(field: Field, values: NDArray[Any]) -> Kind:
    present = values if isinstance(field, Tensor) else values[~_missing(values)]
    share = (len(values) - len(present)) / len(values) if len(values) else 0.0
    if field.private:
        return Hidden(count=len(values), missing_share=share)
    if isinstance(field, Tensor):
        return _array(field, values)
    if field.type in ("float", "int"):
        return _number(field, present.astype(np.float64), len(values), share)
    if field.type == "bool":
        return Flag(count=len(values), missing_share=share, true=int(present.astype(bool).sum()))
    if field.type == "datetime":
        return _time(present.astype("datetime64[us]"), len(values), share)
    if field.type == "bytes":
        lengths = np.sort(np.array([len(value) for value in present], float))
        return Blob(
            count=len(values), missing_share=share, length_quantiles=_quantiles(lengths) if len(lengths) else {}
        )
    return _text(field, [str(value) for value in present], len(values), share)


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "O":
        return np.fromiter((value is None or value != value for value in values), bool, len(values))
    if values.dtype.kind in "fM":
        return np.asarray(np.isnan(values) if values.dtype.kind == "f" else np.isnat(values))
    return np.zeros(len(values), bool)


def _number(field: Column, present: NDArray[np.float64], count: int, share: float) -> Number:
    finite = np.sort(present[np.isfinite(present)])  # sorted, so that sums don't depend on the order of rows
    unusual = len(present) - len(finite)
    if not len(finite):
        return Number(count=count, missing_share=share, non_finite=unusual)
    levels, rows = np.unique(finite, return_counts=True)
    with np.errstate(all="ignore"):
        mean, std = float(finite.mean()), float(finite.std())
        inner = np.unique(np.quantile(finite, np.arange(1, BINS) / BINS))
    inner = inner[np.isfinite(inner) & (inner < finite[-1])]
    counts = np.bincount(np.searchsorted(inner, finite, side="left"), minlength=len(inner) + 1)
    few = field.type == "int" and len(levels) <= MAX_WHOLE_LEVELS
    return Number(
        count=count,
        missing_share=share,
        non_finite=unusual,
        zeros=int((finite == 0).sum()),
        distinct=len(levels),
        minimum=float(finite[0]),
        maximum=float(finite[-1]),
        mean=_plain(mean),
        std=_plain(std),
        quantiles=_quantiles(finite),
        edges=tuple(inner.tolist()),
        counts=tuple(counts.tolist()),
        levels=tuple((int(level), int(n)) for level, n in zip(levels, rows, strict=True)) if few else (),
    )


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _quantiles(ordered: NDArray[np.float64]) -> dict[str, float]:
    with np.errstate(all="ignore"):  # between the smallest and the largest floats lies more than a float
        found = np.percentile(ordered, PERCENTILES).tolist()
    return {f"{p:g}": q for p, q in zip(PERCENTILES, found, strict=True) if np.isfinite(q)}


def _text(field: Column, present: list[str], count: int, share: float) -> Text:
    values, rows = np.unique(np.array(present, object), return_counts=True) if present else ((), ())
    ranked = sorted(zip(values, map(int, rows), strict=True), key=lambda level: (-level[1], level[0]))
    least = 1 if field.type == "category" else RARE
    kept = tuple(level for level in ranked[:MAX_LEVELS] if level[1] >= least)
    lengths = np.sort(np.array([len(value) for value in present], float))
    return Text(
        count=count,
        missing_share=share,
        distinct=len(ranked),
        levels=kept,
        other=len(present) - sum(n for _, n in kept),
        length_quantiles=_quantiles(lengths) if present and field.type == "str" else {},
    )


def _time(present: NDArray[Any], count: int, share: float) -> Time:
    if not len(present):
        return Time(count=count, missing_share=share)
    first, last = (f"{moment.isoformat()}Z" for moment in (present.min().item(), present.max().item()))
    return Time(count=count, missing_share=share, first=first, last=last)


def _array(field: Tensor, values: NDArray[Any]) -> Array:
    known = Array(count=len(values), missing_share=0.0, shape=field.shape)
    if field.dtype == "str" or not values.size:
        return known
    if values.dtype.kind == "O":  # rows of different shapes
        values = np.concatenate([np.ravel(row) for row in values])
    finite = np.sort(values[np.isfinite(values)].astype(np.float64))
    if not len(finite):
        return known
    with np.errstate(all="ignore"):
        mean = _plain(float(finite.mean()))
    return msgspec.structs.replace(known, minimum=float(finite[0]), maximum=float(finite[-1]), mean=mean)
