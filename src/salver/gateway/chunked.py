"""Answers of unknown length: chunks of HTTP/1.1, or everything up to the end of a connection of HTTP/1.0."""

from __future__ import annotations

from salver.protocols.media import EVENT_STREAM


class Chunked:
    """One answer that goes out in pieces; `framed` as chunks, or else as it is."""

    __slots__ = ("_events", "_framed", "headers")

    def __init__(self, content_type: str, *, framed: bool) -> None:
        self._events = content_type == EVENT_STREAM
        self._framed = framed
        self.headers = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"
        if framed:
            self.headers += b"transfer-encoding: chunked\r\n"

    def piece(self, body: bytes) -> bytes:
        """The bytes of one piece."""
        return b"%x\r\n%b\r\n" % (len(body), body) if self._framed and body else body

    def end(self, problem: bytes) -> bytes:
        """The bytes of the end; a problem, in JSON, is told in the form of the pieces before it."""
        told = b""
        if problem:
            told = b"event: error\ndata: %b\n\n" % problem if self._events else b'{"error":%b}\n' % problem
        return self.piece(told) + (b"0\r\n\r\n" if self._framed else b"")
