"""Parquet files, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from types import ModuleType
from typing import IO, Any

from salver.batch.row import Record, whole
from salver.errors import error

BATCH = 4096


def read_parquet(
    handle: IO[bytes], *, where: str
) -> tuple[list[str], Any, Iterator[dict[str, Any]], Callable[[], float]]:
    """The columns, the Arrow schema, the rows, and how much of them was read (0 to 1)."""
    pyarrow, parquet = _load()
    try:
        file = parquet.ParquetFile(handle)
    except (pyarrow.ArrowInvalid, OSError) as problem:
        raise error("bad-request", f"{where}: not a Parquet file: {problem}") from None
    total = file.metadata.num_rows
    seen = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal seen
        for batch in file.iter_batches(BATCH):
            for row in batch.to_pylist():
                seen += 1
                yield {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}

    return list(file.schema_arrow.names), file.schema_arrow, rows(), lambda: seen / total if total else 1.0


class ParquetResults:
    """Writes rows with their outputs as Parquet; types the input's schema doesn't give are those of the first batch."""

    def __init__(self, handle: IO[bytes], schema: Any, outputs: tuple[str, ...]) -> None:
        self._pyarrow, self._parquet = _load()
        self._handle = handle
        self._given = list(schema or [])
        self._outputs = outputs
        self._writer: Any = None
        self._schema: Any = None
        self._rows: list[dict[str, Any]] = []

    def write(self, record: Record, outputs: dict[str, Any] | None) -> None:
        """Append one row."""
        self._rows.append(whole(record, outputs, self._outputs))
        if len(self._rows) >= BATCH:
            self._flush()

    def finish(self) -> None:
        """Write what is left and the file's footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if self._writer is None:
            self._open(rows)
        further = {name for row in rows for name in row} - set(self._schema.names)
        if further:
            hint = "write jsonl instead"
            raise error("bad-request", f"later rows have {', '.join(sorted(further))}, the first have not", hint=hint)
        try:
            self._writer.write_table(self._pyarrow.Table.from_pylist(rows, schema=self._schema))
        except (self._pyarrow.ArrowInvalid, self._pyarrow.ArrowTypeError) as problem:
            raise error(
                "bad-request", f"a row has another type than the first {BATCH}: {problem}", hint="write jsonl instead"
            ) from None

    def _open(self, rows: list[dict[str, Any]]) -> None:
        known = {field.name for field in self._given}
        names = list(dict.fromkeys(name for row in rows for name in row)) or list(self._outputs)
        columns = {name: [row.get(name) for row in rows] for name in names if name not in known}
        fields = [self._writable(field) for field in [*self._given, *self._pyarrow.table(columns).schema]]
        self._schema = self._pyarrow.schema(fields)
        self._writer = self._parquet.ParquetWriter(self._handle, self._schema)

    def _writable(self, field: Any) -> Any:
        """Dates travel as text; a column that was empty so far may hold numbers later."""
        types = self._pyarrow.types
        if types.is_temporal(field.type):
            return field.with_type(self._pyarrow.string())
        return field.with_type(self._pyarrow.float64()) if types.is_null(field.type) else field


def _load() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise error("missing-extra", "Parquet needs pyarrow", hint="pip install 'salver[parquet]'") from None
    return pyarrow, pyarrow.parquet
