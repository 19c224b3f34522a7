"""The lines of plain predictions say the same as others, which are made in another way; what is said of lost ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from salver.access.principal import Principal
from salver.gateway.access_log import SAID_EVERY, Losses, Plain, line_of, lines_of
from salver.gateway.answers import Clock, Heads
from salver.gateway.request import Request
from salver.gateway.seen import Seen, path_of
from salver.limits import Limits

SECOND = 1_000_000_000
DIGITS = b"0000beef"
HEADS = [Heads(release, Clock()) for release in ("churn@7", "a.b-c_d@123456")]
ASKED = st.tuples(
    st.binary(min_size=1, max_size=40).map(lambda text: b"/" + text.replace(b"?", b"/") + b"?token=hunter2"),
    st.text(max_size=20),
    st.integers(0, 1 << 40),
    st.sampled_from(HEADS),
    st.integers(0, 3 * SECOND),
    st.integers(0, 400 * SECOND),
    st.sampled_from(("127.0.0.1", "fe80::1%eth0")),
)


def both(asked: tuple[Any, ...]) -> tuple[Plain, tuple[Seen, int]]:
    """A plain prediction, and the same as any other request."""
    url, key, received, heads, began, took, client = asked
    request = Request(Limits())
    request.method, request.url, request.received = b"POST", url, received
    request.principal = Principal(key, frozenset()) if key else None
    answer = heads.ok(began + took) + DIGITS + b"\r\n\r\n"
    seen = Seen("POST", path_of(url), client, began, key=key, bytes_in=received, rows=1)
    seen.release = "churn@7" if heads is HEADS[0] else "a.b-c_d@123456"
    seen.wrote(answer)
    now = began + took
    return (request, began, client.encode(), heads.ok(now), DIGITS, len(answer), now), (seen, now)


@given(st.lists(ASKED, min_size=1, max_size=5), st.integers(0, 2_000_000_000 * SECOND))
def test_a_plain_prediction_has_the_line_that_any_other_request_would_have(
    asked: list[tuple[Any, ...]], offset: int
) -> None:
    pairs = [both(one) for one in asked]
    said = lines_of([plain for plain, _ in pairs], offset).splitlines()
    assert len(said) == len(pairs)
    for line, (_, told) in zip(said, pairs, strict=True):
        found, wanted = msgspec.json.decode(line), msgspec.to_builtins(line_of(*told, offset))
        assert list(found) == list(wanted)
        assert abs(found.pop("seconds") - wanted.pop("seconds")) < 2e-6
        assert found == wanted


def test_lost_lines_are_said_at_once_and_then_once_a_minute_while_more_are() -> None:
    timers: list[tuple[float, Callable[[], None]]] = []
    said: list[str] = []
    losses = Losses("x.jsonl", said.append, lambda seconds, call: timers.append((seconds, call)))
    for lines in (1, 900, 300):
        losses.count(lines, "No space left on device")
    assert said == ["1 line of the access log could not be written to x.jsonl: No space left on device"]
    for _ in range(2):
        [(seconds, call)] = timers
        assert seconds == SAID_EVERY
        timers.clear()
        call()
    assert said[1:] == ["1,200 lines of the access log could not be written to x.jsonl: No space left on device"]
    assert timers == [], "a minute without loss has passed"
    losses.count(2, "only a part was taken")
    assert said[2:] == ["2 lines of the access log could not be written to x.jsonl: only a part was taken"]
