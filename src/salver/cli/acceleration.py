"""What the verbs that accelerate share: rows from examples, evidence into the registry, the table on the screen."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from salver.accelerate import EVIDENCE, Accelerated, Source, accelerate
from salver.cli.terminal import heading, note, print_json, print_line, print_table
from salver.errors import SalverError
from salver.publish.building import Built
from salver.publish.infer import to_rows
from salver.publish.request import ReleaseRequest
from salver.record import Release
from salver.registry import Registry

SPEED = "acceleration-speed.json"
SHOWN = 10


class Remade:
    """Remakes a proven release as an accelerated one, compared on all its examples; `done` says how it went."""

    def __init__(self, request: ReleaseRequest) -> None:
        self._request = request
        self.done: Accelerated | None = None

    def __call__(self, built: Built, folder: Path) -> Built:
        """Build the accelerated release in `folder`."""
        rows = to_rows(self._request.examples, built.manifest.signature.inputs)
        timeout, cache = self._request.load_timeout, self._request.cache
        self.done = accelerate(Source(built.folder, built.manifest, {"examples": rows}, timeout, cache), folder)
        return Built(folder, self.done.manifest, built.remarks)


def keep(store: Registry, release: Release, done: Accelerated) -> None:
    """Keep the measured speed beside the release, which it is no part of: it depends on the machine."""
    speed = [{"rows": rows, "before_ns": before, "after_ns": after} for rows, before, after in done.speed]
    with contextlib.suppress(SalverError):  # measured before, on the same release
        store.put_evidence(release.model, release.id, SPEED, msgspec.json.encode(speed))


def report(original: str, name: str, done: Accelerated, *, as_json: bool) -> None:
    """Print what was compared, what was faster, and what to do next."""
    evidence = done.evidence
    if as_json:
        facts: dict[str, Any] = {"original": original, "release": name, "evidence": evidence, "speed": done.speed}
        print_json(facts)
        return
    print_line(f"[bold]{name}[/bold] is {original} as an ONNX graph, and answers the same")
    if evidence.kept:
        note(f"no converter has these steps, which stay in scikit-learn: {', '.join(evidence.kept)}")
    heading("compared")
    rows = [(c.rows, c.count, c.equal, c.close, c.boundary, c.refused) for c in evidence.compared]
    print_table(("ROWS", "#COUNT", "#SAME BITS", "#SAME WITHIN", "#AT A BOUNDARY", "#REFUSED BEFORE"), rows, indent=2)
    for output, rule in evidence.tolerances.items():
        largest = evidence.largest.get(output, 0.0)
        note(f"{output}: within {rule.rtol:g} of the value (or {rule.atol:g}); the largest difference is {largest:g}")
    if evidence.differences:
        note(f"{len(evidence.differences) + evidence.unlisted} rows answer otherwise at a boundary: see {EVIDENCE}")
    heading("CPU time of a request in a worker")
    times = [
        (f"{rows:,}", f"{before / 1e6:.2f} ms", f"{after / 1e6:.2f} ms", f"{before / after:.1f} ×")
        for rows, before, after in done.speed
    ]
    print_table(("#ROWS", "#BEFORE", "#AFTER", "#FASTER"), times, indent=2)
