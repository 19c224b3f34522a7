"""The access log: one JSON line for each request, written by a thread, so that a slow disk holds up nothing.

Lines gather for a tenth of a second and go out in one write. While that write lasts more may gather, up to a limit;
what comes beyond it, or can't be written, is dropped, counted and said. A file that was moved away is opened anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

from msgspec import Struct, json

from salver.gateway.request import Request
from salver.gateway.seen import ID, RELEASE, Seen, path_of

STDOUT = "-"
EVERY = 0.1
MOST_BYTES = 4 << 20
"""Bytes of lines that may wait for the one write that is under way."""
SAID_EVERY = 60.0
"""Seconds between two lines in the server's own log that say what was lost."""
LAST_WORDS = 2.0
"""Seconds that the last lines get at the end of the process."""


class Line(Struct, frozen=True):
    """One request and its answer, without a body, a credential or the values of a query.

    `time` is when the request had come whole, `seconds` what it took from there to its answer, `bytes_in` the body's
    length, `bytes_out` that of the whole answer. A status of 0 means that the caller left before one was known. `rows`
    is 0 and the ids are empty where there was no prediction.
    """

    time: str
    method: str
    path: str
    status: int
    bytes_in: int
    bytes_out: int
    rows: int
    seconds: float
    release: str
    prediction_id: str
    request_id: str
    key: str
    trace_id: str
    client: str
    code: str


Plain = tuple[Request, int, bytes, bytes, bytes, int, int]
"""A plain prediction: what was asked, when that was whole, by whom, the head of its answer, which ends within the
prediction id, the last 8 digits of that, the bytes of the answer, and when it went out."""


class AccessLog:
    """Writes lines to a file, or for `-` to the standard output; `dropped` hears how many were lost, and why."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: str, dropped: Callable[[int, str], None]) -> None:
        self._loop = loop
        self._dropped = dropped
        self._lines = bytearray()
        self._gathering = False  # a timer runs, or a write
        self._timer: asyncio.TimerHandle | None = None
        self._offset = 0  # nanoseconds between the monotonic clock and that of the world
        self._expected = False  # lines are about to be made
        self._ended: list[tuple[Seen, int]] = []
        self._plain: list[Plain] = []
        self._batches: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
        self._sink: _Stdout | _File = _Stdout() if target == STDOUT else _File(target)
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._thread.start()

    def tell(self, seen: Seen, now: int) -> None:
        """Take the line of a request that ended at `now`; it is dropped where too much waits already."""
        if not self._expected:
            self._expect()
        self._ended.append((seen, now))

    def predicted(self, plain: Plain) -> None:
        """Take the line of a plain prediction."""
        if not self._expected:
            self._expect()
        self._plain.append(plain)

    def _expect(self) -> None:
        """Make the lines once all that is ready now has its answer: one by one they would take twice the time."""
        self._expected = True
        self._loop.call_soon(self._make)

    def _make(self) -> None:
        """Make the lines of what was told."""
        self._expected = False
        if not self._gathering and (self._ended or self._plain):
            self._gather()
        if self._ended:
            ended, self._ended = self._ended, []
            self._take(_ENCODER.encode_lines([line_of(*told, self._offset) for told in ended]), len(ended))
        if self._plain:
            plain, self._plain = self._plain, []
            self._take(lines_of(plain, self._offset), len(plain))

    def close(self) -> None:
        """Write what waits, if that goes quickly."""
        self._make()
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        self._batches.put(None)
        self._thread.join(LAST_WORDS)

    def _take(self, lines: bytes, count: int) -> None:
        if len(self._lines) + len(lines) <= MOST_BYTES:
            self._lines += lines
        else:
            self._dropped(count, "more come than can be written")

    def _gather(self) -> None:
        """Let lines gather from now on, and look how late it is in the world."""
        self._gathering = True
        self._offset = time.time_ns() - time.monotonic_ns()
        self._timer = self._loop.call_later(EVERY, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._lines:
            self._batches.put(self._lines)
            self._lines = bytearray()

    def _written(self, lost: int, why: str) -> None:
        """A write has ended: count what it lost, and let the next one begin."""
        self._gathering = False
        if lost:
            self._dropped(lost, why)
        if self._lines:
            self._gather()

    def _write_all(self) -> None:
        """The thread: writes one batch after another."""
        while (lines := self._batches.get()) is not None:
            lost, why = self._sink.write(lines)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._written, lost, why)


class Losses:
    """Says that lines are lost: at once, and then once a minute as long as more are; `later` calls after seconds."""

    def __init__(
        self, target: str, say: Callable[[str], None], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._later = later
        self._target = "the standard output" if target == STDOUT else target
        self._say = say
        self._lines = 0
        self._why = ""
        self._waits = False

    def count(self, lines: int, why: str) -> None:
        """So many more were lost."""
        self._lines += lines
        self._why = why
        if not self._waits:
            self._tell()

    def _tell(self) -> None:
        self._waits = bool(self._lines)
        if self._lines:
            what = "1 line" if self._lines == 1 else f"{self._lines:,} lines"
            self._say(f"{what} of the access log could not be written to {self._target}: {self._why}")
            self._lines = 0
            self._later(SAID_EVERY, self._tell)


class _File:
    """A file that is appended to; each batch is one write, so that several gateways can share it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._torn = b""  # the end of a line that a full disk cut off

    def write(self, lines: bytearray) -> tuple[int, str]:
        """Append lines; returns how many could not be, and why."""
        data = self._torn + lines
        try:
            self._follow()
            written = os.write(self._descriptor, data)
        except OSError as problem:
            return lines.count(b"\n"), str(problem.strerror)
        if written:
            self._torn = b"" if data.endswith(b"\n", 0, written) else b"\n"
        return data.count(b"\n", written), "only a part was taken"

    def _follow(self) -> None:
        """Open the file that has the name now."""
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(self._path)
            if self._descriptor >= 0 and os.path.samestat(there, os.fstat(self._descriptor)):
                return
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = opened


class _Stdout:
    """The standard output; a pipe takes so many bytes at once that lines of several gateways don't mix."""

    def write(self, lines: bytearray) -> tuple[int, str]:
        """Write lines; returns how many could not be, and why."""
        at = 0
        while at < len(lines):
            end = lines.rfind(b"\n", at, at + select.PIPE_BUF) + 1 or lines.index(b"\n", at) + 1
            try:
                os.write(1, lines[at:end])
            except OSError as problem:
                return lines.count(b"\n", at), str(problem.strerror)
            at = end
        return 0, ""


_ENCODER = json.Encoder()


def line_of(seen: Seen, now: int, offset: int) -> Line:
    """The line of a request that ended at `now`; the clock of the world is `offset` nanoseconds ahead."""
    return Line(
        moment((seen.began + offset) // 1_000_000),
        seen.method,
        seen.path,
        seen.status,
        seen.bytes_in,
        seen.bytes_out,
        seen.rows,
        round((now - seen.began) * 1e-9, 6),
        seen.release,
        seen.prediction_id,
        seen.request_id,
        seen.key,
        seen.span.trace_id if seen.span is not None else "",
        seen.client,
        seen.code,
    )


def lines_of(plain: list[Plain], offset: int) -> bytes:
    """The same of plain predictions, which differ in little."""
    patterns: list[bytes] = []
    values: list[object] = []
    last = at = names = b""
    millisecond = -1
    for request, began, client, head, digits, size, now in plain:
        if (began + offset) // 1_000_000 != millisecond:
            millisecond = (began + offset) // 1_000_000
            at = moment(millisecond).encode()
        if head is not last:
            last, names = head, _names_in(head)
        if not request.pattern:
            request.pattern = _pattern_of(request)
        patterns.append(request.pattern)
        values += (at, size, (now - began) * 1e-9, names, digits, client)
    return b"".join(patterns) % tuple(values)


def _pattern_of(request: Request) -> bytes:
    """The line of a plain prediction but its time, bytes_out, seconds, what `_names_in` says, its digits and client."""

    def text(value: str) -> bytes:
        return _ENCODER.encode(value).replace(b"%", b"%%")

    parts = (
        b'{"time":"%b"',
        b'"method":' + text(request.method.decode("latin-1")),
        b'"path":' + text(path_of(request.url)),
        b'"status":200',
        b'"bytes_in":%d' % request.received,
        b'"bytes_out":%d',
        b'"rows":1',
        b'"seconds":%.6f',
        b'"release":%b%b"',
        b'"request_id":""',
        b'"key":' + text("" if request.principal is None else request.principal.name),
        b'"trace_id":""',
        b'"client":"%b"',
        b'"code":""}\n',
    )
    return b",".join(parts)


def _names_in(head: bytes) -> bytes:
    """What a line says of the release and the prediction id, as far as the head of an answer has that."""
    release, _, prediction = head.rpartition(RELEASE)[2].partition(ID)
    return b'"%b","prediction_id":"%b' % (release, prediction)


def moment(milliseconds: int) -> str:
    """A time since the epoch as RFC 3339 writes it, in milliseconds of UTC."""
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=16)
def _second(epoch: int) -> str:
    return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%dT%H:%M:%S}"
