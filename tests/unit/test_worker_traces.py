"""What log records of a worker say of the requests that the model works for."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from salver.worker import traces

ONE, TWO = "1" * 32, "2" * 32


def parent(trace: str) -> str:
    return f"00-{trace}-b7ad6b7169203331-01"


def test_what_is_printed_becomes_an_object_for_each_line_that_has_ended() -> None:
    out = io.StringIO()
    prints = traces.JsonPrints("churn@7/0", out)
    traces.follow([parent(ONE)])
    print("one\ntwo", end=" ", file=prints, flush=True)
    print("three é", file=prints)
    print("four", end="", file=prints)
    traces.follow(())
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line.pop("text") for line in lines] == ["one", "two three é"]
    assert lines == [{"event": "print", "worker": "churn@7/0", "trace_id": ONE}] * 2


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
