"""What the headers of a call say, its messages, and how it ends, as pure functions."""

from __future__ import annotations

import gzip
from urllib.parse import unquote

import pytest
from hpack import Decoder

from salver.errors import CODES, SalverError
from salver.gateway.grpc.heads import Head, read_head
from salver.gateway.grpc.messages import Messages
from salver.gateway.grpc.trailers import MOST_ESCAPED, refused
from salver.limits import Limits

FIRST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/B"), (b":authority", b"here")]
KIND = (b"content-type", b"application/grpc+proto")


def read(*more: tuple[bytes, bytes]) -> Head:
    return read_head([*FIRST, (b"te", b"trailers"), KIND, *more], {b"/a/B": "method"}, Limits())


@pytest.mark.parametrize(
    ("value", "nanoseconds"),
    [(b"1H", 3600 * 10**9), (b"2M", 120 * 10**9), (b"3S", 3 * 10**9), (b"40m", 4 * 10**7), (b"5u", 5000), (b"6n", 6)],
)
def test_a_timeout_is_read_in_every_unit_and_capped(value: bytes, nanoseconds: int) -> None:
    head = read((b"grpc-timeout", value))
    assert (head.method, head.problem, head.deadline) == ("method", None, nanoseconds)
    assert head.timeout == min(nanoseconds, 60 * 10**9)


def test_the_shorter_of_both_timeouts_holds() -> None:
    for pairs in ([b"grpc-timeout", b"x-request-timeout-ms"], [b"x-request-timeout-ms", b"grpc-timeout"]):
        values = {b"grpc-timeout": b"2S", b"x-request-timeout-ms": b"1500"}
        assert read(*((name, values[name]) for name in pairs)).timeout == 1_500_000_000


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (b"grpc-timeout", b"", "bad-request"),
        (b"grpc-timeout", b"1", "bad-request"),
        (b"grpc-timeout", b"-1S", "bad-request"),
        (b"grpc-timeout", b"123456789S", "bad-request"),
        (b"x-request-timeout-ms", b"0", "bad-request"),
        (b"x-request-timeout-ms", b"60001", "bad-request"),
        (b"grpc-encoding", b"snappy", "not-implemented"),
        (b"x-any", b"x" * (16 << 10), "headers-too-large"),
    ],
)
def test_what_is_wrong_with_metadata_is_an_error_of_the_call(name: bytes, value: bytes, code: str) -> None:
    head = read((name, value))
    assert not head.malformed
    assert head.problem is not None
    assert head.problem.code == code


def test_headers_behind_the_last_message_have_no_path() -> None:
    assert read_head([(b"grpc-status", b"0")], {}, Limits()).ends
    assert not read().ends
    assert read_head([(b":path", b"/")], {}, Limits()).malformed


@pytest.mark.parametrize("words", ["", "plain words", "100 % of Jürgen's\nlines", "é" * 5000])
@pytest.mark.parametrize("code", ["no-such-model", "overloaded", "not-implemented"])
def test_words_are_escaped_and_cut_where_a_letter_ends(words: str, code: str) -> None:
    said = dict(Decoder().decode(refused(code, words)))
    assert CODES[code].grpc == {"5": "NOT_FOUND", "14": "UNAVAILABLE", "12": "UNIMPLEMENTED"}[said["grpc-status"]]
    assert len(said["grpc-message"]) <= MOST_ESCAPED
    assert said["grpc-message"].isascii()
    assert "\n" not in said["grpc-message"]
    assert words.startswith(unquote(said["grpc-message"]).rstrip("\ufffd"))
    assert said["x-salver-error"] == code


def packed(data: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("size", [1, 4, 5, 6, 1000])
def test_messages_are_cut_and_unpacked_wherever_they_are_split(size: int) -> None:
    wanted = [b"", b"one", b"x" * 300, b"compressed" * 50]
    data = b"".join(map(packed, wanted[:3])) + packed(gzip.compress(wanted[3], mtime=0), 1)
    messages = Messages(Limits(), gzip=True)
    found = [each for at in range(0, len(data), size) for each in messages.feed(data[at : at + size])]
    assert (found, len(messages), messages.missing) == (wanted, 0, 0)


@pytest.mark.parametrize(
    ("data", "gzipped", "code"),
    [
        (packed(b"plain", 1), False, "bad-request"),
        (packed(b"no gzip", 1), True, "bad-request"),
        (packed(gzip.compress(bytes(5000), mtime=0), 1), True, "too-large"),
        (packed(gzip.compress(b"half", mtime=0)[:-4], 1), True, "bad-request"),
        (b"\0\0\0\x10\0", False, "too-large"),
    ],
)
def test_messages_that_cannot_be_read_are_refused(data: bytes, gzipped: bool, code: str) -> None:
    with pytest.raises(SalverError) as caught:
        list(Messages(Limits(body=4000), gzip=gzipped).feed(data))
    assert caught.value.code == code
