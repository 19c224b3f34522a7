"""What the metrics count beside requests: extra fields, unseen values, deaths of workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from salver.registry import Registry
from salver.rollout.move import Intent, promote
from salver.storage.folder import FolderStorage
from tests.integration.keeping import Keeping
from tests.integration.server import Server

PREDICT = "/models/oracle/predict"
PATIENCE = 30.0
ROW = {"key": 7, "act": ""}
FAR = {"key": 2**40, "act": ""}


def count(server: Server, name: str, release: str = "oracle@1") -> float:
    text = server.get("/metrics", port=server.admin_port).body.decode()
    line = f'{name}_total{{model="oracle",release="{release}"}} '
    assert line in text
    return float(text.partition(line)[2].partition("\n")[0])


def becomes(server: Server, name: str, value: float, release: str = "oracle@1") -> bool:
    """Whether a count reaches a value: it is counted after the answers."""
    ends = time.monotonic() + PATIENCE
    while (now := count(server, name, release)) < value and time.monotonic() < ends:
        time.sleep(0.02)
    return now == value


def tensors(**columns: list[Any]) -> dict[str, Any]:
    kinds = {int: "INT64", str: "BYTES", float: "FP64"}
    return {
        "inputs": [
            {"name": name, "shape": [len(data)], "datatype": kinds[type(data[0])], "data": data}
            for name, data in columns.items()
        ]
    }


@pytest.mark.parametrize(
    ("path", "body", "extra", "unseen"),
    [
        (PREDICT, ROW, 0, 0),
        (PREDICT, ROW | {"x": 1, "y": [2]}, 2, 0),
        (PREDICT, FAR, 0, 1),
        (PREDICT, [ROW, FAR | {"x": 1}, {"key": "bad"}, FAR], 1, 2),
        ("/v1/models/oracle:predict", {"instances": [ROW | {"x": 1}, FAR | {"x": 2}]}, 2, 1),
        ("/v1/models/oracle:predict", {"inputs": {"key": [1, 2**40], "act": ["", ""], "x": [1, 2]}}, 1, 1),
        ("/v2/models/oracle/infer", tensors(key=[1, -5, 2**40], act=["", "", ""], x=[0.5]), 1, 2),
    ],
)
def test_extra_fields_and_unseen_values_are_counted_also_when_no_further_request_comes(
    server: Server, path: str, body: Any, extra: int, unseen: int
) -> None:
    before = [count(server, name) for name in ("salver_extra_fields", "salver_unseen_values")]
    for times in (1, 2, 3):
        assert server.post(path, body).status == 200
        assert becomes(server, "salver_extra_fields", before[0] + times * extra)
        assert becomes(server, "salver_unseen_values", before[1] + times * unseen)


def test_the_death_of_a_worker_is_counted_once_and_what_is_replaced_adds_nothing(
    start: Callable[..., Server], registry: Path
) -> None:
    server = start()
    assert count(server, "salver_worker_deaths") == 0
    os.kill(server.workers("oracle@1")[0], signal.SIGKILL)
    assert becomes(server, "salver_worker_deaths", 1)
    promote(Registry(FolderStorage(registry)), "oracle", 2, Intent("tester", "2025-01-01T00:00:00Z", "", None))
    ends = time.monotonic() + PATIENCE
    while server.post(PREDICT, ROW).headers["x-salver-release"] != "oracle@2":
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert count(server, "salver_worker_deaths") == 1
    assert count(server, "salver_worker_deaths", "oracle@2") == 0


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    begun = Keeping(tmp_path)
    begun.follow()
    yield begun
    begun.end()


def test_the_keeper_counts_every_end_it_did_not_ask_for_and_tells_a_new_follower(keeping: Keeping) -> None:
    for name in ("churn@7/0", "churn@7/1", "churn@8/0"):
        keeping.start_worker("ready", name)
        keeping.event("status", name)
    keeping.order(op="stop", name="churn@7/1", grace=5)
    keeping.order(op="stop", name="churn@8/0", grace=5)
    for _ in range(2):
        assert keeping.event("exited")["restart_in"] is None
    keeping.start_worker("crash", "churn@9/0")
    for deaths in (1, 2):
        assert keeping.event("deaths")["deaths"] == deaths
    keeping.link.close()
    keeping.events.close()
    told = keeping.follow()["deaths"]
    assert set(told) == {"churn@9"}, "what was stopped did not die"
    assert told["churn@9"] >= 2
