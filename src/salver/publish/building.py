"""Builds a whole release folder and proves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from salver import golden
from salver.errors import SalverError
from salver.packaging import assembly, reference
from salver.packaging.card import card
from salver.publish import trial
from salver.publish.request import ReleaseRequest
from salver.publish.staging import Staged, stage
from salver.publish.trial import Candidate, Trial
from salver.release import CARD, GOLDEN, LOCK, REFERENCE, Manifest

Check = Callable[[Staged], None]


class Built(Struct, frozen=True):
    """A finished, proven release folder and its manifest; `remarks` are for the person who publishes."""

    folder: Path
    manifest: Manifest
    remarks: tuple[str, ...]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.manifest.files)


def build(request: ReleaseRequest, folder: Path, check: Check | None = None) -> Built:
    """Build the release in the empty `folder`: stage it, ask it its golden rows, write them, and prove the result.

    Raises what the model or its parts can't fulfil; nothing is published here. `check` may refuse what is staged,
    before anything is proven.
    """
    staged = stage(request, folder)
    if check is not None:
        check(staged)
    assembly.write_manifest(folder, staged.manifest)
    candidate = Candidate(folder, staged.manifest, request.load_timeout, request.cache, request.proof)
    if not staged.requests:
        remark = "it has unsafe side effects, so it was not run: no golden rows, and nothing expected was checked"
        manifest = _finish(staged, None)
        trial.prove(replace(candidate, manifest=manifest), [], None)
        assembly.sweep(folder)
        return Built(folder, manifest, (*staged.remarks, remark))
    examples = [] if request.expected is None else staged.rows
    tried = trial.ask(candidate, staged.requests, examples)
    trial.require_same(tried, staged.own_answers, staged.manifest)
    if request.expected is not None:
        trial.require_expected(tried, staged.manifest, request.expected)
    manifest = _finish(staged, tried)
    try:
        trial.prove(replace(candidate, manifest=manifest), staged.requests, tried)
    except SalverError as problem:
        if problem.code != "golden-mismatch":
            raise
        assembly.write_manifest(folder, staged.manifest)
        tried = trial.ask_again(candidate, staged.requests, tried)
        manifest = _finish(staged, tried)
        trial.prove(replace(candidate, manifest=manifest), staged.requests, tried)
    assembly.sweep(folder)
    return Built(folder, manifest, (*staged.remarks, *tried.remarks))


def _finish(staged: Staged, tried: Trial | None) -> Manifest:
    """Write golden.jsonl, reference.json, card.md and the final manifest."""
    folder, manifest = staged.folder, staged.manifest
    if tried is not None:
        pairs = zip(staged.requests, tried.answers, strict=True)
        rows = [golden.Row(request, answer) for request, answer in pairs]
        (folder / GOLDEN).write_bytes(golden.dump(rows))
        manifest = replace(manifest, golden_rows=len(rows), determinism=tried.determinism, tolerances=tried.tolerances)
    (folder / REFERENCE).write_bytes(reference.profile(staged.columns, manifest.signature, staged.outputs))
    (folder / CARD).unlink(missing_ok=True)
    listed = replace(manifest, files=assembly.describe(folder))
    example = staged.requests[0] if staged.requests else None
    lock_text = (folder / LOCK).read_text(encoding="utf-8")
    (folder / CARD).write_text(card(listed, example=example, lock_text=lock_text), encoding="utf-8")
    manifest = replace(manifest, files=assembly.describe(folder))
    assembly.write_manifest(folder, manifest)
    return manifest
