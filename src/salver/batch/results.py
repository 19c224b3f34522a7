"""Writes rows with their predictions: CSV and TSV with further columns, JSON lines, a JSON list, Parquet."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from salver.batch.cells import write_cell
from salver.batch.parquet import ParquetResults
from salver.batch.records import FileFormat
from salver.batch.row import Record, Records, whole
from salver.errors import error


class Results(Protocol):
    """Takes rows in order; `finish` completes the file."""

    def write(self, record: Record, outputs: dict[str, Any] | None) -> None:
        """Append one row with its outputs, or without where it failed."""
        ...

    def finish(self) -> None:
        """Write what is left."""
        ...


def open_results(handle: IO[bytes], file_format: FileFormat, records: Records, outputs: tuple[str, ...]) -> Results:
    """The writer of a format for these outputs, on an open file."""
    if file_format in ("csv", "tsv"):
        return _CsvResults(handle, "," if file_format == "csv" else "\t", records.columns, outputs)
    if file_format == "parquet":
        return ParquetResults(handle, records.schema, outputs)
    return _JsonResults(handle, outputs, as_list=file_format == "json")


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when the block ends well, and leaves no trace when it doesn't."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as problem:
        raise error("storage-failed", f"{path} can't be written: {problem.strerror}") from None
    try:
        with open(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


class _CsvResults:
    def __init__(self, handle: IO[bytes], delimiter: str, columns: list[str], outputs: tuple[str, ...]) -> None:
        self._text = io.TextIOWrapper(handle, "utf-8", newline="", write_through=False)
        self._writer = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        self._columns = columns
        self._outputs = outputs
        self._begun = bool(columns)
        if columns:
            self._writer.writerow([*columns, *outputs])

    def write(self, record: Record, outputs: dict[str, Any] | None) -> None:
        if not self._begun:
            self._columns, self._begun = list(record.original), True
            self._writer.writerow([*self._columns, *self._outputs])
        further = record.original.keys() - set(self._columns)
        if further:
            raise error(
                "bad-request",
                f"line {record.line} has {', '.join(sorted(further))}, which the first row has not",
                hint="CSV has no place for it, write jsonl instead",
            )
        cells = [write_cell(record.original.get(name)) for name in self._columns]
        self._writer.writerow([*cells, *(write_cell((outputs or {}).get(name)) for name in self._outputs)])

    def finish(self) -> None:
        self._text.flush()
        self._text.detach()


class _JsonResults:
    def __init__(self, handle: IO[bytes], outputs: tuple[str, ...], *, as_list: bool) -> None:
        self._handle = handle
        self._outputs = outputs
        self._encoder = msgspec.json.Encoder()
        self._between = b",\n" if as_list else b""
        self._after = b"" if as_list else b"\n"
        self._last = b"\n]\n" if as_list else b""
        self._first = b"[\n" if as_list else b""

    def write(self, record: Record, outputs: dict[str, Any] | None) -> None:
        row = self._encoder.encode(whole(record, outputs, self._outputs))
        self._handle.write(self._first + row + self._after)
        self._first = self._between

    def finish(self) -> None:
        opening = self._first if self._first == b"[\n" else b""
        self._handle.write(opening + self._last)
        self._handle.flush()
