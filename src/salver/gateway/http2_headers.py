"""Header blocks (RFC 7541): read by `hpack`, with what they mean remembered; written as literals, without a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from salver.gateway.http2_frames import COMPRESSION_ERROR, Broken

MOST_KNOWN = 64
MOST_BLOCK = 2048
"""Bytes of a block that is worth remembering."""
SHRINK = b"\x20"
"""Sets the table of our blocks to nothing: the first word after a peer has asked for a smaller one."""
OK_STATUS = b"\x88"
"""`:status: 200`"""

T = TypeVar("T")
Headers = Sequence[tuple[bytes, bytes]]


class Blocks(Generic[T]):
    """Reads the header blocks of one connection; `read` says what a list of headers means.

    Callers send the same bytes call after call. They mean the same as long as the table does not change.
    """

    __slots__ = ("_decoder", "_known", "_read")

    def __init__(self, read: Callable[[Headers], T], most: int) -> None:
        self._decoder = Decoder(max_header_list_size=most)
        self._known: dict[bytes, T] = {}
        self._read = read

    def meaning(self, block: bytes) -> T:
        """What a block means; raises `Broken` for one that can't be read, or that is larger than `most`."""
        known = self._known.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table
        entries = table.dynamic_entries
        before = (len(entries), table.maxsize, entries[0] if entries else None)
        try:
            headers = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            raise Broken(COMPRESSION_ERROR, "a header block is too large", "headers") from None
        except (HPACKError, ValueError, IndexError):
            raise Broken(COMPRESSION_ERROR, "a header block can't be read") from None
        found = self._read([(bytes(name), bytes(value)) for name, value in headers])
        changed = before[:2] != (len(entries), table.maxsize) or (entries and entries[0] is not before[2])
        if changed or len(self._known) >= MOST_KNOWN:
            self._known.clear()
        if not changed and len(block) <= MOST_BLOCK:
            self._known[block] = found
        return found


def literal(name: bytes, value: bytes) -> bytes:
    """One header, in a form that leaves the peer's table as it is."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(data: bytes) -> bytes:
    size = len(data)
    if size < 127:
        return bytes([size])
    rest, parts = size - 127, bytearray([127])
    while rest > 127:
        parts.append(rest & 127 | 128)
        rest >>= 7
    parts.append(rest)
    return bytes(parts)
