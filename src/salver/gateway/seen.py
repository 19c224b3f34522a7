"""One request as the access log and the traces see it, unless it is a plain prediction that no trace follows."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from salver.dispatch.call import Call

LONGEST_PATH = 1024
ID_LENGTH = 36
RELEASE = b"\r\nx-salver-release: "
ID = b"\r\nx-salver-prediction-id: "


class Span(NamedTuple):
    """The span of a request: its trace, and the SDK's own object.

    `offset` are the nanoseconds between the monotonic clock and that of the world.
    """

    trace_id: str
    offset: int
    inner: Any


class Seen(Struct, eq=False):
    """What is known so far of a request that had come whole at `began`, in nanoseconds of the monotonic clock.

    `key` is the caller's name, `release` what it is answered by and `call` its way there, where it has one. A `status`
    of 0 means that no answer has begun.
    """

    method: str
    path: str
    client: str
    began: int
    request_id: str = ""
    key: str = ""
    bytes_in: int = 0
    call: Call | None = None
    release: str = ""
    prediction_id: str = ""
    status: int = 0
    bytes_out: int = 0
    rows: int = 0
    code: str = ""
    span: Span | None = None

    def wrote(self, data: bytes) -> None:
        """A part of an HTTP answer went out; the first says its status and its prediction id."""
        self.bytes_out += len(data)
        if not self.status:
            self.status = int(data[9:12])
            at = data.find(ID, 0, data.find(b"\r\n\r\n"))
            if at >= 0:
                at += len(ID)
                self.prediction_id = data[at : at + ID_LENGTH].decode("latin-1")


def path_of(url: bytes) -> str:
    """The path of a request line's target, without its query."""
    return url[:LONGEST_PATH].partition(b"?")[0].decode("latin-1")
