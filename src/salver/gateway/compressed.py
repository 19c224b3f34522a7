"""Compressed bodies: decompressed as they arrive, in bounded pieces, and given up early where they swell too much."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Any

from salver.errors import error
from salver.limits import over

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE = 1 << 20
FREE = 1 << 20
"""Bytes that may come out before the ratio counts: a small body of one repeated value is no bomb."""
MEMBERS = 1 << 11
"""Streams one behind the other that may make up a body (RFC 1952, RFC 8878); each costs, however little it holds."""
ENCODINGS = (b"gzip", b"zstd", b"deflate")
_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""Of zlib: how each of its formats is told; deflate is that of RFC 1950, as HTTP has it."""
_SLICE = 1 << 14
"""What is decompressed at once: what lies behind the end of a stream is copied each time."""
_WINDOW = {int(zstd.DecompressionParameter.window_log_max): 23}  # 8 MiB, which RFC 8878 asks of every decoder


class Decompressor:
    """Decompresses one body; raises `too-large` past the ratio, `bad-request` for what is no such compression."""

    __slots__ = ("_came", "_encoding", "_gave", "_inner", "_members", "_name", "_ratio")

    def __init__(self, encoding: bytes, ratio: int) -> None:
        self._encoding = encoding
        self._name = encoding.decode()
        self._inner = _stream(encoding)
        self._members = 1
        self._ratio = ratio
        self._came = 0
        self._gave = 0

    def parts(self, data: bytes) -> Iterator[bytes]:
        """What `data` brings out, in pieces of at most 1 MiB."""
        self._came += len(data)
        for start in range(0, len(data), _SLICE):
            yield from self._pieces(data[start : start + _SLICE])

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        more = True
        while data or (more and not self._inner.eof):
            if self._inner.eof:
                self._next_member()
            inner = self._inner
            try:
                piece = inner.decompress(data, PIECE)
            except (zlib.error, zstd.ZstdError):
                raise error("bad-request", f"the body is not what content-encoding {self._name} says") from None
            data = inner.unused_data or (inner.unconsumed_tail if self._name != "zstd" else b"")
            more = len(piece) == PIECE
            self._gave += len(piece)
            if self._gave > FREE and self._gave > self._came * self._ratio:
                raise over(
                    "compression",
                    "too-large",
                    f"the body swells more than {self._ratio} times when it is decompressed",
                    "send it uncompressed, or fewer rows per request",
                )
            yield piece

    def _next_member(self) -> None:
        if self._name == "deflate":
            raise error("bad-request", "the body goes on after the end of its deflate data")
        self._members += 1
        if self._members > MEMBERS:
            text = f"the body is more than {MEMBERS} streams of {self._name}, one behind the other"
            raise over("compression", "too-large", text, "compress it as a whole")
        self._inner = _stream(self._encoding)

    def end(self) -> None:
        """Refuse a body whose compressed data is not whole."""
        if not self._inner.eof:
            raise error("bad-request", f"the body's {self._name} data is not whole")


def _stream(encoding: bytes) -> Any:
    bits = _BITS.get(encoding)
    return zlib.decompressobj(bits) if bits else zstd.ZstdDecompressor(options=_WINDOW)
