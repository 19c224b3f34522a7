"""Locks with hashes: what the index says of pinned packages, and what a project's own constraints make of them."""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from salver.environments import uv
from salver.environments.place import version
from salver.errors import SalverError, error
from salver.lock import normalised

HASHES = "hashes.json"
Hashes = dict[str, tuple[str, ...]]
"""By `name==version`: the sha256 of each of its files."""
_PINNED = re.compile(r"([^\s=;]+==[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_COMPILE = ("pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate", "--no-strip-extras")


def hashes(pins: Iterable[str], cache: Path) -> tuple[Hashes, str]:
    """The hashes of `name==version` pins as far as they can be had, and why some have none ('' where all have).

    What was looked up once is kept: the same packages give the same lock, also without a network.
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

    `wanted` are those that the model imports, with their installed versions: these only a constraint on themselves can
    move. `packages` are requirements beside them.
    `constraints` is a requirements.txt, pyproject.toml or uv.lock. Raises `environment-failed` with the resolver's
    explanation where there is no such set, `bad-settings` for a file that says nothing of the kind.
    """
    what = "the release's packages can't be resolved" + (f" under {constraints.name}" if constraints else "")
    with tempfile.TemporaryDirectory(prefix="salver-") as folder:
        asked, limits, answer = (Path(folder) / name for name in ("asked.in", "limits.txt", "answer.txt"))
        limits.write_text(_limits(constraints) if constraints else "")
        asked.write_text("\n".join(sorted((*packages, *_asked(wanted, limits.read_text())))))
        answer.write_text("\n".join(sorted(installed)))  # what stands there already is preferred
        command = [*_COMPILE, "--python-version", version(), "-c", str(limits), str(asked), "-o", str(answer)]
        try:
            uv.run(
                command, what=what, hint="the constraints or the packages ask for what no index has, or not together"
            )
        except uv.Offline as problem:
            hint = "resolving needs a package index: connect, or release without constraints and packages"
            raise uv.failed(what, problem.args, hint) from None
        return compiled(answer.read_text())


def compiled(text: str) -> Hashes:
    """The pins of a compiled requirements file with their hashes: () where the place they come from gives none."""
    found: Hashes = {}
    for entry in re.split(r"(?m)^(?=[^\s#-])", text):
        match = _PINNED.match(entry)
        if match:
            found[match[1]] = tuple(sorted(set(_HASH.findall(entry))))
    return found


def _asked(wanted: Mapping[str, str], limits: str) -> list[str]:
    """What the model imports: in any version where the constraints speak of it, else in the installed one."""
    named = {normalised(match[0]) for match in re.finditer(r"(?m)^[A-Za-z0-9._-]+", limits)}
    return [name if name in named else f"{name}=={version}" for name, version in wanted.items()]


def _limits(path: Path) -> str:
    """The constraints that a project's file states, as lines of requirements."""
    if path.name == "uv.lock":
        command = ["export", "--frozen", "--no-emit-project", "--no-hashes", "--no-header", "--no-annotate", "--quiet"]
        return uv.run([*command, "--project", str(path.parent)], what=f"{path} can't be read")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".toml":
            return text
        listed = tomllib.loads(text).get("project", {}).get("dependencies", [])
        requirements = [Requirement(line) for line in listed]
    except (OSError, ValueError, InvalidRequirement) as problem:
        raise error("bad-settings", f"{path} can't be read as constraints: {problem}") from None
    return "\n".join(_constraint(each) for each in requirements)


def _constraint(requirement: Requirement) -> str:
    """A requirement without its extras, which a constraint can't have."""
    requirement.extras = set()
    return str(requirement)


def _look_up(pins: list[str]) -> Hashes:
    """The hashes that the index has; a pin that it doesn't know is found by halving, and left out."""
    command = [*_COMPILE, "--no-deps", "--python-version", version(), "-"]
    try:
        return compiled(uv.run(command, what="hashes", stdin="\n".join(pins), patient=False))
    except SalverError:
        if len(pins) == 1:
            return {}
        half = len(pins) // 2
        return _look_up(pins[:half]) | _look_up(pins[half:])


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
