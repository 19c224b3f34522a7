"""Whether the locks in requirements/ still say what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
INDEX = re.compile(r"^\s*--?(?:extra-)?index[-]url|--emit[-]index|^\s*-i\s|^\s*--find-links", re.MULTILINE)


def wanted(pyproject: str, extras: set[str] | None = None) -> list[Requirement]:
    """What the package and its extras (all, unless some are named) ask for, other than each other."""
    project = tomllib.loads(pyproject)["project"]
    asked = list(project["dependencies"])
    for extra, needs in project["optional-dependencies"].items():
        if extras is None or extra in extras:
            asked += needs
    return [need for text in asked if (need := Requirement(text)).name != project["name"]]


def pins(lock: str) -> dict[str, set[str]]:
    """The versions that a lock gives each package; several where they depend on the machine."""
    found: dict[str, set[str]] = {}
    for name, version in PIN.findall(lock):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


def check(path: str, lock: str, needs: list[Requirement]) -> Iterator[str]:
    """Whatever is asked for and not pinned to a fitting version, pinned without a hash, or names an index."""
    versions = pins(lock)
    for need in needs:
        found = versions.get(canonicalize_name(need.name), set())
        if not found or not all(need.specifier.contains(version) for version in found):
            yield f"{path}: {need} is asked for, {' and '.join(sorted(found)) or 'nothing'} is pinned: make lock"
    for entry in re.split(r"\n(?=\S)", lock):
        if (pin := PIN.match(entry)) and "--hash=sha256:" not in entry:
            yield f"{path}: {pin[1]} has no hash"
    if index := INDEX.search(lock):
        yield f"{path}: a lock names no package index: {index.group().strip()!r}"
