"""What a server tells of its requests, as a test reads it: the access log, the spans of a collector, metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.server import Server

PATIENCE = 60.0
Found = TypeVar("Found")


def comes(find: Callable[[], Found]) -> Found:
    """What is found, once it is more than nothing."""
    ends = time.monotonic() + PATIENCE
    while not (found := find()):
        assert time.monotonic() < ends
        time.sleep(0.02)
    return found


class Watched:
    """A server that writes an access log and sends its traces to a collector."""

    def __init__(self, server: Server, lines: Path, spans: Path) -> None:
        self.server = server
        self.path = lines
        self._spans = spans

    def line(self, **wanted: Any) -> dict[str, Any]:
        """The first line of the access log with these values."""
        return comes(lambda: next((line for line in self.lines() if wanted.items() <= line.items()), {}))

    def lines(self) -> list[dict[str, Any]]:
        """The access log so far."""
        return [json.loads(line) for line in self.path.read_text().splitlines() if self.path.exists()]

    def spans(self, trace: str) -> dict[str, dict[str, Any]]:
        """The spans of a trace that the collector has got so far, by name."""
        found = [json.loads(line) for line in self._spans.read_text().splitlines() if line.startswith("{")]
        return {span["name"]: span for span in found if span["traceId"] == trace}

    def sample(self, name: str, **labels: str) -> float:
        """The value of one sample of the metrics, of all that have these labels."""
        return sample(self.server, name, **labels)


def sample(server: Server, name: str, **labels: str) -> float:
    text = server.get("/metrics", port=server.admin_port).body.decode()
    families = text_string_to_metric_families(text)
    values = [s.value for f in families for s in f.samples if s.name == name and labels.items() <= s.labels.items()]
    assert values, (name, labels)
    return sum(values)
