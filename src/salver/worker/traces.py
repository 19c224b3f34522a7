"""Which requests the model is working for, in all that it logs: its `trace_id`, several with commas, or empty.

A `traceparent` reads `00-<trace id>-<span id>-<flags>`.
"""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterable
from typing import Any, BinaryIO, TextIO

_current = ""


def follow(traceparents: Iterable[str]) -> None:
    """From here on the model works for these requests; those without a traceparent count for nothing."""
    global _current
    _current = ",".join(dict.fromkeys(parent.split("-")[1] for parent in traceparents if parent))


def mark_records() -> None:
    """Give every log record of this process a `trace_id`."""
    make = logging.getLogRecordFactory()

    def marked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.trace_id = _current
        return record

    logging.setLogRecordFactory(marked)


class Format(logging.Formatter):
    """A log line of a worker, with its trace where it has one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback where there is one."""
        text = super().format(record)
        first, end, rest = text.partition("\n")
        trace = getattr(record, "trace_id", "")
        return f"{first} trace_id={trace}{end}{rest}" if trace else text


class JsonFormat(logging.Formatter):
    """The same as one JSON object, which names the worker too."""

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """The object in one line; its `text` has the traceback where there is one."""
        said = {"event": "log", "text": super().format(record), "worker": self._worker, "logger": record.name}
        return json.dumps({**said, "level": record.levelname, "trace_id": getattr(record, "trace_id", "")})


class JsonPrints(io.TextIOBase):
    """What the model's code prints, as one JSON object for each line; what it has not ended yet waits."""

    encoding = "utf-8"

    def __init__(self, worker: str, out: TextIO) -> None:
        self._worker = worker
        self._out = out
        self._begun = ""
        self._lock = threading.Lock()

    @property
    def buffer(self) -> BinaryIO:
        """Where bytes go, as they are."""
        return self._out.buffer

    def fileno(self) -> int:
        """What child processes may inherit."""
        return self._out.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str, /) -> int:
        """Take a text, and write the lines that it ends."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            said = {"event": "print", "text": line, "worker": self._worker, "trace_id": _current}
            self._out.write(json.dumps(said) + "\n")
        return len(text)
