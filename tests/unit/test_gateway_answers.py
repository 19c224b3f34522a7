"""Heads, ids and error bodies."""

from __future__ import annotations

import json
import time
import uuid

from salver.errors import error
from salver.gateway.answers import Clock, Heads, error_body, page


def test_prediction_ids_are_version_7_uuids_that_sort_by_time_and_never_repeat() -> None:
    clock = Clock()
    start = time.monotonic_ns()
    ids = [(clock.prefix(start + step * 100_000) + b"%08x" % step).decode() for step in range(5000)]
    assert len(set(ids)) == 5000
    parsed = [uuid.UUID(one) for one in ids]
    assert all(one.version == 7 and one.variant == uuid.RFC_4122 for one in parsed)
    assert [one[:13] for one in ids] == sorted(one[:13] for one in ids)
    stamp = parsed[0].int >> 80
    assert abs(stamp - time.time_ns() // 1_000_000) < 60_000


def test_the_head_of_an_answer_names_its_release() -> None:
    heads = Heads("churn@7", Clock())
    head = heads.ok(time.monotonic_ns())
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-salver-release: churn@7\r\n" in head
    assert b"date: " in head


def test_an_error_has_the_shape_of_its_protocol() -> None:
    problem = error("no-such-model", "no model named 'x'", hint="this server has churn")
    body, kind = error_body(problem, "native")
    assert kind == "application/problem+json"
    assert json.loads(body)["code"] == "no-such-model"
    for protocol in ("v1", "v2"):
        body, kind = error_body(problem, protocol)
        assert kind == "application/json"
        assert json.loads(body) == {"error": "no model named 'x' (this server has churn)"}


def test_a_refusal_for_lack_of_capacity_says_when_to_try_again() -> None:
    assert b"retry-after: " in page(503, b"", "application/json")
    assert b"retry-after: " not in page(404, b"", "application/json")


def test_an_answer_to_head_has_the_length_but_no_body() -> None:
    answer = page(200, b"12345", "text/plain", head=True)
    assert b"content-length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")
