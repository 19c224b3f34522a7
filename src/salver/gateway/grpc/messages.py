"""Messages in the bytes of a call: each with a head of five bytes, and compressed where that says so."""

from __future__ import annotations

from collections.abc import Iterator

from salver.errors import error
from salver.gateway.compressed import Decompressor
from salver.limits import Limits
from salver.memory import HEAP


class Messages:
    """Cuts what a peer says on one stream into messages."""

    __slots__ = ("_buffer", "_gzip", "limits")

    def __init__(self, limits: Limits, *, gzip: bool) -> None:
        self._buffer = bytearray()
        self._gzip = gzip
        self.limits = limits

    def __len__(self) -> int:
        """Bytes of the message that is not whole yet."""
        return len(self._buffer)

    @property
    def missing(self) -> int:
        """Bytes that this message still lacks, as far as that is known."""
        came = len(self._buffer)
        return 5 + self._size() - came if came >= 5 else 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Each message that is now whole; raises the error of one that is too large or can't be read."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 5:
            size = self._size()
            if size > self.limits.body:
                raise self.limits.too_large("message")
            if len(buffer) < size + 5:
                return
            HEAP.took(size)
            packed = buffer[0]
            with memoryview(buffer) as view:
                message = bytes(view[5 : size + 5])
            del buffer[: size + 5]
            yield self._unpacked(message) if packed else message

    def _size(self) -> int:
        return int.from_bytes(self._buffer[1:5], "big")

    def _unpacked(self, message: bytes) -> bytes:
        if not self._gzip:
            raise error("bad-request", "a message is compressed, and grpc-encoding does not say how")
        inner = Decompressor(b"gzip", self.limits.compression_ratio)
        parts, size = [], 0
        for part in inner.parts(message):
            size += len(part)
            if size > self.limits.body:
                raise self.limits.too_large("message")
            parts.append(part)
        inner.end()
        return b"".join(parts)
