"""Rows of a file, each with the line it came from: CSV, JSON lines, a JSON list, Parquet."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from salver.batch.cells import parse_cell
from salver.batch.parquet import read_parquet
from salver.batch.row import Record, Records
from salver.errors import error
from salver.signature import Column, Field, Signature

FileFormat = Literal["csv", "tsv", "jsonl", "json", "parquet"]
FORMATS: tuple[FileFormat, ...] = ("csv", "tsv", "jsonl", "json", "parquet")
_SUFFIXES: dict[str, FileFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_MAX_CELL = 64 << 20


def format_of(path: Path, given: str | None = None) -> FileFormat:
    """The format of a file: as given, else by its suffix."""
    known = {name: name for name in FORMATS}
    found = known.get(given) if given else _SUFFIXES.get(path.suffix.lower())  # type: ignore[call-overload]
    if found is None:
        what = f"unknown format {given!r}" if given else f"{path}: the suffix doesn't say what format this is"
        raise error("bad-request", what, hint=f"give --format, one of {', '.join(FORMATS)}")
    return found


def read_records(handle: IO[bytes], file_format: FileFormat, signature: Signature, *, where: str) -> Records:
    """Read the rows of an open file; `where` names it in errors."""
    if file_format in _DELIMITERS:
        return _read_csv(handle, _DELIMITERS[file_format], signature, where)
    if file_format == "parquet":
        columns, schema, values, fraction = read_parquet(handle, where=where)
        _check_columns(columns, signature, where)
        rows = (_record(number, each, signature) for number, each in enumerate(values, 1))
        return Records(columns, rows, fraction, schema)
    if file_format == "json":
        return Records([], _json_rows(handle, signature, where), _fraction_of(handle))
    return Records([], _jsonl_rows(handle, signature), _fraction_of(handle))


def _record(line: int, original: dict[str, Any], signature: Signature) -> Record:
    row = {field.name: original[field.name] for field in signature.inputs if field.name in original}
    return Record(line, original, row)


def _read_csv(handle: IO[bytes], delimiter: str, signature: Signature, where: str) -> Records:
    csv.field_size_limit(min(_MAX_CELL, sys.maxsize))
    reader = csv.reader(_lines(handle, where), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as problem:
        raise error("bad-request", f"{where}: line 1: {problem}") from None
    _check_columns(header, signature, where)
    return Records(header, _csv_rows(reader, header, signature, where), _fraction_of(handle))


def _lines(handle: IO[bytes], where: str) -> Iterator[str]:
    for number, line in enumerate(handle, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as problem:
            raise error(
                "bad-request", f"{where}: line {number} is not UTF-8 ({problem.reason})", hint="convert it to UTF-8"
            ) from None


def _csv_rows(reader: Any, header: list[str], signature: Signature, where: str) -> Iterator[Record]:
    fields = {field.name: field for field in signature.inputs}
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as problem:
            raise error("bad-request", f"{where}: line {line}: {problem}") from None
        if cells is None:
            return
        if not cells:
            continue
        original: dict[str, Any] = dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=False))
        if len(cells) != len(header):
            wrong = error("invalid-row", f"{len(cells)} cells, the header has {len(header)}")
            yield Record(line, original, {}, wrong)
        else:
            yield _typed(line, original, fields)


def _typed(line: int, original: dict[str, str], fields: dict[str, Field]) -> Record:
    row: dict[str, Any] = {}
    problems: list[str] = []
    for name, field in fields.items():
        if name not in original:
            continue
        try:
            row[name] = parse_cell(original[name], field)
        except ValueError as problem:
            problems.append(str(problem))
    if problems:
        return Record(line, dict(original), row, error("invalid-row", "; ".join(problems)))
    return Record(line, dict(original), row)


def _jsonl_rows(handle: IO[bytes], signature: Signature) -> Iterator[Record]:
    for number, line in enumerate(handle, 1):
        if line.strip():
            yield _json_record(number, line, signature)


def _json_rows(handle: IO[bytes], signature: Signature, where: str) -> Iterator[Record]:
    content = handle.read()
    try:
        if content.lstrip()[:1] == b"{":  # a row on its own, as one sends it to a server
            content = b"[%b]" % content
        rows = msgspec.json.decode(content, type=list[msgspec.Raw])
    except msgspec.DecodeError as problem:
        raise error("bad-json", f"{where}: not a list of rows: {problem}", hint="one object a line is jsonl") from None
    for number, row in enumerate(rows, 1):
        yield _json_record(number, bytes(row), signature)


def _json_record(number: int, data: bytes, signature: Signature) -> Record:
    try:
        return _record(number, msgspec.json.decode(data, type=dict[str, Any]), signature)
    except (msgspec.DecodeError, RecursionError) as problem:
        return Record(number, {}, {}, error("bad-json", f"not a JSON object: {problem}"))


def _check_columns(columns: list[str], signature: Signature, where: str) -> None:
    """Refuse a file whose columns can't be the signature's, with everything that is wrong."""
    problems = [f"column {name!r} appears twice" for name in sorted({c for c in columns if columns.count(c) > 1})]
    for field in signature.inputs:
        if field.name not in columns and not (isinstance(field, Column) and field.optional):
            problems.append(f"column {field.name!r} is missing")
    problems += [
        f"column {field.name!r} would be overwritten by the output of that name"
        for field in signature.outputs
        if field.name in columns
    ]
    if problems:
        hint = f"the file has {', '.join(columns)}" if columns else "the file is empty"
        raise error("bad-request", f"{where} does not fit the signature", hint=hint, details=tuple(problems))


def _fraction_of(handle: IO[bytes]) -> Callable[[], float]:
    """How much of a regular file was read; 0 where that can't be known."""
    try:
        here = handle.tell()
        size = handle.seek(0, 2)
        handle.seek(here)
    except OSError:
        return lambda: 0.0
    return lambda: handle.tell() / size if size else 1.0
