"""Every metric Salver counts, declared once, and the shared memory that holds them.

Each gateway adds to its own block of float64 cells, which belongs to the supervisor and outlives the gateway; whoever
is asked for `/metrics` sums the blocks of all. So counters of several gateways add up, never go back when one dies,
and need no file per process. A block is one row for the gateway itself and one per release slot.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest

SLOTS = 256
CELL = 8


class Family(NamedTuple):
    """One metric: its name, kind, meaning, and the values of its own label or its histogram's upper bounds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    label: str = ""
    values: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def cells(self) -> int:
        """How many cells it takes."""
        if self.kind == "histogram":
            return len(self.bounds) + 2
        return len(self.values) or 1


STATUSES = ("200", "400", "404", "413", "415", "422", "429", "500", "503", "504", "other")
REASONS = ("overloaded", "poison-request", "not-ready", "draining", "deadline-exceeded", "worker-died", "other")
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 10000.0)

RELEASE: tuple[Family, ...] = (
    Family("salver_requests", "counter", "Answered prediction requests.", "status", STATUSES),
    Family("salver_refused", "counter", "Requests that got no prediction, by reason.", "reason", REASONS),
    Family("salver_rows", "counter", "Rows in answered requests."),
    Family("salver_row_errors", "counter", "Rows that failed within answered requests."),
    Family("salver_request_bytes", "counter", "Bytes of request bodies."),
    Family("salver_request_seconds", "histogram", "Time from a whole request to its answer.", bounds=SECONDS),
    Family("salver_batch_rows", "histogram", "Rows of each model call's batch.", bounds=SIZES),
    Family("salver_phase_seconds", "counter", "Worker time by phase.", "phase", ("decode", "predict", "encode")),
    Family("salver_abandoned", "counter", "Requests whose caller left before the answer."),
    Family("salver_waiting", "gauge", "Requests that wait or are in flight now."),
    Family("salver_workers_connected", "gauge", "Connections of gateways to proven workers now."),
)
GATEWAY: tuple[Family, ...] = (
    Family("salver_connections", "gauge", "Open client connections."),
    Family("salver_accepted_connections", "counter", "Client connections ever accepted."),
    Family("salver_malformed_requests", "counter", "Requests that could not be read or routed."),
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
    """One gateway's cells, mapped from a descriptor of `BLOCK_BYTES` bytes."""

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


def render(blocks: Sequence[Block], slots: Mapping[str, int]) -> bytes:
    """The Prometheus text of all blocks' sums; `slots` maps each release's name to its slot."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Sums(blocks, slots))
    return generate_latest(registry)


class _Sums:
    """A collector over the sums of several blocks."""

    def __init__(self, blocks: Sequence[Block], slots: Mapping[str, int]) -> None:
        self._blocks = blocks
        self._slots = slots

    def collect(self) -> Iterator[Metric]:
        for family in GATEWAY:
            yield self._metric(family, [({}, GATEWAY_AT[family.name])])
        for family in RELEASE:
            places = []
            for release, slot in sorted(self._slots.items()):
                labels = {"model": release.partition("@")[0], "release": release}
                places.append((labels, self._blocks[0].row(slot) + RELEASE_AT[family.name]))
            yield self._metric(family, places)

    def _metric(self, family: Family, places: Iterable[tuple[dict[str, str], int]]) -> Metric:
        metric = Metric(family.name, family.help, family.kind)
        for labels, at in places:
            if family.kind == "histogram":
                self._histogram(metric, family, labels, at)
                continue
            suffix = "_total" if family.kind == "counter" else ""
            if not family.values:
                metric.add_sample(family.name + suffix, labels, self._sum(at))
            for index, value in enumerate(family.values):
                metric.add_sample(family.name + suffix, {**labels, family.label: value}, self._sum(at + index))
        return metric

    def _histogram(self, metric: Metric, family: Family, labels: dict[str, str], at: int) -> None:
        total = 0.0
        for index, bound in enumerate((*family.bounds, float("inf"))):
            total += self._sum(at + index)
            edge = "+Inf" if bound == float("inf") else repr(bound)
            metric.add_sample(family.name + "_bucket", {**labels, "le": edge}, total)
        metric.add_sample(family.name + "_count", labels, total)
        metric.add_sample(family.name + "_sum", labels, self._sum(at + len(family.bounds) + 1))

    def _sum(self, cell: int) -> float:
        return sum(block.cells[cell] for block in self._blocks)
