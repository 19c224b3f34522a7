"""The frames that keep an HTTP/2 connection going, and the floods of them that end it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from salver.gateway import http2_frames as h2
from salver.gateway.http2_frames import Broken, BrokenStream
from salver.gateway.http2_sender import Sender, Stream
from salver.limits import Limits

MOST_FRAME: Final = 1 << 18
"""Bytes of the largest frame that we send, to a peer that takes larger ones than usual."""


class Meter:
    """Counts what may happen so often within so many seconds."""

    __slots__ = ("_count", "_most", "_since", "_span")

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._span = int(seconds * 1e9)
        self._since = 0
        self._count = 0

    def is_over(self, now: int) -> bool:
        """Count one more."""
        if now - self._since > self._span:
            self._since, self._count = now, 0
        self._count += 1
        return self._count > self._most


class ControlFrames(Sender):
    """Acts on every frame but DATA and those of headers."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits
        self._last = 0  # the newest stream of the peer
        self._leaving = 0  # 1: said that it will go, 2: said which stream is the last, 3: said why, hears no more
        self._now = time.monotonic_ns()
        self._resets = Meter(limits.resets, limits.resets_time)
        self._oddities = Meter(limits.odd_frames, 1.0)

    @property
    def now(self) -> int:
        """When the last bytes came, in monotonic nanoseconds."""
        return self._now

    def act(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Act on one frame; one of a kind that we do not know means nothing."""
        if kind not in (h2.WINDOW_UPDATE, h2.RST_STREAM):
            self._odd()
        act = _ACTS.get(kind)
        if act is not None:
            act(self, flags, number, payload)

    def _priority(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        if not number:
            raise Broken(h2.PROTOCOL_ERROR, "a priority has no stream")
        if len(payload) != 5:
            raise BrokenStream(number, h2.FRAME_SIZE_ERROR)
        if int.from_bytes(payload[:4], "big") & h2.MOST_WINDOW == number:
            raise BrokenStream(number, h2.PROTOCOL_ERROR)

    def _rst_stream(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        if len(payload) != 4:
            raise Broken(h2.FRAME_SIZE_ERROR, "a RST_STREAM has 4 bytes")
        self._check_used(number)
        self._count_reset()
        stream = self.streams.get(number)
        if stream is not None:
            self._drop(stream)
            stream.abandon()

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Broken(h2.PROTOCOL_ERROR, "settings have no stream")
        if flags & h2.ACK:
            if payload:
                raise Broken(h2.FRAME_SIZE_ERROR, "an acknowledgement has no settings")
            return
        for name, value in h2.read_settings(payload):
            if name == h2.TABLE_SIZE and value < 4096:
                self._shrink = True
            elif name == h2.FRAME_SIZE:
                self._largest = min(value, MOST_FRAME)
            elif name == h2.WINDOW:
                more, self._first_window = value - self._first_window, value
                for stream in list(self.streams.values()):
                    self._widen(stream, more)
        self.send(h2.frame(h2.SETTINGS, h2.ACK, 0))

    def _push_promise(self, flags: int, number: int, payload: bytes) -> None:
        del flags, number, payload
        raise Broken(h2.PROTOCOL_ERROR, "a client promises nothing")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Broken(h2.PROTOCOL_ERROR, "a PING has no stream")
        if len(payload) != 8:
            raise Broken(h2.FRAME_SIZE_ERROR, "a PING has 8 bytes")
        if not flags & h2.ACK:
            self.send(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif self._leaving == 1:
            self._name_last()

    def _goaway(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        if number:
            raise Broken(h2.PROTOCOL_ERROR, "a GOAWAY has no stream")
        if len(payload) < 8:
            raise Broken(h2.FRAME_SIZE_ERROR, "a GOAWAY has at least 8 bytes")

    def _window_update(self, flags: int, number: int, payload: bytes) -> None:
        del flags
        if len(payload) != 4:
            raise Broken(h2.FRAME_SIZE_ERROR, "a WINDOW_UPDATE has 4 bytes")
        amount = int.from_bytes(payload, "big") & h2.MOST_WINDOW
        if number:
            self._check_used(number)
            stream = self.streams.get(number)
            if not amount:
                raise BrokenStream(number, h2.PROTOCOL_ERROR)
            if stream is not None:
                if stream.window + amount > h2.MOST_WINDOW:
                    raise BrokenStream(number, h2.FLOW_CONTROL_ERROR)
                self._widen(stream, amount)
            return
        self._window += amount
        if not amount:
            raise Broken(h2.PROTOCOL_ERROR, "a WINDOW_UPDATE gives nothing")
        if self._window > h2.MOST_WINDOW:
            raise Broken(h2.FLOW_CONTROL_ERROR, "the connection's window is too large")
        for stream in list(self._blocked.values()):
            self._pump(stream)

    def _widen(self, stream: Stream, amount: int) -> None:
        stream.window += amount
        if stream.window > h2.MOST_WINDOW:
            raise Broken(h2.FLOW_CONTROL_ERROR, "a stream's window is too large")
        if stream.number in self._blocked:
            self._pump(stream)

    def _check_used(self, number: int) -> None:
        if not number & 1 or number > self._last:
            raise Broken(h2.PROTOCOL_ERROR, f"stream {number} is idle")

    def _count_reset(self) -> None:
        if self._resets.is_over(self._now):
            raise Broken(h2.ENHANCE_YOUR_CALM, "too many streams are reset", "resets")

    def _odd(self) -> None:
        if self._oddities.is_over(self._now):
            raise Broken(h2.ENHANCE_YOUR_CALM, "too many frames bring nothing", "odd-frames")

    def _reset(self, number: int, code: int) -> None:
        """End a stream for what its peer did wrong."""
        if not number & 1 or number > self._last:
            raise Broken(code, f"stream {number} is idle")
        self._forget(number)
        self.send(h2.rst_stream(number, code))
        stream = self.streams.get(number)
        if stream is not None:
            self._drop(stream)
            stream.abandon()
        if code == h2.REFUSED_STREAM:
            self._odd()  # a client may ask for many before it has heard how many it may
        else:
            self._count_reset()

    def dismiss(self) -> None:
        """Take no more streams; those that are open end as they would."""
        if self._leaving < 2:
            self._name_last()

    def _name_last(self) -> None:
        """Say which stream is the last that is answered."""
        self._leaving = 2
        self.send(h2.goaway(self._last, h2.NO_ERROR))
        for stream in list(self.streams.values()):
            stream.leave()
        if not self.streams:
            self._gone()

    def _gone(self) -> None:
        """The last stream of a connection that leaves has ended."""


_ACTS: dict[int, Callable[[ControlFrames, int, int, bytes], None]] = {
    h2.PRIORITY: ControlFrames._priority,
    h2.RST_STREAM: ControlFrames._rst_stream,
    h2.SETTINGS: ControlFrames._settings,
    h2.PUSH_PROMISE: ControlFrames._push_promise,
    h2.PING: ControlFrames._ping,
    h2.GOAWAY: ControlFrames._goaway,
    h2.WINDOW_UPDATE: ControlFrames._window_update,
}
