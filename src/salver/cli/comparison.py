"""What differs between two releases, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct, structs

from salver import golden, lock
from salver.frameworks import pickled
from salver.release import GOLDEN, LOCK, Manifest
from salver.signature import Change, explain_break

_FACTS = ("framework", "entry", "python", "determinism", "side_effects", "unsafe")


class Contents(NamedTuple):
    """A release as far as two are compared: its manifest, the text of its lock, its golden rows."""

    manifest: Manifest
    lock: str
    golden: Sequence[golden.Row]


class Changed(Struct, frozen=True):
    """One thing that has another value; an empty side means it is absent there."""

    name: str
    old: str
    new: str


class GoldenChanges(Struct, frozen=True):
    """Golden rows that ask the same in both releases, how many answers differ, and examples of what differs."""

    shared: int
    differ: int
    examples: list[str]


class GlobalChanges(Struct, frozen=True):
    """What the pickle of the new release may name and that of the old may not, and the other way round."""

    added: list[str]
    dropped: list[str]


class Comparison(Struct, frozen=True):
    """Everything that differs between two releases."""

    old: str
    new: str
    same: bool
    signature: list[Change]
    facts: list[Changed]
    files: list[Changed]
    packages: list[Changed]
    golden: GoldenChanges
    globals: GlobalChanges


def read_contents(folder: Path, manifest: Manifest) -> Contents:
    """Read from a release's folder what a comparison needs."""
    rows = golden.read(folder / GOLDEN) if manifest.golden_rows else []
    return Contents(manifest, (folder / LOCK).read_text("utf-8"), rows)


def compare(names: tuple[str, str], old: Contents, new: Contents) -> Comparison:
    """Compare two releases; `names` are theirs, in the same order."""
    signature = explain_break(old.manifest.signature, new.manifest.signature)
    facts = _changed(_facts(old.manifest), _facts(new.manifest))
    files = _changed(_files(old.manifest), _files(new.manifest))
    packages = _changed(lock.pins(old.lock), lock.pins(new.lock))
    answers = _golden(old, new)
    named = _globals(old.manifest, new.manifest)
    same = not (signature or facts or files or packages or answers.differ or named.added or named.dropped)
    return Comparison(names[0], names[1], same, signature, facts, files, packages, answers, named)


def _globals(old: Manifest, new: Manifest) -> GlobalChanges:
    before, after = (set(pickled.listed(manifest.options)) for manifest in (old, new))
    return GlobalChanges(sorted(after - before), sorted(before - after))


def _facts(manifest: Manifest) -> dict[str, str]:
    """What a release says of itself, by name; each option and each setting of serving is a fact of its own."""
    values = {name: getattr(manifest, name) for name in _FACTS}
    options = {name: value for name, value in manifest.options.items() if name != pickled.OPTION}
    for table, content in (("options", options), ("serving", structs.asdict(manifest.serving))):
        values |= {f"{table}.{name}": value for name, value in content.items() if value is not None}
    return {name: str(value) for name, value in values.items() if value not in ("", {}, ())}


def _files(manifest: Manifest) -> dict[str, str]:
    return {file.path: f"{file.size:,} bytes, {file.sha256[:12]}" for file in manifest.files}


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> list[Changed]:
    names = [*old, *(name for name in new if name not in old)]
    return [Changed(name, old.get(name, ""), new.get(name, "")) for name in names if old.get(name) != new.get(name)]


def _golden(old: Contents, new: Contents) -> GoldenChanges:
    """Compare the answers to requests that both releases have; private outputs are told apart but not shown."""
    answers = {_key(row.request): row.answer for row in new.golden}
    shared = [row for row in old.golden if _key(row.request) in answers]
    private = frozenset(
        field.name for manifest in (old.manifest, new.manifest) for field in manifest.signature.outputs if field.private
    )
    found = golden.differences(
        [answers[_key(row.request)] for row in shared], [row.answer for row in shared], golden.Rule(private=private)
    )
    rows = {problem.partition(",")[0].partition(":")[0] for problem in found}
    return GoldenChanges(len(shared), len(rows), found[:5])


def _key(request: Any) -> str:
    return str(sorted(request.items())) if isinstance(request, dict) else str(request)
