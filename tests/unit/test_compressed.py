"""Compressed bodies come out whole whatever their pieces, and swell within bounds."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from salver.errors import SalverError
from salver.gateway.compressed import FREE, PIECE, Decompressor

COMPRESS: dict[bytes, Callable[[bytes], bytes]] = {
    b"deflate": zlib.compress,
    b"gzip": gzip.compress,
    b"zstd": zstd.compress,
}
EACH = pytest.mark.parametrize("encoding", sorted(COMPRESS))


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


@EACH
@pytest.mark.parametrize("damage", [lambda d: d[:-5], lambda d: d + b"x", lambda d: b"\0" * len(d), lambda d: d + d])
def test_what_is_no_whole_compression_is_refused(encoding: bytes, damage: Callable[[bytes], bytes]) -> None:
    data = damage(COMPRESS[encoding](b"some rows" * 99))
    with pytest.raises(SalverError) as caught:
        _out(encoding, data, len(data))
    assert caught.value.code == "bad-request"
