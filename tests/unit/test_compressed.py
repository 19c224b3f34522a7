"""Compressed bodies come out whole whatever their pieces, and swell within bounds."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from salver.errors import SalverError
from salver.gateway.compressed import FREE, MEMBERS, PIECE, Decompressor

COMPRESS: dict[bytes, Callable[[bytes], bytes]] = {
    b"deflate": zlib.compress,
    b"gzip": gzip.compress,
    b"zstd": zstd.compress,
}
EACH = pytest.mark.parametrize("encoding", sorted(COMPRESS))
MANY = pytest.mark.parametrize("encoding", [b"gzip", b"zstd"])


def _out(encoding: bytes, data: bytes, step: int, ratio: int = 100) -> bytes:
    decompressor = Decompressor(encoding, ratio)
    out = b"".join(
        part for start in range(0, len(data), step) for part in decompressor.parts(data[start : start + step])
    )
    decompressor.end()
    return out


@EACH
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_a_body_comes_out_as_it_went_in(encoding: bytes, size: int) -> None:
    body = random.Random(size).randbytes(size)
    data = COMPRESS[encoding](body)
    assert _out(encoding, data, len(data)) == body
    assert _out(encoding, data, 60_000) == body


@EACH
def test_every_piece_is_bounded(encoding: bytes) -> None:
    data = COMPRESS[encoding](bytes(FREE))
    assert max(len(part) for part in Decompressor(encoding, 100).parts(data)) <= PIECE


@EACH
def test_a_repeated_value_below_the_free_size_is_no_bomb(encoding: bytes) -> None:
    assert _out(encoding, COMPRESS[encoding](bytes(FREE)), 1 << 20) == bytes(FREE)


@EACH
def test_a_bomb_is_given_up_before_it_is_out(encoding: bytes) -> None:
    bomb = COMPRESS[encoding](bytes(1 << 26))
    out: list[bytes] = []
    with pytest.raises(SalverError) as caught:
        out.extend(Decompressor(encoding, 100).parts(bomb))
    assert caught.value.code == "too-large"
    assert sum(map(len, out)) <= max(FREE, 100 * len(bomb))


def test_deflate_is_one_stream() -> None:
    data = zlib.compress(b"some rows" * 99)
    with pytest.raises(SalverError) as caught:
        _out(b"deflate", data + data, 2 * len(data))
    assert caught.value.code == "bad-request"


@MANY
@pytest.mark.parametrize("step", [1, 7, 1 << 14, 1 << 20])
def test_streams_one_behind_the_other_are_one_body(encoding: bytes, step: int) -> None:
    rows = [random.Random(size).randbytes(size) for size in (10, 0, 20_000, 1)]
    assert _out(encoding, b"".join(map(COMPRESS[encoding], rows)), step) == b"".join(rows)


@MANY
def test_a_bomb_of_many_streams_is_given_up_before_it_is_out(encoding: bytes) -> None:
    bomb = COMPRESS[encoding](bytes(FREE)) * 64
    for step in (100, len(bomb)):
        out: list[int] = []
        decompressor = Decompressor(encoding, 100)
        with pytest.raises(SalverError) as caught:
            out.extend(len(p) for at in range(0, len(bomb), step) for p in decompressor.parts(bomb[at : at + step]))
        assert caught.value.code == "too-large"
        assert sum(out) <= max(FREE, 100 * len(bomb))


@MANY
def test_there_may_be_2048_streams(encoding: bytes) -> None:
    assert _out(encoding, COMPRESS[encoding](b"") * MEMBERS, 1 << 20) == b""
    with pytest.raises(SalverError) as caught:
        _out(encoding, COMPRESS[encoding](b"") * (MEMBERS + 1), 1 << 20)
    assert (caught.value.code, caught.value.limit) == ("too-large", "compression")


@EACH
@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d[:-5],
        lambda d: d + b"x",
        lambda d: d + b"more than a head of it has",
        lambda d: d + d[:-5],
        lambda d: b"\0" * len(d),
    ],
)
def test_what_is_no_whole_compression_is_refused(encoding: bytes, damage: Callable[[bytes], bytes]) -> None:
    data = damage(COMPRESS[encoding](b"some rows" * 99))
    with pytest.raises(SalverError) as caught:
        _out(encoding, data, len(data))
    assert caught.value.code == "bad-request"
