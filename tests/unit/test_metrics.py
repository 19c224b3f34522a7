"""Counters of several gateways add up; the text is what Prometheus reads."""

from __future__ import annotations

import os
from bisect import bisect_left

import pytest
from prometheus_client.parser import text_string_to_metric_families

from salver import metrics
from salver.dispatch.call import Call
from salver.frames import Answers, Form, Reply
from salver.gateway import exposition
from salver.gateway.serving import OF_WORKERS, Tally


@pytest.fixture
def blocks() -> list[metrics.Block]:
    made = []
    for number in range(2):
        descriptor = os.memfd_create(f"block{number}")
        os.ftruncate(descriptor, metrics.BLOCK_BYTES)
        made.append(metrics.Block(descriptor))
        os.close(descriptor)
    return made


def test_counters_of_several_gateways_add_up(blocks: list[metrics.Block]) -> None:
    for amount, block in enumerate(blocks, start=1):
        row = block.row(3)
        block.cells[row + metrics.RELEASE_AT["salver_rows"]] += 10 * amount
        first = row + metrics.RELEASE_AT["salver_request_seconds"]
        block.cells[first + bisect_left(metrics.SECONDS, 0.003)] += 1
        block.cells[first + len(metrics.SECONDS) + 1] += 0.003
    text = exposition.render(blocks, {"churn@7": 3}).decode()
    samples = {
        (sample.name, sample.labels.get("le", "")): (sample.value, sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    value, labels = samples["salver_rows_total", ""]
    assert value == 30
    assert labels == {"model": "churn", "release": "churn@7"}
    assert samples["salver_request_seconds_bucket", "0.0025"][0] == 0
    assert samples["salver_request_seconds_bucket", "0.005"][0] == 2
    assert samples["salver_request_seconds_bucket", "+Inf"][0] == 2
    assert samples["salver_request_seconds_count", ""][0] == 2
    assert samples["salver_request_seconds_sum", ""][0] == pytest.approx(0.006)


def samples(block: metrics.Block) -> dict[tuple[str, str], float]:
    """Every sample of one release that is not zero, by name and its label's value."""
    text = exposition.render([block], {"churn@7": 0}).decode()
    return {
        (
            sample.name,
            next((sample.labels[key] for key in ("le", "phase", "reason", "limit") if key in sample.labels), ""),
        )
        if sample.name != "salver_phase_seconds_bucket"
        else (sample.name, sample.labels["phase"] + " " + sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.value
    }


def asked(*waits_ms: int, sent_ms: int, now_ms: int) -> tuple[list[Call | None], int]:
    """Requests that waited so long until all were sent, and the moment of their answers."""
    sent = 10**9
    calls: list[Call | None] = [
        Call(number, Form("native"), 0, b"{}", started=sent - wait * 1_000_000, sent=sent)
        for number, wait in enumerate(waits_ms)
    ]
    return calls, sent + (now_ms - sent_ms) * 1_000_000


def test_a_batch_counts_how_long_each_request_waited_and_once_what_each_phase_took(blocks: list[metrics.Block]) -> None:
    calls, now = asked(3, 3, 40, sent_ms=0, now_ms=20)
    answers = Answers(1, 1, 3, 70_000, 12_000_000, 400_000, ids=[0, 1, 2], bodies=[b"{}"] * 3)
    Tally(blocks[0], 0).batch(answers, calls, [], now)
    found = samples(blocks[0])
    assert found["salver_queue_seconds_bucket", "0.005"] == 2
    assert found["salver_queue_seconds_bucket", "0.05"] == found["salver_queue_seconds_count", ""] == 3
    assert found["salver_queue_seconds_sum", ""] == pytest.approx(0.046)
    assert found["salver_request_seconds_sum", ""] == pytest.approx(0.106)
    assert ("salver_phase_seconds_bucket", "decode 5e-05") not in found
    assert found["salver_phase_seconds_bucket", "decode 0.0001"] == 1
    assert found["salver_phase_seconds_bucket", "predict 0.025"] == 1
    assert found["salver_phase_seconds_sum", "encode"] == pytest.approx(0.0004)
    assert found["salver_phase_seconds_count", "predict"] == 1


def test_the_times_of_a_call_that_answered_several_batches_count_once(blocks: list[metrics.Block]) -> None:
    tally = Tally(blocks[0], 0)
    for rows in (2, 0):
        calls, now = asked(1, sent_ms=0, now_ms=2)
        tally.batch(Answers(1, 1, rows, 1000, 1000, 1000, ids=[0], bodies=[b"{}"]), calls, [], now)
    found = samples(blocks[0])
    assert found["salver_phase_seconds_count", "predict"] == found["salver_batch_rows_count", ""] == 1
    assert found["salver_queue_seconds_count", ""] == 2


@pytest.mark.parametrize("code", sorted(OF_WORKERS))
def test_a_limit_that_a_worker_keeps_is_counted(blocks: list[metrics.Block], code: str) -> None:
    calls, now = asked(1, sent_ms=0, now_ms=2)
    Tally(blocks[0], 0).batch(Answers(1, 1, replies=[Reply(0, 413, b"", code=code)]), [], calls, now)
    assert samples(blocks[0])["salver_limit_hits_total", OF_WORKERS[code]] == 1


@pytest.mark.parametrize("reason", metrics.REASONS)
def test_every_reason_of_a_refusal_has_its_own_count(blocks: list[metrics.Block], reason: str) -> None:
    Tally(blocks[0], 0).refused(reason)
    found = samples(blocks[0])
    assert found["salver_refused_total", reason] == 1
    assert (found.get(("salver_limit_hits_total", "queue")) == 1) is (reason == "overloaded")


def test_a_slot_begins_anew_for_another_release(blocks: list[metrics.Block]) -> None:
    block = blocks[0]
    block.cells[block.row(1)] = 5
    block.cells[block.row(2)] = 7
    block.clear(1)
    assert block.cells[block.row(1)] == 0
    assert block.cells[block.row(2)] == 7


def test_every_family_has_its_own_cells() -> None:
    for families, offsets, total in (
        (metrics.RELEASE, metrics.RELEASE_AT, metrics.RELEASE_CELLS),
        (metrics.GATEWAY, metrics.GATEWAY_AT, metrics.GATEWAY_CELLS),
    ):
        cells = [cell for f in families for cell in range(offsets[f.name], offsets[f.name] + f.cells)]
        assert cells == list(range(total))
