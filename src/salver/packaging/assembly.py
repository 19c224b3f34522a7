"""Puts a manifest together from what a staged folder holds."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from salver.errors import error
from salver.release import CHUNK, MANIFEST, MAX_FILE, MAX_FILES, MAX_MANIFEST, File, Manifest, canonical

SOURCES = "src"
"""The folder that many projects keep their packages in."""
_SKIPPED = ("__pycache__",)


def describe(folder: Path) -> tuple[File, ...]:
    """Every file below `folder` with size and digests, sorted by path; the manifest itself is left out."""
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    if len(paths) > MAX_FILES:
        raise error("too-large", f"the release has {len(paths)} files, the limit is {MAX_FILES}")
    files = []
    for path in paths:
        relative = path.relative_to(folder).as_posix()
        if relative == MANIFEST or any(part in _SKIPPED for part in path.parts):
            continue
        if path.is_symlink() or not path.is_file():
            raise error("unsupported-model", f"{relative} is not a plain file", hint="a release holds plain files only")
        files.append(_describe(path, relative))
    return tuple(sorted(files, key=lambda file: file.path))


def write_manifest(folder: Path, manifest: Manifest) -> bytes:
    """Write release.json in its canonical spelling and return it; raises `too-large` beyond the limit."""
    data = canonical(manifest)
    if len(data) > MAX_MANIFEST:
        raise error(
            "too-large",
            f"the manifest is {len(data)} bytes, the limit is {MAX_MANIFEST}",
            hint="fewer files or fewer categories make it smaller",
        )
    (folder / MANIFEST).write_bytes(data)
    return data


def sweep(folder: Path) -> None:
    """Remove the bytecode that workers left beside the release's code."""
    for cache in sorted(folder.rglob("__pycache__")):
        shutil.rmtree(cache)


def copy_files(source: Path, target: Path) -> None:
    """Copy a file, or what a folder holds, below `target`; links are followed, caches left out."""
    if not source.exists():
        raise error("missing-file", f"{source} does not exist", hint="files= names a file or a folder")
    target.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, target / source.name)
    else:
        ignore = shutil.ignore_patterns(*_SKIPPED, "*.pyc", ".git", ".DS_Store")
        shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True, copy_function=shutil.copyfile)


def copy_included(root: Path, patterns: Sequence[str], target: Path, modules: Iterable[str]) -> None:
    """Copy what the patterns match below `root` to the same places below `target`, beside the modules there.

    Where a project has its packages in `src`, so that no module's path starts with that, it is left out of the path.
    """
    sources = root / SOURCES
    flat = any(path.startswith(f"{SOURCES}/") for path in modules)
    for pattern in patterns:
        for path in _matched(root, pattern):
            inside = path.is_relative_to(sources) and not flat
            place = target / path.relative_to(sources if inside else root)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _matched(root: Path, pattern: str) -> list[Path]:
    """The files that a pattern names; raises `bad-settings` where one of them is, or may be, outside of `root`."""
    try:
        leaves = ".." in Path(pattern).parts
        matched = [] if leaves else [path for path in sorted(root.glob(pattern)) if path.is_file()]
        leaves = leaves or any(not path.resolve().is_relative_to(root.resolve()) for path in matched)
    except NotImplementedError:  # what pathlib raises for an absolute pattern
        leaves, matched = True, []
    except ValueError as problem:
        raise error("bad-settings", f"include: {pattern!r} is no pattern: {problem}") from None
    if leaves:
        raise error(
            "bad-settings",
            f"include: {pattern!r} leaves the project folder {root}",
            hint="include takes what lies in the project, not what links lead out to; files= takes any path",
        )
    if not matched:
        raise error("missing-file", f"include: nothing matches {pattern!r} in {root}")
    return matched


def _describe(path: Path, relative: str) -> File:
    whole, chunks, size = hashlib.sha256(), [], 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            whole.update(piece)
            chunks.append(hashlib.sha256(piece).hexdigest())
            size += len(piece)
    if size > MAX_FILE:
        raise error("too-large", f"{relative} is {size} bytes, the limit is {MAX_FILE}")
    return File(relative, size, whole.hexdigest(), tuple(chunks) if len(chunks) > 1 else ())
