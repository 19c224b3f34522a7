"""Which requests the model is working for, in every log record: its `trace_id`, several with commas, or empty.

A `traceparent` reads `00-<trace id>-<span id>-<flags>`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

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
