"""The text that Prometheus reads: the sums of all blocks of metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest

from salver import metrics


def render(blocks: Sequence[metrics.Block], slots: Mapping[str, int]) -> bytes:
    """The Prometheus text of all blocks' sums; `slots` maps each release's name to its slot."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Sums(blocks, slots))
    return generate_latest(registry)


class _Sums:
    """A collector over the sums of several blocks."""

    def __init__(self, blocks: Sequence[metrics.Block], slots: Mapping[str, int]) -> None:
        self._blocks = blocks
        self._slots = slots

    def collect(self) -> Iterator[Metric]:
        for family in metrics.GATEWAY:
            yield self._metric(family, [({}, metrics.GATEWAY_AT[family.name])])
        for family in metrics.RELEASE:
            places = []
            for release, slot in sorted(self._slots.items()):
                labels = {"model": release.partition("@")[0], "release": release}
                places.append((labels, self._blocks[0].row(slot) + metrics.RELEASE_AT[family.name]))
            yield self._metric(family, places)

    def _metric(self, family: metrics.Family, places: Iterable[tuple[dict[str, str], int]]) -> Metric:
        metric = Metric(family.name, family.help, family.kind)
        suffix = "_total" if family.kind == "counter" else ""
        for labels, at in places:
            for index, value in enumerate(family.values or ("",)):
                own = {**labels, family.label: value} if family.label else labels
                cell = at + index * family.width
                if family.kind == "histogram":
                    self._histogram(metric, family, own, cell)
                else:
                    metric.add_sample(family.name + suffix, own, self._sum(cell))
        return metric

    def _histogram(self, metric: Metric, family: metrics.Family, labels: dict[str, str], at: int) -> None:
        total = 0.0
        for index, bound in enumerate((*family.bounds, float("inf"))):
            total += self._sum(at + index)
            edge = "+Inf" if bound == float("inf") else repr(bound)
            metric.add_sample(family.name + "_bucket", {**labels, "le": edge}, total)
        metric.add_sample(family.name + "_count", labels, total)
        metric.add_sample(family.name + "_sum", labels, self._sum(at + len(family.bounds) + 1))

    def _sum(self, cell: int) -> float:
        return sum(block.cells[cell] for block in self._blocks)
