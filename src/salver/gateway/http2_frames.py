"""HTTP/2 frames (RFC 9113): cut out of a byte stream, read, and built. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD: Final = Struct(">HBBBI")
"""A frame's head: the length's high 16 and low 8 bits, the kind, the flags, the stream."""

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

TABLE_SIZE: Final = 1
PUSH: Final = 2
STREAMS: Final = 3
WINDOW: Final = 4
FRAME_SIZE: Final = 5
HEADER_LIST: Final = 6

LARGEST: Final = 1 << 14
"""The payload of the frames that both sides begin with, and that we take, in bytes."""
LARGEST_EVER: Final = (1 << 24) - 1
MOST_WINDOW: Final = (1 << 31) - 1
FIRST_WINDOW: Final = (1 << 16) - 1
_STREAM: Final = (1 << 31) - 1

Frame = tuple[int, int, int, bytes]
"""Kind, flags, stream and payload."""


class Broken(Exception):
    """The peer broke the protocol, and the connection can't go on: the code of the GOAWAY, and words for it.

    `limit` is the one that it ran into, of `metrics.LIMITS`.
    """

    def __init__(self, code: int, words: str, limit: str = "") -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words
        self.limit = limit


class BrokenStream(Exception):
    """The peer broke the protocol on one stream, which is reset with this code."""

    def __init__(self, stream: int, code: int) -> None:
        super().__init__(stream, code)
        self.stream = stream
        self.code = code


class Cutter:
    """Cuts a byte stream into frames; feed it what arrives."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Each frame that is now whole; raises `Broken` at one that is too large. Read it to the end."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        unpack = HEAD.unpack_from
        while end - at >= 9:
            high, low, kind, flags, stream = unpack(data, at)
            length = high << 8 | low
            if length > LARGEST:
                raise Broken(FRAME_SIZE_ERROR, f"a frame has {length} bytes")
            stop = at + 9 + length
            if stop > end:
                break
            yield kind, flags, stream & _STREAM, data[at + 9 : stop]
            at = stop
        if at < end:
            self._rest = data[at:]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    length = len(payload)
    return HEAD.pack(length >> 8, length & 255, kind, flags, stream) + payload


def settings(pairs: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in pairs.items()))


def window_update(stream: int, amount: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, amount.to_bytes(4, "big"))


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: int, words: str = "") -> bytes:
    """A GOAWAY frame: streams up to `last` were or may be answered."""
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + words.encode())


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a SETTINGS frame; raises `Broken` for a value that can't be."""
    if len(payload) % 6:
        raise Broken(FRAME_SIZE_ERROR, "a SETTINGS frame has a half setting")
    found = list(_SETTING.iter_unpack(payload))
    for name, value in found:
        if name == WINDOW and value > MOST_WINDOW:
            raise Broken(FLOW_CONTROL_ERROR, "the initial window is too large")
        if (name == PUSH and value > 1) or (name == FRAME_SIZE and not LARGEST <= value <= LARGEST_EVER):
            raise Broken(PROTOCOL_ERROR, f"setting {name} can't be {value}")
    return found


def unpadded(payload: bytes) -> bytes:
    """The payload of a padded frame without its padding."""
    if not payload or payload[0] >= len(payload):
        raise Broken(PROTOCOL_ERROR, "a frame has more padding than it has bytes")
    return payload[1 : len(payload) - payload[0]]


def without_priority(payload: bytes, stream: int) -> bytes:
    """The payload of a HEADERS frame without its priority, which means nothing any more."""
    if len(payload) < 5:
        raise Broken(FRAME_SIZE_ERROR, "a HEADERS frame is shorter than its priority")
    if int.from_bytes(payload[:4], "big") & _STREAM == stream:
        raise Broken(PROTOCOL_ERROR, "a stream depends on itself")
    return payload[5:]


_SETTING: Final = Struct(">HI")
