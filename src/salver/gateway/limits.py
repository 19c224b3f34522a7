"""Every limit of the front, in one place, with its default."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the HTTP front; sizes in bytes, times in seconds.

    Deadlines are absolute: a client can't extend them by sending a byte now and then.
    """

    request_line: int = 8 << 10
    headers: int = 16 << 10
    header_count: int = 100
    header_time: float = 10.0
    body_time: float = 60.0
    body_rate: int = 1 << 10
    body_rate_after: float = 10.0
    body: int = 64 << 20
    chunks: int = 65_536
    connections: int = 10_000
    keep_alive: float = 75.0
    timeout: float = 10.0
    timeout_most: float = 60.0
    queue_bytes: int = 256 << 20
    queue_batches: int = 4
    write_time: float = 60.0
