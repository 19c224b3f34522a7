"""Scores a file with a release that runs in its own processes; order and number of rows stay as they were."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from salver.batch.results import Results
from salver.batch.row import Record, Records
from salver.errors import SalverError, error
from salver.frames import Reply

CHUNK_ROWS = 1024
CHUNK_BYTES = 8 << 20


class Release(Protocol):
    """What answers: one release, served to this process alone."""

    async def ask(self, protocol: str, body: bytes, options: dict[str, str] | None = None) -> Reply:
        """Answer one request body."""
        ...


class Job(NamedTuple):
    """What to score and what to tell: rows in, rows out, each failure, and progress after each chunk.

    `in_flight` is how many chunks are with the release at once; it bounds memory.
    """

    records: Records
    results: Results
    on_failure: Callable[[int, SalverError], None]
    on_progress: Callable[[int, float], None]
    in_flight: int = 4


class Summary(NamedTuple):
    """How it went: rows read, rows without a prediction, seconds."""

    rows: int
    failed: int
    seconds: float


async def score(job: Job, release: Release) -> Summary:
    """Predict every row; a row that can't be predicted keeps its place, without outputs."""
    began = time.monotonic()
    waiting: deque[tuple[_Chunk, asyncio.Task[list[Any]]]] = deque()
    rows = failed = 0

    async def write_oldest() -> None:
        nonlocal rows, failed
        chunk, task = waiting.popleft()
        failed += _write(chunk, await task, job)
        rows += len(chunk.records)
        job.on_progress(rows, job.records.fraction())

    try:
        for chunk in _chunks(job.records.rows):
            waiting.append((chunk, asyncio.create_task(_ask(chunk, release))))
            if len(waiting) >= job.in_flight:
                await write_oldest()
        while waiting:
            await write_oldest()
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)
    job.results.finish()
    return Summary(rows, failed, time.monotonic() - began)


class _Chunk(NamedTuple):
    """Records in order, and the encoded rows of those without a problem."""

    records: list[Record]
    rows: list[bytes]


def _chunks(records: Iterator[Record]) -> Iterator[_Chunk]:
    encoder = msgspec.json.Encoder()
    chunk, size = _Chunk([], []), 0
    for record in records:
        encoded = b"" if record.problem else encoder.encode(record.row)
        if chunk.records and (len(chunk.records) >= CHUNK_ROWS or size + len(encoded) > CHUNK_BYTES):
            yield chunk
            chunk, size = _Chunk([], []), 0
        chunk.records.append(record)
        if not record.problem:
            chunk.rows.append(encoded)
            size += len(encoded)
    if chunk.records:
        yield chunk


async def _ask(chunk: _Chunk, release: Release) -> list[Any]:
    """The answers to a chunk's rows, in order; raises where the whole chunk has none."""
    if not chunk.rows:
        return []
    try:
        return await _answers(chunk.rows, release)
    except SalverError as problem:
        where = f"lines {chunk.records[0].line} to {chunk.records[-1].line}"
        raise error(problem.code, f"{where}: {problem.message}", hint=problem.hint, details=problem.details) from None


async def _answers(rows: list[bytes], release: Release) -> list[Any]:
    """The answers to these rows, in order; a row that kills workers is found by halving, and fails alone."""
    try:
        reply = await release.ask("native", b"[" + b",".join(rows) + b"]")
    except SalverError as problem:
        if problem.code != "poison-request":
            raise
        if len(rows) == 1:
            return [{"error": {"code": problem.code, "detail": problem.message}}]
        half = len(rows) // 2
        first, second = await asyncio.gather(_answers(rows[:half], release), _answers(rows[half:], release))
        return first + second
    if reply.status != 200:
        raise error(reply.code or "internal", _detail(reply))
    answers: list[Any] = msgspec.json.decode(reply.body, type=list[Any])
    if len(answers) != len(rows):
        raise error("row-count", f"{len(rows)} rows sent, {len(answers)} answers came")
    return answers


def _detail(reply: Reply) -> str:
    said = msgspec.json.decode(reply.body) if reply.body else {}
    return str(said.get("detail") or said.get("title") or f"status {reply.status}") if isinstance(said, dict) else ""


def _write(chunk: _Chunk, answers: list[Any], job: Job) -> int:
    """Write a chunk's rows; returns how many have no prediction."""
    failed = 0
    remaining = iter(answers)
    for record in chunk.records:
        problem = record.problem
        outputs = None
        if problem is None:
            answer = next(remaining)
            failure = answer.get("error") if len(answer) == 1 else None
            if isinstance(failure, dict):
                problem = error(failure["code"], failure["detail"])
            else:
                outputs = answer
        if problem is not None:
            failed += 1
            job.on_failure(record.line, problem)
        job.results.write(record, outputs)
    return failed
