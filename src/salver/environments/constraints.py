"""What a project's own files say of versions (requirements.txt, pyproject.toml, uv.lock), as lines of constraints."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from salver.environments import uv
from salver.errors import SalverError, error

_CONTINUES = re.compile(r"[ \t]*\\\r?\n[ \t]*")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_INCLUDE = re.compile(r"(?:-[rc]\s*|--(?:requirement|constraint)[\s=]+)(\S.*)")
_LINKS = re.compile(r"(?:-f\s*|--find-links[\s=]+)(\S.*)")
_EDITABLE = re.compile(r"(?:-e|--editable)\b.*")
_UNNAMED = re.compile(r"[./~].*|\S+://.*|\S+\.(?:whl|zip|tar\.gz)\b.*|\S*/.*")
_EXPORT = (
    "export", "--frozen", "--no-emit-project", "--no-hashes", "--no-header", "--no-annotate", "--quiet",
)  # fmt: skip
_NOTHING = "nothing is listed in [project], [dependency-groups] or [tool.uv] constraint-dependencies"


def read(path: Path) -> str:
    """The constraints that a file states, a line each; raises `bad-settings` for one that states none.

    Of a requirements.txt that is each line, those of the files it includes too; of a pyproject.toml all that [project],
    [dependency-groups] and [tool.uv] list in the standard notation; of a uv.lock what uv would install.
    """
    try:
        if path.name == "uv.lock":
            command = [*_EXPORT, "--project", str(path.parent)]
            lines = list(_lines(uv.run(command, what=f"{path} can't be read").out, path, set()))
        elif path.suffix == ".toml":
            lines = _project(path)
        else:
            lines = list(_requirements(path, set()))
    except (OSError, ValueError, AttributeError, TypeError) as problem:
        raise error("bad-settings", f"{path} can't be read as constraints: {problem}") from None
    if all(line.startswith("-") for line in lines):
        raise _empty(path, "it has no line that names a package")
    return "\n".join(lines)


def _project(path: Path) -> list[str]:
    """Every requirement that a pyproject.toml lists, without extras, which a constraint can't have."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    project, groups = tables.get("project", {}), tables.get("dependency-groups", {})
    own: dict[str, Any] = tables.get("tool", {})
    listed = [project.get("dependencies", []), *project.get("optional-dependencies", {}).values(), *groups.values()]
    listed += [own.get("uv", {}).get(key, []) for key in ("constraint-dependencies", "dev-dependencies")]
    # a table in a group includes another group, which is read anyway
    requirements = [_parsed(line, path) for each in listed for line in each if not isinstance(line, dict)]
    if not requirements:
        hint = "export what Poetry locked: poetry export -o requirements.txt" if "poetry" in own else ""
        raise _empty(path, _NOTHING, hint)
    for requirement in requirements:
        requirement.extras = set()
    return sorted({str(requirement) for requirement in requirements})


def _requirements(path: Path, seen: set[Path]) -> Iterator[str]:
    """The lines of a requirements file and of those that it includes, each file once."""
    if path.resolve() not in seen:
        seen.add(path.resolve())
        yield from _lines(path.read_text(encoding="utf-8-sig"), path, seen)


def _lines(text: str, path: Path, seen: set[Path]) -> Iterator[str]:
    """The lines that are of use elsewhere: paths are made absolute, what has no name or is edited in place is left."""
    for raw in _CONTINUES.sub(" ", text).splitlines():
        line = _COMMENT.sub("", raw).strip()
        included, links = _INCLUDE.fullmatch(line), _LINKS.fullmatch(line)
        if included and "://" not in included[1]:
            yield from _requirements(path.parent / included[1].strip("'\""), seen)
        elif links and "://" not in links[1]:
            yield f"--find-links {(path.parent / links[1]).resolve()}"
        elif line.startswith("-") and not _EDITABLE.fullmatch(line):
            yield line
        elif line and not line.startswith("-") and not (_UNNAMED.fullmatch(line) and "@" not in line.split("/")[0]):
            _parsed(line.partition(" --")[0], path)
            yield line


def _parsed(line: str, path: Path) -> Requirement:
    try:
        return Requirement(line)
    except (InvalidRequirement, TypeError):
        raise error(
            "bad-settings",
            f"{path} can't be read as constraints: {line!r} is no requirement",
            hint='write name>=version, as in "numpy>=2"; a pyproject.toml, a requirements.txt or a uv.lock can be read',
        ) from None


def _empty(path: Path, why: str, hint: str = "") -> SalverError:
    return error(
        "bad-settings",
        f"{path} holds no constraints: {why}",
        hint=hint or "name the requirements.txt, pyproject.toml or uv.lock that says which versions you want",
    )
