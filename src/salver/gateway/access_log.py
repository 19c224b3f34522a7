"""The access log: one JSON line for each request, written by a thread, so that a slow disk holds up nothing.

Lines gather for a tenth of a second and go out in one write. While that write lasts more may gather, up to a limit;
what comes beyond it, or can't be written, is dropped and counted. A file that was moved away is opened anew.
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

from salver.gateway.seen import Seen

STDOUT = "-"
EVERY = 0.1
MOST_BYTES = 4 << 20
"""Bytes of lines that may wait for the one write that is under way."""
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


class AccessLog:
    """Writes lines to a file, or for `-` to the standard output; `dropped` hears how many were lost."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: str, dropped: Callable[[int], None]) -> None:
        self._loop = loop
        self._dropped = dropped
        self._lines: list[bytes] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._encoder = json.Encoder()
        self._batches: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._sink: _Stdout | _File = _Stdout() if target == STDOUT else _File(target)
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._thread.start()

    def tell(self, seen: Seen, now: int) -> None:
        """Take the line of a request that ended at `now`; it is dropped where too much waits already."""
        data = self._encoder.encode(_line(seen, now)) + b"\n"
        if self._bytes + len(data) > MOST_BYTES:
            self._dropped(1)
            return
        self._lines.append(data)
        self._bytes += len(data)
        if self._timer is None and not self._writing:
            self._timer = self._loop.call_later(EVERY, self._flush)

    def close(self) -> None:
        """Write what waits, if that goes quickly."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        self._batches.put(None)
        self._thread.join(LAST_WORDS)

    def _flush(self) -> None:
        self._timer = None
        if self._lines:
            self._writing = True
            self._batches.put(self._lines)
            self._lines, self._bytes = [], 0

    def _written(self, lost: int) -> None:
        """A write has ended: count what it lost, and let the next one begin."""
        self._writing = False
        if lost:
            self._dropped(lost)
        if self._lines and self._timer is None:
            self._timer = self._loop.call_later(EVERY, self._flush)

    def _write_all(self) -> None:
        """The thread: writes one batch after another."""
        while (lines := self._batches.get()) is not None:
            lost = self._sink.write(lines)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._written, lost)


class _File:
    """A file that is appended to; each batch is one write, so that several gateways can share it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._torn = b""  # the end of a line that a full disk cut off

    def write(self, lines: list[bytes]) -> int:
        """Append lines; returns how many could not be."""
        data = b"".join([self._torn, *lines])
        try:
            self._follow()
            written = data[: os.write(self._descriptor, data)]
        except OSError:
            return len(lines)
        if not written:
            return len(lines)
        whole = written.count(b"\n") - len(self._torn)
        self._torn = b"" if written.endswith(b"\n") else b"\n"
        return len(lines) - whole

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

    def write(self, lines: list[bytes]) -> int:
        """Write lines; returns how many could not be."""
        at = 0
        while at < len(lines):
            end, size = at, 0
            while end < len(lines) and (end == at or size + len(lines[end]) <= select.PIPE_BUF):
                size += len(lines[end])
                end += 1
            try:
                os.write(1, b"".join(lines[at:end]))
            except OSError:
                return len(lines) - at
            at = end
        return 0


def _line(seen: Seen, now: int) -> Line:
    return Line(
        moment(time.time_ns() - now + seen.began),
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


def moment(epoch_ns: int) -> str:
    """A time as RFC 3339 writes it, in milliseconds of UTC."""
    milliseconds = epoch_ns // 1_000_000
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=16)
def _second(epoch: int) -> str:
    return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%dT%H:%M:%S}"
