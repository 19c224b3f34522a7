"""Counters of several gateways add up; the text is what Prometheus reads."""

from __future__ import annotations

import os
from bisect import bisect_left

import pytest
from prometheus_client.parser import text_string_to_metric_families

from salver import metrics
from salver.gateway import exposition


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
