"""From imported modules to exact pins: which distributions provide them, and what those require in turn."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import NamedTuple, cast

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement

from salver import lock
from salver.environments import constraints, resolve
from salver.environments.place import version
from salver.errors import error
from salver.lock import Lock, normalised

ALWAYS = ("numpy", "msgspec")
"""What the worker's own code needs beside the standard library."""
NEVER = "salver"
"""The worker's own code comes with the server, so that both always match."""


class Wishes(NamedTuple):
    """What a project says of its packages: a file of constraints, and packages that no import shows."""

    constraints: Path | None = None
    packages: tuple[str, ...] = ()


NO_WISHES = Wishes()


def lock_for(modules: Iterable[str], cache: Path, wishes: Wishes = NO_WISHES) -> Lock:
    """Pin every distribution that the modules (top-level or dotted names) need, transitively, at its installed version.

    Constraints may demand another version than the installed one, and packages may be added: then a resolver decides.
    Modules of the standard library need nothing. Raises `code-not-closed`, naming all, for modules that no installed
    distribution provides: those are the user's own code, which has to travel in the release. The lock's notes say what
    another machine may not find under the same pins: editable installs, packages from a URL, missing requirements.
    """
    owners = packages_distributions()
    wanted: set[str] = {normalised(name) for name in ALWAYS}
    unknown = []
    for module in sorted(set(modules)):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top == NEVER:
            continue
        names = providers(module, owners)
        wanted.update(names)
        if not names:
            unknown.append(f"{module} is neither in the standard library nor part of an installed package")
    if unknown:
        raise error(
            "code-not-closed",
            "not every module that the model imports can be pinned",
            hint="install it as a package, or let it travel as the model's own code",
            details=tuple(unknown),
        )
    notes: list[str] = []
    pins = _installed(wanted, notes)
    if wishes.constraints or wishes.packages:
        asked = {name: pins[name] for name in wanted & pins.keys()}
        known = resolve.resolve(asked, wishes.packages, wishes.constraints, map("==".join, pins.items()))
        pins = dict(pin.split("==") for pin in known)
        notes += constraints.ignored(wishes.constraints) if wishes.constraints else []
    else:
        known, note = resolve.hashes(map("==".join, pins.items()), cache)
        notes += [note] if note else []
    return lock.write(pins.items(), version(), sorted(notes), known)


def providers(module: str, owners: Mapping[str, list[str]]) -> set[str]:
    """The normalised names of the distributions that provide a module; empty if none does.

    `owners` is `importlib.metadata.packages_distributions()`. Where several share a top-level name (`google`), the
    files of each decide who holds the dotted module; a bare namespace means all of them.
    """
    parts = module.split(".")
    names = set(owners.get(parts[0], ()))
    while len(names) > 1 and len(parts) > 1:
        names = {name for name in names if _holds(name, "/".join(parts))} or names
        parts.pop()
    return {normalised(name) for name in names}


def _holds(name: str, start: str) -> bool:
    files = distribution(name).files or ()
    return any(str(file).startswith((f"{start}/", f"{start}.")) for file in files)


def _installed(wanted: Iterable[str], notes: list[str]) -> dict[str, str]:
    """The installed versions of these distributions and of all they require, as far as a pin can name them."""
    pins: dict[str, str] = {}
    for name, found in sorted(_closure(wanted, notes).items()):
        note, pinned = _origin(name, found)
        if note:
            notes.append(note)
        if pinned:
            pins[name] = found.version
    return pins


def _closure(wanted: Iterable[str], notes: list[str]) -> dict[str, Distribution]:
    """Every distribution reachable from `wanted` by requirements whose markers hold here; unmet ones become notes."""
    found: dict[str, Distribution] = {}
    queue: deque[tuple[str, str]] = deque((name, "") for name in sorted(wanted))
    seen = set(queue)
    while queue:
        name, extra = queue.popleft()
        dist = found[name] if name in found else distribution(name)
        found[name] = dist
        for requirement in _requirements(dist, extra):
            needed = normalised(requirement.name)
            if needed == NEVER:
                continue
            problem = _unmet(requirement)
            if problem:
                notes.append(f"{name} requires {requirement.name}{requirement.specifier}, which {problem}")
            if problem == _ABSENT:
                continue
            for item in ((needed, ""), *((needed, wanted_extra) for wanted_extra in sorted(requirement.extras))):
                if item not in seen:
                    seen.add(item)
                    queue.append(item)
    return found


_ABSENT = "is not installed"


def _unmet(requirement: Requirement) -> str:
    try:
        version = distribution(requirement.name).version
    except PackageNotFoundError:
        return _ABSENT
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"is installed as {version}"


def _requirements(dist: Distribution, extra: str) -> Iterator[Requirement]:
    """What a distribution requires here: without an extra, or what the extra adds."""
    environment: dict[str, str] = {**cast("dict[str, str]", default_environment()), "extra": extra}
    for line in dist.requires or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # metadata that its own installer could not have followed either
        if requirement.marker.evaluate(environment) if requirement.marker else not extra:
            yield requirement


def _origin(name: str, dist: Distribution) -> tuple[str, bool]:
    """What to say of where a distribution came from, and whether a pin can name it."""
    try:
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
    except ValueError:
        origin = {}
    if not isinstance(origin, dict) or not origin:
        return "", True
    if origin.get("dir_info", {}).get("editable"):
        return f"{name} is an editable install and can't be pinned: its code has to travel in the release", False
    if "vcs_info" in origin:
        return f"{name}=={dist.version} was installed from version control; a package index may not have it", True
    return f"{name}=={dist.version} was installed from a file or URL; a package index may not have it", True
