"""Takes a Parquet file or what a PostgreSQL query returns into a table that can travel in a release."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salver.errors import error
from salver.lookup import Table

BATCH = 16_384
_CURSOR = "salver_snapshot"
_TEXTS = {25, 1042, 1043}
_DTYPES = {16: "?", 20: "i8", 21: "i2", 23: "i4", 700: "f4", 701: "f8", 17: "O", 1082: "M8[D]", 1114: "M8[us]"}
_LISTS = {1005: "i2", 1007: "i4", 1016: "i8", 1021: "f4", 1022: "f8"}
"""The types of PostgreSQL by number, as pg_type has them; the second are arrays."""

Paths = str | os.PathLike[str]


def from_parquet(path: Paths, source: Paths, *, key: str, columns: str | Sequence[str] = ()) -> int:
    """Write the table at `path` from a Parquet file, in its order; returns the number of rows.

    `key` is the column of the keys. `columns` are those to take, by default all others; the name of one column alone
    makes a table whose rows are that column's values. Lists of one length become arrays. Raises `bad-table` for a type
    that a table can't hold and for a missing value, except in floats, where it becomes NaN.
    """
    pyarrow, parquet = _arrow()
    try:
        file = parquet.ParquetFile(source)
    except FileNotFoundError:
        raise error("missing-file", f"{source} is no file") from None
    except (pyarrow.ArrowInvalid, OSError) as problem:
        raise error("bad-table", f"{source}: not a Parquet file: {problem}") from None
    with file:
        names = _chosen(list(file.schema_arrow.names), key, columns, str(source))
        batches = (
            {name: _arrow_cells(batch[name], name) for name in [key, *names]} for batch in _batches(file, names, key)
        )
        return Table.write_batches(path, _pairs(batches, key, columns))


def from_postgres(path: Paths, connection: Any, query: str, *, key: str, columns: str | Sequence[str] = ()) -> int:
    """Write the table at `path` from what a query of PostgreSQL returns, sorted by the key; returns the number of rows.

    `connection` is an open connection of psycopg 3. The rows come through a cursor on the server, a batch at a time, in
    one statement and so from one state of the database. `key`, `columns` and errors are as in `from_parquet`; numeric,
    json and types of one's own have to be cast in the query.
    """
    query = query.strip().rstrip(";")
    with connection.transaction():
        found = connection.execute(f"select * from ({query}) as asked limit 0").description
        kinds = {column.name: column.type_code for column in found}
        names = _chosen(list(kinds), key, columns, "the query")
        order = _quoted(key) + (' collate "C"' if kinds[key] in _TEXTS else "")
        wanted = ", ".join(map(_quoted, [key, *names]))
        with connection.cursor(name=_CURSOR, row_factory=lambda _: tuple) as cursor:
            cursor.execute(f"select {wanted} from ({query}) as asked order by {order}")
            batches = (
                {name: _postgres_cells(cells, name, kinds[name]) for name, cells in _transposed(rows, [key, *names])}
                for rows in _fetched(cursor)
            )
            return Table.write_batches(path, _pairs(batches, key, columns))


def _pairs(batches: Iterator[dict[str, Any]], key: str, columns: str | Sequence[str]) -> Iterator[tuple[Any, Any]]:
    for batch in batches:
        keys = batch.pop(key)
        yield keys, batch[columns] if isinstance(columns, str) else batch


def _chosen(names: list[str], key: str, columns: str | Sequence[str], where: str) -> list[str]:
    wanted = [columns] if isinstance(columns, str) else list(columns) or [name for name in names if name != key]
    missing = [name for name in [key, *wanted] if name not in names]
    if missing:
        raise error("bad-table", f"{where} has no column {missing[0]!r}", hint=f"it has {', '.join(names)}")
    return wanted


def _batches(file: Any, names: list[str], key: str) -> Iterator[Any]:
    """The batches of a file; one without rows where it has none, so that the types are known."""
    if file.metadata.num_rows == 0:
        yield file.read([key, *names])
    yield from file.iter_batches(BATCH, columns=[key, *names])


def _arrow_cells(column: Any, name: str) -> Any:
    pyarrow, _ = _arrow()
    types, kind = pyarrow.types, column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if column.null_count and not types.is_floating(kind):
        raise _missing(name)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _arrow_rectangle(column, name, kind)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return column.to_pylist()
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_boolean(kind) or types.is_integer(kind):
        return np.asarray(column)
    if types.is_floating(kind):
        return np.asarray(column)
    raise _unheld(name, str(kind), "write the file with another type")


def _arrow_rectangle(column: Any, name: str, kind: Any) -> NDArray[Any]:
    types, entries = _arrow()[0].types, column.flatten()
    if entries.null_count:
        raise _missing(name)
    fixed = types.is_fixed_size_list(kind)
    lengths = {kind.list_size} if fixed else set(np.unique(np.asarray(column.value_lengths())).tolist())
    flat = np.asarray(entries)
    return flat.reshape(len(column), _only(lengths, name))


def _postgres_cells(cells: list[Any], name: str, kind: int) -> Any:
    floating = kind in (700, 701)
    if not floating and any(cell is None for cell in cells):
        raise _missing(name)
    if kind in _TEXTS:
        return cells
    if kind == 17:
        return [bytes(cell) for cell in cells]
    if kind in _LISTS:
        return _rectangle(cells, name, _LISTS[kind])
    if kind in _DTYPES:
        return np.array([np.nan if cell is None else cell for cell in cells] if floating else cells, _DTYPES[kind])
    raise _unheld(name, f"of type number {kind}", f"cast it in the query: {name}::float8, {name}::text")


def _rectangle(cells: list[Any], name: str, dtype: Any) -> NDArray[Any]:
    if any(entry is None for cell in cells for entry in cell):
        raise _missing(name)
    length = _only({len(cell) for cell in cells}, name)
    return np.array(cells, dtype).reshape(len(cells), length)


def _only(lengths: set[int], name: str) -> int:
    if len(lengths) > 1:
        what = f"the lists in column {name!r} have {min(lengths)} to {max(lengths)} entries"
        raise error("bad-table", what, hint="a table holds lists of one length")
    return next(iter(lengths), 0)


def _transposed(rows: list[tuple[Any, ...]], names: list[str]) -> Iterator[tuple[str, list[Any]]]:
    return ((name, [row[place] for row in rows]) for place, name in enumerate(names))


def _fetched(cursor: Any) -> Iterator[list[tuple[Any, ...]]]:
    while rows := cursor.fetchmany(BATCH):
        yield rows


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise error("missing-extra", "Parquet needs pyarrow", hint="pip install 'salver[parquet]'") from None
    return pyarrow, pyarrow.parquet


def _missing(name: str) -> Exception:
    return error("bad-table", f"column {name!r} has missing values", hint="fill them or leave those rows out")


def _unheld(name: str, what: str, hint: str) -> Exception:
    return error("bad-table", f"column {name!r} is {what}, which a table can't hold", hint=hint)
