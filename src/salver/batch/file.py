"""Scores one file into another: the output appears whole or not at all, with an errors file beside it where needed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from salver.batch.records import FileFormat, format_of, read_records
from salver.batch.results import open_results, replaced
from salver.batch.score import Job, Release, Summary, score
from salver.errors import SalverError, error
from salver.signature import Signature

STANDARD = "-"


class Task(NamedTuple):
    """Which file to score and where to: paths or `-`, formats or '' for what the suffix says (else the input's)."""

    source: str
    target: str = STANDARD
    source_format: str = ""
    target_format: str = ""


def formats(task: Task) -> tuple[FileFormat, FileFormat]:
    """The formats to read and to write; raises where neither a suffix nor an option says them."""
    source = format_of(Path(task.source), task.source_format or None)
    if task.target_format or task.target == STANDARD:
        return source, format_of(Path(task.target), task.target_format or source)
    return source, format_of(Path(task.target))


def errors_path(task: Task) -> Path:
    """Where the rows without a prediction are listed, one JSON object a line."""
    return Path(f"{task.target}.errors.jsonl")


async def score_file(
    task: Task,
    signature: Signature,
    release: Release,
    *,
    on_failure: Callable[[int, SalverError], None],
    on_progress: Callable[[int, float], None],
) -> Summary:
    """Score a file; nothing is left at the target unless every row has been written."""
    source_format, target_format = formats(task)
    to_file = task.target != STANDARD
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_opened(task.source))
        records = read_records(source, source_format, signature, where=task.source)
        sink = stack.enter_context(replaced(Path(task.target))) if to_file else sys.stdout.buffer
        failures = stack.enter_context(_Failures(errors_path(task)).open()) if to_file else None

        def failed(line: int, problem: SalverError) -> None:
            if failures:
                failures.add(line, problem)
            on_failure(line, problem)

        outputs = tuple(field.name for field in signature.outputs)
        results = open_results(sink, target_format, records, outputs)
        summary = await score(Job(records, results, failed, on_progress), release)
        sink.flush()
    return summary


class _Failures:
    """The errors file, made when the first row fails; one that an earlier run left is removed when none does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = contextlib.ExitStack()
        self._handle: IO[bytes] | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[_Failures]:
        with self._stack:
            yield self
        if self._handle is None:
            self._path.unlink(missing_ok=True)

    def add(self, line: int, problem: SalverError) -> None:
        if self._handle is None:
            self._handle = self._stack.enter_context(replaced(self._path))
        said = {"line": line, "code": problem.code, "detail": problem.message}
        self._handle.write(msgspec.json.encode(said) + b"\n")


@contextlib.contextmanager
def _opened(source: str) -> Iterator[IO[bytes]]:
    if source == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        handle = open(source, "rb")  # noqa: SIM115 closed below; only opening may fail like this
    except OSError as problem:
        code = "missing-file" if isinstance(problem, FileNotFoundError) else "bad-request"
        raise error(code, f"{source} can't be read: {problem.strerror}") from None
    with handle:
        yield handle
