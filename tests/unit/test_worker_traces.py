"""What log records of a worker say of the requests that the model works for."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from salver.worker import traces

ONE, TWO = "1" * 32, "2" * 32


def parent(trace: str) -> str:
    return f"00-{trace}-b7ad6b7169203331-01"


@pytest.fixture
def record() -> Iterator[logging.LogRecord]:
    """Makes records as a worker does; those of the tests stay as they were."""
    before = logging.getLogRecordFactory()
    traces.mark_records()
    yield logging.getLogRecordFactory()("model", logging.WARNING, "", 0, "said", None, None)
    logging.setLogRecordFactory(before)
    traces.follow(())


@pytest.mark.parametrize(
    ("followed", "trace_id"),
    [
        ((), ""),
        (("", ""), ""),
        ((parent(ONE),), ONE),
        ((parent(ONE), "", parent(TWO), parent(ONE)), f"{ONE},{TWO}"),
    ],
)
def test_a_record_names_each_trace_of_its_batch_once(
    record: logging.LogRecord, followed: tuple[str, ...], trace_id: str
) -> None:
    traces.follow(followed)
    made = logging.getLogRecordFactory()("model", logging.WARNING, "", 0, "said", None, None)
    assert getattr(made, "trace_id", None) == trace_id
    text = traces.Format("%(levelname)s %(message)s").format(made)
    assert text == ("WARNING said" + (f" trace_id={trace_id}" if trace_id else ""))
    assert getattr(record, "trace_id", None) == ""
