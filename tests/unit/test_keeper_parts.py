"""The keeper's parts that need no process: lines, placeholders, the plan."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from salver import metrics
from salver.supervisor import plan
from salver.supervisor.children import Child, fill
from salver.supervisor.link import Lines


def test_lines_come_out_whole_however_they_are_cut() -> None:
    data = b'{"a": 1}\n{"b": "\xc3\xa9\xe2\x82\xac"}\n{"c": [1, 2]}\n'
    expected = [{"a": 1}, {"b": "é€"}, {"c": [1, 2]}]
    for size in range(1, len(data) + 1):
        lines = Lines()
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert [value for piece in pieces for value in lines.feed(piece)] == expected


@pytest.mark.parametrize("line", [b"", b"no json", b"[1]", b"12", b"null", b'{"a":', b"\xff\xfe", b"[" * 100_000])
def test_a_line_that_is_no_object_is_dropped_and_the_next_one_is_read(line: bytes) -> None:
    assert Lines().feed(line + b'\n{"state": "ready"}\n') == [{"state": "ready"}]


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    lines = Lines(longest=1000)
    for _ in range(100):
        lines.feed(b"x" * 100)
    assert len(lines._rest) <= 1000
    lines.feed(b"\n")
    assert lines.feed(b'{"a": 1}\n') == [{"a": 1}]


def test_only_a_whole_argument_can_be_a_placeholder() -> None:
    places = {"listen": "7"}
    assert fill("{listen}", places) == "7"
    assert fill("{unknown}", places) == "{unknown}"
    assert fill('{"listen": 1}', places) == '{"listen": 1}'
    assert fill("--x={listen}", places) == "--x={listen}"


def test_a_plan_survives_its_journey() -> None:
    wanted = plan.Plan(registry="/r é", cache="/c", models=("churn", "fraud"), port=0, limits='{"body": 5}')
    assert plan.unpack(plan.pack(wanted)) == wanted
    assert json.loads(plan.pack(wanted))["models"] == ["churn", "fraud"]


@pytest.mark.parametrize("wrong", [{"gateways": 0}, {"workers": 0}, {"poll": 0.0}, {"drain_delay": -1.0}])
def test_a_plan_that_can_not_be_followed_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        plan.Plan(registry="/r", cache="/c", **wrong)  # type: ignore[arg-type]


def test_the_shared_memory_of_a_gateway_holds_all_metrics() -> None:
    assert plan.Plan(registry="/r", cache="/c").metrics_bytes >= metrics.BLOCK_BYTES


def worker() -> Child:
    child = Child("worker", "churn@7/0", (sys.executable,), {})
    child.group = "churn@7"
    return child


def test_ready_is_counted_from_the_first_time_a_worker_says_so() -> None:
    child = worker()
    child.heard({"state": "ready", "load_ms": 5}, now=10.0)
    child.heard({"state": "alone"}, now=11.0)
    child.heard({"state": "ready"}, now=12.0)
    assert child.buried(20.0, -signal.SIGSEGV).ready_for == 10.0


def test_a_death_while_alone_is_known_as_such_until_the_worker_is_ready_again() -> None:
    child = worker()
    child.heard({"state": "ready"}, now=1.0)
    child.heard({"state": "alone"}, now=2.0)
    assert child.facts()["status"] == {"state": "ready"}, "a risk is no change of what it can do"
    assert child.buried(3.0, 9).alone
    child.heard({"state": "ready"}, now=4.0)
    assert not child.buried(5.0, 9).alone


def test_a_worker_that_ends_well_unasked_was_asked_by_somebody_else() -> None:
    child = worker()
    child.heard({"state": "ready"}, now=1.0)
    assert child.buried(10.0, 0).from_outside
    child.heard({"state": "ready"}, now=1.0)
    assert not child.buried(10.0, 1).from_outside
