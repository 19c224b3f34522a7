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
ENCODINGS = (b"gzip", b"zstd", b"deflate")
_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""Of zlib: how each of its formats is told; deflate is that of RFC 1950, as HTTP has it."""
_WINDOW = {int(zstd.DecompressionParameter.window_log_max): 23}  # 8 MiB, which RFC 8878 asks of every decoder


class Decompressor:
    """Decompresses one body; raises `too-large` past the ratio, `bad-request` for what is no such compression."""

    __slots__ = ("_came", "_gave", "_inner", "_name", "_ratio")

    def __init__(self, encoding: bytes, ratio: int) -> None:
        self._name = encoding.decode()
        bits = _BITS.get(encoding)
        self._inner: Any = zlib.decompressobj(bits) if bits else zstd.ZstdDecompressor(options=_WINDOW)
        self._ratio = ratio
        self._came = 0
        self._gave = 0

    def parts(self, data: bytes) -> Iterator[bytes]:
        """What `data` brings out, in pieces of at most 1 MiB."""
        self._came += len(data)
        inner = self._inner
        more = True
        while data or (more and not inner.eof):
            if inner.eof:
                raise error("bad-request", f"the body goes on after the end of its {self._name} data")
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

    def end(self) -> None:
        """Refuse a body whose compressed data is not whole."""
        if not self._inner.eof:
            raise error("bad-request", f"the body's {self._name} data is not whole")
