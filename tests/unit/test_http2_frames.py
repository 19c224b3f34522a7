"""HTTP/2 frames and header blocks as pure functions: cut wherever the bytes are split, and refused where they lie."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError

from salver.gateway import http2_frames as h2
from salver.gateway.http2_frames import Broken, Cutter, frame
from salver.gateway.http2_headers import Blocks, Headers, literal

FRAMES = [
    (h2.SETTINGS, 0, 0, b"\0\3\0\0\0\x64"),
    (h2.HEADERS, h2.END_HEADERS, 1, b"x" * 300),
    (h2.DATA, h2.END_STREAM, 1, b""),
    (h2.DATA, 0, (1 << 31) - 1, b"y" * h2.LARGEST),
    (200, 255, 0, b"?"),
]
BYTES = b"".join(frame(*each) for each in FRAMES)


@pytest.mark.parametrize("size", [1, 2, 9, 10, 100, 16393, len(BYTES)])
def test_frames_are_cut_the_same_wherever_the_bytes_are_split(size: int) -> None:
    cutter = Cutter()
    parts = [BYTES[at : at + size] for at in range(0, len(BYTES), size)]
    assert [each for part in parts for each in cutter.feed(part)] == FRAMES


def test_the_reserved_bit_of_a_stream_means_nothing() -> None:
    data = bytearray(frame(h2.PING, 0, 5, bytes(8)))
    data[5] |= 0x80
    assert next(Cutter().feed(bytes(data)))[2] == 5


def test_a_frame_over_the_limit_is_refused_after_those_before_it() -> None:
    cutting = Cutter().feed(frame(h2.PING, 0, 0, bytes(8)) + b"\0\x40\x01\0\0\0\0\0\1")
    assert next(cutting) == (h2.PING, 0, 0, bytes(8))
    with pytest.raises(Broken) as caught:
        next(cutting)
    assert caught.value.code == h2.FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\0\3\0\0\0", h2.FRAME_SIZE_ERROR),
        (b"\0\2\0\0\0\2", h2.PROTOCOL_ERROR),
        (b"\0\4\x80\0\0\0", h2.FLOW_CONTROL_ERROR),
        (b"\0\5\0\0\x3f\xff", h2.PROTOCOL_ERROR),
        (b"\0\5\x01\0\0\0", h2.PROTOCOL_ERROR),
    ],
)
def test_settings_that_cannot_be_are_refused(payload: bytes, code: int) -> None:
    with pytest.raises(Broken) as caught:
        h2.read_settings(payload)
    assert caught.value.code == code


def test_padding_is_taken_off_and_may_not_be_longer_than_the_frame() -> None:
    assert h2.unpadded(b"\2abc\0\0") == b"abc"
    assert h2.unpadded(b"\0abc") == b"abc"
    assert h2.unpadded(b"\3\0\0\0") == b""
    for payload in (b"", b"\1", b"\4abc"):
        with pytest.raises(Broken):
            h2.unpadded(payload)


def test_a_priority_is_taken_off_and_no_stream_depends_on_itself() -> None:
    assert h2.without_priority(b"\x80\0\0\3\x10abc", 5) == b"abc"
    for payload in (b"\0\0\0\5\x10abc", b"\0\0\0"):
        with pytest.raises(Broken):
            h2.without_priority(payload, 5)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 300, 5000, 20000])
def test_literals_are_read_back_and_leave_the_table_empty(size: int) -> None:
    decoder = Decoder(max_header_list_size=1 << 20)
    pairs = [(b"name", b"v" * size), (b"n" * (size or 1), b"value")]
    assert [tuple(pair) for pair in decoder.decode(b"".join(literal(*pair) for pair in pairs), raw=True)] == pairs
    assert not decoder.header_table.dynamic_entries


def test_the_same_bytes_mean_what_the_table_says_now() -> None:
    seen: list[Headers] = []

    def read(headers: Headers) -> int:
        seen.append(headers)
        return len(seen)

    blocks, encoder = Blocks(read, 1 << 16), Encoder()
    first = [(b":path", b"/a"), (b"x-one", b"1")]
    adding = encoder.encode(first, huffman=False)
    indexed = encoder.encode(first)
    assert adding != indexed
    assert blocks.meaning(adding) == 1
    assert blocks.meaning(indexed) == blocks.meaning(indexed) == 2
    assert seen == [first, first]
    other = encoder.encode([(b":path", b"/b"), (b"x-two", b"2")])
    assert blocks.meaning(other) == 3
    assert blocks.meaning(indexed) == 4
    assert seen[-1] == [(b":path", b"/b"), (b"x-two", b"2")]


def test_a_block_that_cannot_be_read_or_swells_is_refused() -> None:
    big = Encoder().encode([(b"x", b"y" * 4000)]) + b"\xbe" * 20
    for block in (b"\xff\xff\xff\xff\xff\xff", b"\xbe", b"\x00\x05ab", b"\x80", big):
        with pytest.raises((HPACKError, Broken)) as caught:
            Blocks(list, 32 << 10).meaning(block)
        assert isinstance(caught.value, Broken)
