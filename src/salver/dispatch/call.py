"""One request on its way to a worker, how it may end without an answer, and the caps on what may wait and run."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from salver.frames import Form


class Limits(Struct, frozen=True):
    """Caps of one release's batcher.

    `batch_requests` and `batch_bytes` bound one frame, `queue_requests` and `queue_bytes` all that wait. `frames` is
    how many frames one worker may have in flight, `busy` how many workers may be busy at once (the CPU budget: more
    would only cut the batches in pieces), `deaths` how many lonely deaths a request may cause.
    """

    batch_requests: int = 64
    batch_bytes: int = 16 << 20
    queue_requests: int = 512
    queue_bytes: int = 256 << 20
    frames: int = 1
    busy: int = 2
    deaths: int = 2


class Call(Struct, eq=False, gc=False):
    """One request on its way: what to ask, and for whom.

    `deadline` and `started` (when it was admitted) are monotonic nanoseconds; a deadline of 0 is none. `owner` is
    whatever the taker of the answers needs. `deaths` is -1 while it has lost no worker; from 0 on it is retried alone.
    `key` is who asks: callers share the workers fairly. A higher `priority` goes first. Where `started` is 0 the
    request is never refused for the time it would wait. `sent` is when it went to a worker last, said of the first and
    the last of those that went together, and of all where one is traced; `trace` is the W3C traceparent that its
    worker is told, if any.
    """

    id: int
    form: Form
    deadline: int
    body: bytes
    owner: Any = None
    started: int = 0
    deaths: int = -1
    ended: bool = False
    key: str = ""
    priority: int = 0
    sent: int = 0
    trace: str = ""


class Failure(NamedTuple):
    """This request ends without an answer, for this reason (a code of `errors.CODES`)."""

    call: Call
    code: str
