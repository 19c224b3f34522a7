"""Frames: any cut of the stream gives the same messages; nonsense is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.errors import SalverError
from salver.frames import HEAD, MAX_PAYLOAD, Answers, Batch, Cancel, Counted, Form, Hello, Reader, Reply, Started, pack

MESSAGES = [
    Hello("churn@7", "sha256:00", 1, 64, 12.5, True),
    Batch(3, Form("native"), [1, 2], [99, 0], [b'{"a":1}', b""]),
    Batch(3, Form("v2", {"strict": "true"}), [4], [99], [b"x" * 100_000], True, ["00-ab-cd-01"]),
    Cancel(3, [1, 2]),
    Started(3, 4),
    Answers(3, 17, 2, 1, 2, 3, [Reply(1, 200, b"{}"), Reply(2, 422, b"{}", 1, 1, "invalid-row", "text/plain", 1)]),
    Counted(3, 64, 2),
    Answers(3, 18, 3, 1, 2, 3, [], [7, 8, 9], [b"{}", b"{}", b"{}"], 0),
]
STREAM = b"".join(pack(message) for message in MESSAGES)


@given(st.lists(st.integers(1, 5000), min_size=1))
def test_any_cut_of_the_stream_gives_the_same_messages(sizes: list[int]) -> None:
    reader, got, at = Reader(), [], 0
    while at < len(STREAM):
        size = sizes[at % len(sizes)]
        got += reader.feed(STREAM[at : at + size])
        at += size
    assert got == MESSAGES


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_read_but_never_anything_else(at: int, change: int) -> None:
    bent = bytearray(STREAM)
    bent[at] ^= change
    reader = Reader()
    with contextlib.suppress(SalverError):
        reader.feed(bytes(bent))


def test_a_frame_over_the_limit_is_refused_before_it_arrives() -> None:
    with pytest.raises(SalverError, match="not a frame"):
        Reader().feed(HEAD.pack(MAX_PAYLOAD + 1, 1, 2))


def test_a_frame_of_another_version_is_refused() -> None:
    with pytest.raises(SalverError, match="version 9"):
        Reader().feed(HEAD.pack(0, 9, 2))
