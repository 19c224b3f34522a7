"""Every limit on what a client may send, hold open or wait for, in one place with its default."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from salver.errors import SalverError, error

Size = Annotated[int, Meta(ge=1)]
Time = Annotated[float, Meta(gt=0)]


OF_WORKERS = "_SALVER_BODY_LIMITS"
"""The variable by which a server tells its workers what a body may hold."""
SCARCE_BODY = 1 << 20
"""Bytes of a body that is still taken while memory is short."""
SCARCE_RETRY = 5.0
"""Seconds after which a request may come again that was refused for want of memory."""
JSON_DEPTH = 100
"""Levels of nested JSON that are read; beyond about a thousand none is, with status 400."""


class BodyLimits(Struct, frozen=True):
    """What one body may hold; the same in every worker."""

    rows: Annotated[Size, Meta(le=100_000, description="Rows in one request.")] = 10_000
    elements: Annotated[Size, Meta(description="Elements in the tensors of one request.")] = 16 << 20
    tensors: Annotated[Size, Meta(description="Tensors in one request.")] = 256


BODY = msgspec.json.decode(os.environ.get(OF_WORKERS, "{}"), type=BodyLimits)
"""Those of this process."""


class Limits(BodyLimits, frozen=True, forbid_unknown_fields=True):
    """Limits of a server; sizes in bytes, times in seconds.

    Deadlines are absolute: a client can't extend them by sending a byte now and then.
    """

    request_line: Annotated[Size, Meta(description="Bytes of a request line's target.")] = 8 << 10
    headers: Annotated[Size, Meta(description="Bytes of all headers of a request.")] = 16 << 10
    header_count: Annotated[Size, Meta(description="Headers of a request.")] = 100
    header_time: Annotated[Time, Meta(description="Seconds until a head is whole.")] = 10.0
    body_time: Annotated[Time, Meta(description="Seconds until a body is whole.")] = 60.0
    body_rate: Annotated[int, Meta(ge=0, description="Bytes a second that a body has to come with.")] = 1 << 10
    body_rate_after: Annotated[float, Meta(ge=0, description="Seconds before that rate is asked for.")] = 10.0
    body: Annotated[Size, Meta(le=192 << 20, description="Bytes of a body, also after decompression.")] = 64 << 20
    compression_ratio: Annotated[Size, Meta(description="Times a compressed body may swell.")] = 100
    chunks: Annotated[Size, Meta(description="Chunks of a body.")] = 65_536
    connections: Annotated[Size, Meta(description="Connections to one listener of a gateway.")] = 10_000
    key_connections: Annotated[Size, Meta(description="Connections that a caller may hold to a gateway.")] = 500
    pipelined: Annotated[Size, Meta(description="Requests that may wait behind an open one on a connection.")] = 100
    keep_alive: Annotated[Time, Meta(description="Seconds that a connection may be idle.")] = 75.0
    timeout: Annotated[Time, Meta(description="Seconds that a request may take if it says nothing.")] = 10.0
    timeout_most: Annotated[Time, Meta(description="Seconds that a request may ask for.")] = 60.0
    queue_bytes: Annotated[Size, Meta(description="Bytes that may wait for the workers of a release.")] = 256 << 20
    queue_batches: Annotated[Size, Meta(description="Full batches that may wait for each worker.")] = 4
    write_time: Annotated[Time, Meta(description="Seconds that a client may leave an answer unread.")] = 60.0
    streams: Annotated[Size, Meta(description="Calls open at once on a gRPC connection.")] = 100
    stream_window: Annotated[Size, Meta(description="Bytes that a gRPC call may send unread.")] = 64 << 10
    connection_window: Annotated[Size, Meta(description="Bytes that a gRPC connection may send unread.")] = 1 << 20
    large_messages: Annotated[Size, Meta(description="Bytes of messages that a gRPC connection may hold.")] = 128 << 20
    large_answers: Annotated[Size, Meta(description="Bytes of answers that a gRPC connection may owe.")] = 128 << 20
    resets: Annotated[Size, Meta(description="Calls that a gRPC connection may reset within `resets_time`.")] = 200
    resets_time: Annotated[Time, Meta(description="Seconds over which resets are counted.")] = 10.0
    odd_frames: Annotated[Size, Meta(description="Frames a second that may bring a gRPC connection nothing.")] = 1000

    memory: Annotated[
        int, Meta(ge=0, description="Bytes of memory that all processes may use; 0 is the control group's limit.")
    ] = 0

    def for_workers(self) -> dict[str, str]:
        """The environment that tells a worker what a body may hold."""
        body = BodyLimits(self.rows, self.elements, self.tensors)
        return {OF_WORKERS: msgspec.json.encode(body).decode()}

    def body_time_of(self, received: int) -> float:
        """The seconds that a body may take of which only so many bytes have come."""
        if not self.body_rate:
            return self.body_time
        return min(self.body_time, self.body_rate_after + received / self.body_rate)

    @property
    def shortest(self) -> float:
        """The seconds after which a client that begins something now may be cut off at the earliest."""
        return min(self.header_time, self.body_time, self.body_rate_after, self.keep_alive, self.write_time)

    def too_large(self, what: str) -> SalverError:
        """The error of a body or message that is over `body`."""
        return over("body", "too-large", f"the {what} is over {self.body} bytes", "send fewer rows per request")


class ScarceLimits(Limits, frozen=True):
    """The limits of a server that is short of memory."""

    def too_large(self, what: str) -> SalverError:
        """The error of a body or message that would be taken at other times."""
        return short_of_memory(f"so no {what} over {self.body >> 20} MiB is taken")


def scarce(limits: Limits) -> Limits:
    """The limits while memory is short."""
    if limits.body <= SCARCE_BODY:
        return limits
    return ScarceLimits(**{**msgspec.structs.asdict(limits), "body": SCARCE_BODY})


def short_of_memory(then: str) -> SalverError:
    """The error of a request that is refused because memory is short; `then` says what follows from it."""
    problem = over("memory", "overloaded", f"this server is short of memory, {then}", "try again in a moment")
    problem.retry_after = SCARCE_RETRY
    return problem


def over(limit: str, code: str, message: str, hint: str = "") -> SalverError:
    """The error of a request that ran into a limit; it is counted by the limit's name, one of `metrics.LIMITS`."""
    problem = error(code, message, hint=hint)
    problem.limit = limit
    return problem
