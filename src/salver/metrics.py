"""Every metric Salver counts, declared once, and the shared memory that holds them. Standard library only.

Each gateway adds to its own block of float64 cells, which belongs to the supervisor and outlives the gateway; the
supervisor has one of its own. Whoever is asked for `/metrics` sums all blocks. So counters of several gateways add up,
never go back when one dies, and need no file per process. A block is one row for the gateway itself and one per
release slot.
"""

from __future__ import annotations

import mmap
from typing import Literal, NamedTuple

SLOTS = 256
CELL = 8


class Family(NamedTuple):
    """One metric: its name, kind, meaning, the values of its own label, and its histogram's upper bounds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    label: str = ""
    values: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def cells(self) -> int:
        """How many cells it takes."""
        return (len(self.values) or 1) * self.width

    @property
    def width(self) -> int:
        """How many cells one value of its label takes: a histogram's are its buckets, the last without bound, and
        their sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


STATUSES = ("200", "400", "404", "413", "415", "422", "429", "500", "503", "504", "other")
REASONS = (
    "overloaded",
    "would-miss-deadline",
    "poison-request",
    "not-ready",
    "draining",
    "deadline-exceeded",
    "worker-died",
    "answer-broken-off",
    "quota-exceeded",
    "too-many-connections",
    "unauthenticated",
    "forbidden",
    "other",
)
LIMITS = (
    "request-line",
    "headers",
    "header-count",
    "slow-head",
    "slow-body",
    "slow-read",
    "body",
    "chunks",
    "compression",
    "connections",
    "key-connections",
    "pipelined",
    "streams",
    "resets",
    "odd-frames",
    "large-messages",
    "large-answers",
    "memory",
    "queue",
    "rows",
    "elements",
    "tensors",
)
"""What a request may run into; the last four bind in a worker or before one, the others while it is read."""
PHASES = ("decode", "predict", "encode")
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FINE = (0.00005, 0.0001, 0.00025, *SECONDS)
"""Phases are shorter than requests, in seconds too."""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 10000.0)

RELEASE: tuple[Family, ...] = (
    Family("salver_requests", "counter", "Answered prediction requests.", "status", STATUSES),
    Family("salver_refused", "counter", "Requests that got no prediction, by reason.", "reason", REASONS),
    Family("salver_rows", "counter", "Rows in answered requests."),
    Family("salver_row_errors", "counter", "Rows that failed within answered requests."),
    Family("salver_extra_fields", "counter", "Fields in answered requests that the signature does not have."),
    Family("salver_unseen_values", "counter", "Values outside the ranges and categories of the signature."),
    Family("salver_request_bytes", "counter", "Bytes of request bodies."),
    Family("salver_request_seconds", "histogram", "Time from a whole request to its answer.", bounds=SECONDS),
    Family("salver_batch_rows", "histogram", "Rows of each model call's batch.", bounds=SIZES),
    Family("salver_queue_seconds", "histogram", "Time from a whole request to its way to a worker.", bounds=SECONDS),
    Family("salver_phase_seconds", "histogram", "Time a worker spent on each batch, by phase.", "phase", PHASES, FINE),
    Family("salver_stream_pieces", "counter", "Pieces of streamed answers."),
    Family("salver_open_streams", "gauge", "Answers that have begun to come in pieces and go on now."),
    Family("salver_abandoned", "counter", "Requests whose caller left before the answer."),
    Family("salver_worker_deaths", "counter", "Workers that ended without being asked to."),
    Family("salver_waiting", "gauge", "Requests that wait or are in flight now."),
    Family("salver_workers_connected", "gauge", "Connections of gateways to proven workers now."),
)
GATEWAY: tuple[Family, ...] = (
    Family("salver_connections", "gauge", "Open client connections."),
    Family("salver_accepted_connections", "counter", "Client connections ever accepted."),
    Family("salver_malformed_requests", "counter", "Requests that could not be read or routed."),
    Family("salver_limit_hits", "counter", "Requests and connections that ran into a limit.", "limit", LIMITS),
    Family("salver_memory_used_ratio", "gauge", "Share of the memory budget in use, 0 where there is no budget."),
    Family("salver_access_log_dropped", "counter", "Lines of the access log that could not be written."),
)


def _offsets(families: tuple[Family, ...]) -> tuple[dict[str, int], int]:
    offsets, at = {}, 0
    for family in families:
        offsets[family.name] = at
        at += family.cells
    return offsets, at


RELEASE_AT, RELEASE_CELLS = _offsets(RELEASE)
GATEWAY_AT, GATEWAY_CELLS = _offsets(GATEWAY)
BLOCK_BYTES = (GATEWAY_CELLS + SLOTS * RELEASE_CELLS) * CELL


class Block:
    """The cells of a gateway or the supervisor, mapped from a descriptor of `BLOCK_BYTES` bytes."""

    def __init__(self, descriptor: int) -> None:
        self.cells = memoryview(mmap.mmap(descriptor, BLOCK_BYTES)).cast("B").cast("d")

    def row(self, slot: int) -> int:
        """The first cell of a release's slot."""
        return GATEWAY_CELLS + slot * RELEASE_CELLS

    def clear(self, slot: int) -> None:
        """Begin a slot anew, for another release."""
        start = self.row(slot)
        for cell in range(start, start + RELEASE_CELLS):
            self.cells[cell] = 0.0
