"""Locks with hashes: what the index says of pinned packages, and what a project's own constraints make of them."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from salver.environments import constraints as project
from salver.environments import uv
from salver.environments.place import version
from salver.errors import SalverError, error
from salver.lock import normalised

HASHES = "hashes.json"
Hashes = dict[str, tuple[str, ...]]
"""By `name==version`: the sha256 of each of its files."""
_PINNED = re.compile(r"([^\s=;]+==[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_COMPILE = ("pip", "compile", "--generate-hashes", "--no-header", "--no-annotate", "--strip-extras")
_PUBLISH = "publish it as a wheel to a package index that servers reach, and name it by its version"


def hashes(pins: Iterable[str], cache: Path) -> tuple[Hashes, str]:
    """The hashes of `name==version` pins as far as they can be had, and why some have none ('' where all have).

    What was looked up once is kept: the same packages give the same lock, also without a network. Raises
    `environment-failed` for a version that the index calls yanked.
    """
    wanted = sorted(pins)
    known = _recall(cache)
    missing = [pin for pin in wanted if pin not in known]
    why = "the package index doesn't have them"
    if missing:
        try:
            found = _look_up(missing)
        except uv.Offline:
            found, why = {}, "no package index answered"
        if found:
            known.update({pin: hashed for pin, hashed in found.items() if hashed})
            _remember(cache, known)
    without = [pin for pin in wanted if pin not in known]
    which = "" if without == wanted else f" for {', '.join(without)}"
    note = f"the lock has no hashes{which}: {why}" if without else ""
    return {pin: known[pin] for pin in wanted if pin in known}, note


def resolve(
    wanted: Mapping[str, str], packages: Iterable[str], constraints: Path | None, installed: Iterable[str]
) -> Hashes:
    """Exact packages, with hashes, for these requirements: as `installed` wherever the project's constraints let them.

    `wanted` are those that the model imports, with their installed versions: these only what is said of
    themselves can move. `packages` are requirements beside them, with extras if need be.
    `constraints` is a requirements.txt, pyproject.toml or uv.lock. Raises `environment-failed` with the resolver's
    explanation where there is no such set, or where something in it has no version of an index or a yanked one;
    `bad-settings` for a file that says nothing of the kind, or packages that aren't named.
    """
    packages = tuple(packages)
    _require_named(packages)
    what = "the release's packages can't be resolved" + (f" under {constraints.name}" if constraints else "")
    with tempfile.TemporaryDirectory(prefix="salver-") as folder:
        asked, limits, answer = (Path(folder) / name for name in ("asked.in", "limits.txt", "answer.txt"))
        limits.write_text(project.read(constraints) if constraints else "")
        needed = {*wanted, *(normalised(Requirement(package).name) for package in packages)}
        addresses = project.addressed(limits.read_text())
        _require_versions([line for name, line in addresses if name in needed], what)  # before they are fetched
        said = "\n".join((limits.read_text(), *packages))
        asked.write_text("\n".join(sorted((*packages, *_asked(wanted, said)))))
        answer.write_text("\n".join(sorted(installed)))  # what stands there already is preferred
        command = [*_COMPILE, "--python-version", version(), "-c", str(limits), str(asked), "-o", str(answer)]
        try:
            hint = "the constraints or the packages ask for what no index has, or not together"
            _refuse_yanked(uv.run(command, what=what, hint=hint))
        except uv.Offline as problem:
            hint = "resolving needs a package index: connect, or release without constraints and packages"
            raise uv.failed(what, problem.args, hint) from None
        entries = re.findall(r"(?m)^[^\s#-].*", answer.read_text())
        _require_versions([line.rstrip(" \\") for line in entries if not _PINNED.match(line)], what)
        return compiled(answer.read_text())


def compiled(text: str) -> Hashes:
    """The pins of a compiled requirements file with their hashes: () where the place they come from gives none."""
    found: Hashes = {}
    for entry in re.split(r"(?m)^(?=[^\s#-])", text):
        match = _PINNED.match(entry)
        if match:
            found[match[1]] = tuple(sorted(set(_HASH.findall(entry))))
    return found


def _asked(wanted: Mapping[str, str], said: str) -> list[str]:
    """What the model imports: in any version where constraints or packages speak of it, else in the installed one."""
    named = {normalised(match[0]) for match in re.finditer(r"(?m)^[A-Za-z0-9._-]+", said)}
    return [name if name in named else f"{name}=={version}" for name, version in wanted.items()]


def _require_named(packages: Iterable[str]) -> None:
    """Raise `bad-settings`, naming all, for packages that aren't requirements on versions of an index."""
    problems = []
    for package in packages:
        try:
            url = Requirement(package).url
        except InvalidRequirement:
            problems.append(f'{package!r} is no requirement, as "pandas[parquet]>=2" is one')
        else:
            problems += [f"{package!r} comes from an address, where its content may change; {_PUBLISH}"] if url else []
    if problems:
        raise error(
            "bad-settings",
            "packages: a lock can't name " + ("this one" if len(problems) == 1 else "these"),
            hint="a release locks exact versions that a package index has",
            details=tuple(problems),
        )


def _require_versions(found: Sequence[str], what: str) -> None:
    """Raise `environment-failed`, naming all, for what constraints take from an address."""
    if found:
        raise uv.failed(f"{what}: a lock names versions that a package index has, and this is none", found, _PUBLISH)


def _refuse_yanked(done: uv.Done) -> None:
    """Raise `environment-failed` for versions that their publishers have withdrawn: a new release begins without."""
    if done.yanked:
        names = ", ".join(each.partition(" ")[0] for each in done.yanked)
        hint = "install another version (or ask for one, where you pinned it), train again and release that"
        what = f"the release can't be locked: {names} was withdrawn (yanked) from the package index"
        raise uv.failed(what, done.yanked, hint)


def _look_up(pins: list[str]) -> Hashes:
    """The hashes that the index has; a pin that it doesn't know is found by halving, and left out."""
    command = [*_COMPILE, "--no-deps", "--python-version", version(), "-"]
    try:
        done = uv.run(command, what="hashes", stdin="\n".join(pins), patient=False)
    except SalverError:
        if len(pins) == 1:
            return {}
        half = len(pins) // 2
        return _look_up(pins[:half]) | _look_up(pins[half:])
    _refuse_yanked(done)
    return compiled(done.out)


def _recall(cache: Path) -> Hashes:
    try:
        kept: dict[str, Any] = json.loads((cache / HASHES).read_text())
        return {pin: tuple(known) for pin, known in kept.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _remember(cache: Path, known: Mapping[str, tuple[str, ...]]) -> None:
    """Write the hashes down, whole; where that fails they are looked up again next time."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache, prefix=f".{HASHES}-", delete=False) as file:
            json.dump(known, file, sort_keys=True)
        os.replace(file.name, cache / HASHES)
    except OSError:
        return
