"""Rows in any of the usual containers, read as typed columns: DataFrame, arrays, mappings, lists of dicts.

Everything that is wrong with any of them is said at once. Values are never put into messages: they may be private.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from salver.errors import SalverError, error
from salver.publish.columns import Typed, UnusableError, as_array, comes_from, is_series, typed_column

ACCEPTED = (
    "a DataFrame, a numpy array (with names=… for its columns), a mapping of column names to arrays, "
    "a structured array or a list of dicts; tensors are fine where arrays are"
)


class _Named(NamedTuple):
    name: Any
    values: Any
    absent: bool = False


def read(rows: Any, names: Sequence[str] = (), *, finite: bool = True) -> list[Typed]:
    """The typed columns of `rows`; raises `bad-examples` naming every problem.

    `names` are for containers that have none: a 2-D array or a list of lists (else `x0`, `x1`, …), one for a 1-D
    array, list or Series (else `text` for texts and `x0` for all else), and one for an array of three or more
    dimensions (else `input`), which is one tensor. With `finite`,
    values that no JSON request can carry are problems too.
    """
    try:
        columns = _named(rows, names)
    except UnusableError as problem:
        raise bad_examples([str(problem)], hint=f"give {ACCEPTED}") from None
    unnamed = any(not isinstance(column.name, str) for column in columns)
    problems = [*_name_problems([column.name for column in columns]), *_length_problems(columns)]
    typed = []
    for column in columns:
        try:
            typed.append(typed_column(column.name, column.values)._replace(absent=column.absent))
        except UnusableError as problem:
            problems.append(f"column {column.name!r} {problem}")
    if finite:
        problems += [f"column {column.name!r} {what}" for column in typed if (what := _not_finite(column))]
    if not columns:
        problems.append("there are no columns")
    elif not len(columns[0].values):
        problems = [*_name_problems([column.name for column in columns]), "there are no rows"]
    if problems:
        raise bad_examples(problems, hint=_RENAME if unnamed else "")
    return typed


_RENAME = "name the columns: frame.columns = ['age', 'income', …], and fit the model on the frame again"


def bad_examples(problems: Iterable[str], hint: str = "") -> SalverError:
    """The error for examples that can't be used."""
    return error("bad-examples", "the examples can't be used", hint=hint, details=tuple(problems))


def _not_finite(column: Typed) -> str:
    values = column.values[~column.missing]
    if values.dtype.kind != "f":
        return ""
    if column.type == "tensor" and np.isnan(values).any():
        return "holds arrays with NaN, which no JSON request can carry"
    infinite = int(np.isinf(values).sum())
    return f"holds {infinite} infinite values, which no JSON request can carry; leave them missing" if infinite else ""


def _named(rows: Any, names: Sequence[str]) -> list[_Named]:
    if comes_from(rows, "pandas"):
        return _of_pandas(rows, names)
    rows = as_array(rows)
    if isinstance(rows, np.ndarray):
        return _of_array(rows, names)
    if isinstance(rows, Mapping):
        return _of_mapping(rows)
    if isinstance(rows, list | tuple):
        return _of_list(rows, names)
    if hasattr(rows, "to_dict") and comes_from(rows, "polars"):
        return [_Named(name, values) for name, values in rows.to_dict(as_series=False).items()]
    raise UnusableError(f"{type(rows).__module__}.{type(rows).__qualname__} is no container of rows")


def _of_pandas(rows: Any, names: Sequence[str]) -> list[_Named]:
    if hasattr(rows, "columns"):
        # by place, since two columns may have the same name
        return [_Named(name, rows.iloc[:, place]) for place, name in enumerate(rows.columns)]
    if is_series(rows):
        own = rows.name if isinstance(rows.name, str) else _given_to(rows, names)
        return [_Named(names[0] if names else own, rows)]
    raise UnusableError(f"a pandas {type(rows).__qualname__} is no container of rows")


def _of_array(rows: NDArray[Any], names: Sequence[str]) -> list[_Named]:
    if rows.dtype.names:
        return [_Named(name, rows[name]) for name in rows.dtype.names]
    if rows.ndim == 0:
        raise UnusableError("an array without dimensions holds no rows")
    if rows.ndim == 1:
        return [_Named(_given_to(rows, names), rows)]
    if rows.ndim == 2:
        return [_Named(name, rows[:, place]) for place, name in enumerate(_given(names, rows.shape[1]))]
    return [_Named(_given(names or ["input"], 1)[0], rows)]


def _of_mapping(rows: Mapping[Any, Any]) -> list[_Named]:
    scalars = [name for name, values in rows.items() if not is_column(values)]
    if rows and len(scalars) == len(rows):
        raise UnusableError("a single row was given; put it into a list")
    if scalars:
        raise UnusableError(f"no arrays of rows: {', '.join(map(repr, scalars))}")
    return [_Named(name, values) for name, values in rows.items()]


def _of_list(given: Sequence[Any], names: Sequence[str]) -> list[_Named]:
    rows = [as_array(row) for row in given]
    kinds = sorted({type(row).__name__ for row in rows if not isinstance(row, Mapping)})
    if not rows:
        raise UnusableError("there are no rows")
    if not kinds:
        keys = dict.fromkeys(key for row in rows for key in row)
        return [_Named(key, [row.get(key) for row in rows], any(key not in row for row in rows)) for key in keys]
    if any(isinstance(row, Mapping) for row in rows):
        raise UnusableError(f"the rows are of several kinds: dict, {', '.join(kinds)}")
    nested = [row for row in rows if isinstance(row, list | tuple | np.ndarray)]
    if not nested:
        return [_Named(_given_to(rows, names), list(rows))]
    if len(nested) < len(rows) or len({len(row) for row in nested}) > 1:
        raise UnusableError("the rows are not equally long lists")
    if any(isinstance(value, list | tuple | np.ndarray) for value in nested[0]):
        return [_Named(_given(names or ["input"], 1)[0], list(rows))]
    return [_Named(name, [row[i] for row in nested]) for i, name in enumerate(_given(names, len(nested[0])))]


def _given_to(values: Any, names: Sequence[str]) -> str:
    """The name of one column: what was given, else `text` for texts and `x0` for all else."""
    return _given(names or ["text" if all(isinstance(value, str) for value in values) else "x0"], 1)[0]


def _given(names: Sequence[str], count: int) -> Sequence[str]:
    if names and len(names) != count:
        raise UnusableError(f"{len(names)} names were given for {count} columns")
    return names or [f"x{place}" for place in range(count)]


def is_column(values: Any) -> bool:
    """Whether this holds one value per row: a list, a Series or an array with a dimension, of whatever library."""
    if isinstance(values, list | tuple):
        return True
    return hasattr(values, "__array__") and len(getattr(values, "shape", (1,))) > 0 and not hasattr(values, "columns")


def _name_problems(names: Sequence[Any]) -> Iterable[str]:
    for place, name in enumerate(names):
        if not isinstance(name, str):
            yield f"column {place} has no text as its name but the {type(name).__name__} {name!r}"
        elif not name.strip():
            yield f"column {place} has no name"
    texts = [name for name in names if isinstance(name, str)]
    for name in dict.fromkeys(name for name in texts if texts.count(name) > 1):
        yield f"{texts.count(name)} columns are named {name!r}"


def _length_problems(columns: Sequence[_Named]) -> list[str]:
    if len({len(column.values) for column in columns}) <= 1:
        return []
    return ["the columns differ in length: " + ", ".join(f"{c.name!r} has {len(c.values)}" for c in columns)]
