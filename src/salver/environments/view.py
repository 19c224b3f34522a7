"""Views: folders of links through which a process imports only some of the packages that are installed here.

A worker in the current environment sees exactly what its release locked and nothing else, without anything being
built; so a package that the lock forgot is missed when the release is made, not on another machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from importlib.util import cache_from_source
from pathlib import Path

import salver

RUNTIME = "salver"
LIGHT = (
    "errors.py", "memory.py", "limits.py", "signature.py", "release.py", "model.py", "record.py", "route.py", "lock.py",
    "plugins.py", "tables", "frames.py", "frameworks", "golden.py", "lookup", "protocols", "worker", "__init__.py",
)  # fmt: skip
"""What of Salver runs in a release's environment: the part below the light line of the architecture."""


def of_packages(names: Iterable[str], folder: Path) -> str:
    """Link the installed packages of these names into `folder`; returns the first that can't be told from others or ''.

    Such a package has no list of its files (RECORD), so that only the whole environment surely has it.
    """
    folder.mkdir(parents=True)
    for name in names:
        try:
            found = distribution(name)
        except PackageNotFoundError:
            return name
        files = _files(found)
        if not files:
            return name
        _link(Path(str(found.locate_file(""))), folder, files)
    return ""


def of_runtime(folder: Path) -> None:
    """Link the part of Salver that a worker needs into `folder`, with the entry points of its plugins."""
    package = folder / RUNTIME
    package.mkdir(parents=True)
    here = Path(str(salver.__file__)).parent
    for name in LIGHT:
        _symlink(here / name, package / name)
        _link_bytecode(here / name, package)
    own = distribution(RUNTIME)
    information = folder / f"{RUNTIME}-{own.version}.dist-info"
    information.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (information / name).write_text(own.read_text(name) or "", encoding="utf-8")


def _files(found: Distribution) -> list[tuple[str, ...]]:
    """The files of a distribution below its folder, as parts of their paths."""
    listed: Iterable[PackagePath] = found.files or ()
    return [file.parts for file in listed if file.parts[0] != ".." and not file.is_absolute()]


def _link(real: Path, view: Path, files: Iterable[tuple[str, ...]]) -> None:
    """Link the tops of these files; a namespace that several distributions share becomes a folder of its own."""
    tops: dict[str, list[tuple[str, ...]]] = {}
    for parts in files:
        tops.setdefault(parts[0], []).append(parts[1:])
    for top, rest in tops.items():
        source, target = real / top, view / top
        if top == "__pycache__":
            continue
        if _is_namespace(source):
            target.mkdir(exist_ok=True)
            _link(source, target, [parts for parts in rest if parts])
        else:
            _symlink(source, target)
            _link_bytecode(source, view)


def _is_namespace(source: Path) -> bool:
    plain = "." not in source.name and source.is_dir()
    return plain and not (source / "__init__.py").exists() and any(each.suffix != ".so" for each in source.iterdir())


def _link_bytecode(source: Path, view: Path) -> None:
    """A module that is one file keeps its compiled form beside it, in a folder that all such modules share."""
    if source.suffix == ".py":
        compiled = Path(cache_from_source(str(source)))
        if compiled.exists():
            (view / "__pycache__").mkdir(exist_ok=True)
            _symlink(compiled, view / "__pycache__" / compiled.name)


def _symlink(source: Path, target: Path) -> None:
    if not os.path.lexists(target):
        target.symlink_to(source)
