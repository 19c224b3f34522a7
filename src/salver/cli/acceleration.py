"""What the verbs that accelerate share, and `show`: rows from examples, evidence in the registry, tables on screen."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.markup import escape

from salver.accelerate import EVIDENCE, Accelerated, Evidence, Source, Speed, accelerate, require_possible
from salver.cli.terminal import heading, note, print_facts, print_line, print_table
from salver.environments.closure import Wishes
from salver.errors import SalverError
from salver.publish.building import Built
from salver.publish.infer import to_rows
from salver.publish.request import ReleaseRequest
from salver.publish.staging import Staged
from salver.record import Release
from salver.registry import Registry
from salver.release import Manifest

SPEED = "acceleration-speed.json"
MADE = ("golden", "edges", "splits")
"""Sets of rows that are compared in any case."""


class Acceleration(Struct, frozen=True):
    """How a release was accelerated: from which ('' where that wasn't published), what was compared, what it gained."""

    original: str
    evidence: Evidence
    speed: list[Speed]


class Remade:
    """Remakes a proven release as an accelerated one, compared on all its examples; `done` says how it went."""

    def __init__(self, request: ReleaseRequest) -> None:
        self._request = request
        self.done: Accelerated | None = None

    def check(self, staged: Staged) -> None:
        """Raise what forbids it, before the release is proven."""
        require_possible(self._source(staged.folder, staged.manifest))

    def remake(self, built: Built, folder: Path) -> Built:
        """Build the accelerated release in `folder`."""
        source = self._source(built.folder, built.manifest)
        rows = to_rows(self._request.examples, built.manifest.signature.inputs)
        self.done = accelerate(msgspec.structs.replace(source, rows={"examples": rows}), folder)
        return Built(folder, self.done.manifest, built.remarks)

    def _source(self, folder: Path, manifest: Manifest) -> Source:
        request = self._request
        wishes = Wishes(Path(request.constraints) if request.constraints else None, request.packages)
        return Source(folder, manifest, load_timeout=request.load_timeout, cache=request.cache, wishes=wishes)


def keep(store: Registry, release: Release, done: Accelerated) -> None:
    """Keep the measured speed beside the release, which it is no part of: it depends on the machine."""
    with contextlib.suppress(SalverError):  # measured before, on the same release
        store.put_evidence(release.model, release.id, SPEED, msgspec.json.encode(done.speed))


def read(store: Registry, release: Release, manifest: Manifest) -> Acceleration | None:
    """How a release was accelerated, from its files and what was kept beside it; None where it wasn't."""
    file = next((file for file in manifest.files if file.path == EVIDENCE), None)
    if file is None:
        return None
    evidence = msgspec.json.decode(b"".join(store.stream(release, file)), type=Evidence)
    original = next((each.name for each in store.releases(release.model) if each.id == evidence.original), "")
    kept = store.evidence(release.model, release.id).get(SPEED)
    return Acceleration(original, evidence, msgspec.json.decode(kept, type=list[Speed]) if kept else [])


def report(name: str, found: Acceleration) -> None:
    """Print what was compared, what was faster, and what was left out."""
    original = found.original or "the model"
    print_line(f"[bold]{escape(name)}[/bold] is {escape(original)} as an ONNX graph, and answers the same")
    print_acceleration("compared", found)
    invalid = sum(each.invalid for each in found.evidence.compared if each.rows not in MADE)
    if invalid:
        note(f"{invalid} rows are no valid requests of the model, and were not compared")
    if {each.rows for each in found.evidence.compared} <= set(MADE):
        note("compared on golden rows and made ones alone; --rows FILE adds rows of yours")


def print_acceleration(title: str, found: Acceleration) -> None:
    """Print what was compared under a heading, and the measured times."""
    evidence = found.evidence
    heading(title)
    rows = [(c.rows, c.count, c.equal, c.close, c.boundary, c.refused) for c in evidence.compared]
    print_table(("ROWS", "#COUNT", "#SAME BITS", "#SAME WITHIN", "#AT A BOUNDARY", "#REFUSED BEFORE"), rows, indent=2)
    facts = [(name, _agreement(evidence, name)) for name in evidence.tolerances]
    if evidence.differences:
        count = len(evidence.differences) + evidence.unlisted
        facts.append(("answered otherwise", f"{count} rows at a boundary or refused before: see {EVIDENCE}"))
    facts.append(("stay in scikit-learn", ", ".join(evidence.kept)))
    facts.append(("converted with", ", ".join(" ".join(pair) for pair in evidence.converter.items())))
    print_facts(facts, indent=2)
    if found.speed:
        heading("CPU time of a request in a worker")
        print_table(("#ROWS", "#BEFORE", "#AFTER", "#FASTER"), map(_times, found.speed), indent=2)


def _agreement(evidence: Evidence, name: str) -> str:
    rule, largest = evidence.tolerances[name], evidence.largest.get(name, 0.0)
    return f"within {rule.rtol:g} of the value + {rule.atol:g}; the largest difference is {largest:g}"


def _times(each: Speed) -> tuple[str, ...]:
    before, after = (f"{taken / 1e6:.2f} ms" for taken in (each.before_ns, each.after_ns))
    return f"{each.rows:,}", before, after, f"{each.before_ns / each.after_ns:.1f} ×"
