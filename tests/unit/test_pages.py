"""Pages that do not change are made once: many clients that read slowly hold one copy."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from types import SimpleNamespace

import msgspec
import pytest

from salver import metrics
from salver.gateway.front import Front
from salver.gateway.pages import ASSETS, Pages
from salver.gateway.paths import PUBLIC, Target
from salver.gateway.request import Request
from salver.gateway.serving import Serving
from salver.gateway.sweep import Sweep
from salver.gateway.table import Loaded, Worker
from salver.limits import Limits
from salver.signature import Column, Field, Signature, Tensor


class Place:
    """A front with nothing in service, and its pages."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        memory = os.memfd_create("pages")
        os.ftruncate(memory, metrics.BLOCK_BYTES)
        block = metrics.Block(memory)
        os.close(memory)
        self.serving = Serving(loop, Limits(), block, lambda *_: None)
        self.pages = Pages(self.serving, [block])
        self.front = Front(self.serving, Limits(), block, PUBLIC, self.pages.answer, Sweep(time.monotonic_ns))

    def ask(self, target: Target) -> bytes:
        return self.pages.answer(target, self.front, Request(Limits()))


@pytest.fixture
def place() -> Iterator[Place]:
    with asyncio.Runner() as runner:
        yield Place(runner.get_loop())


@pytest.mark.parametrize("target", [Target("openapi"), *(Target("asset", model=name) for name in ASSETS)])
def test_the_same_page_is_the_same_bytes_until_other_releases_are_live(place: Place, target: Target) -> None:
    first = place.ask(target)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert place.ask(target) is first
    place.serving.live = {}
    assert place.ask(target) is not first


def test_a_page_that_is_kept_is_not_that_of_another_question(place: Place) -> None:
    target = Target("openapi")
    whole = place.ask(target)
    assert place.ask(target._replace(head=True)).endswith(b"\r\n\r\n")
    assert place.ask(Target("asset", model="swagger-ui.css")) != whole
    place.front.closing = True
    assert b"connection: close" in place.ask(target)


def test_a_model_may_have_the_name_of_an_asset(place: Place) -> None:
    answer = place.ask(Target("model-ready", model="swagger-ui.css"))
    assert answer.startswith(b"HTTP/1.1 503")


def test_names_that_nobody_has_are_not_kept(place: Place) -> None:
    kept = place.ask(Target("openapi"))
    for number in range(200):
        assert place.ask(Target("asset", model=f"nothing-{number}")).startswith(b"HTTP/1.1 404")
    assert place.ask(Target("openapi")) is kept


@pytest.mark.parametrize(
    ("field", "workers", "limits", "concurrent", "payload"),
    [
        (Column("x", "float"), 2, Limits(), 2, 1),  # 10,000 rows of one number are no MB
        (Tensor("x", "float32", (-1, 64, 64)), 2, Limits(), 2, 50),
        (Tensor("x", "float32", (-1, 64, 64)), 1, Limits(), 1, 64),
        (Tensor("x", "float32", (-1, 64, 64)), 8, Limits(), 8, 12),
        (Tensor("x", "float32", (-1, 64, 64)), 0, Limits(body=3 << 20), 1, 3),
        (Tensor("x", "float32", (-1, 64)), 2, Limits(), 2, 4),
        (Tensor("x", "float32", (-1, 64)), 2, Limits(rows=100_000), 2, 48),
    ],
)
def test_batch_transform_is_told_what_this_server_takes(
    place: Place, field: Field, workers: int, limits: Limits, concurrent: int, payload: int
) -> None:
    signature = Signature((field,), (Column("y", "float"),))
    processes = tuple(Worker(f"m@1/{number}", "") for number in range(workers))
    loaded = Loaded("m", 1, "", "function", signature, 64, "none", 1, processes)
    place.serving.live = {"m": SimpleNamespace(loaded=loaded)}  # type: ignore[dict-item]
    place.pages = Pages(place.serving, [], limits=limits)
    told = msgspec.json.decode(place.ask(Target("execution-parameters")).partition(b"\r\n\r\n")[2])
    assert told == {"MaxConcurrentTransforms": concurrent, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": payload}
