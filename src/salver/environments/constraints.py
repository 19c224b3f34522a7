"""What a project's own files say of versions (requirements.txt, pyproject.toml, uv.lock), as lines of constraints."""

from __future__ import annotations

import platform
import re
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from salver.environments import uv
from salver.environments.place import version
from salver.errors import SalverError, error
from salver.lock import normalised

LOCKED = "uv.lock"
_CONTINUES = re.compile(r"[ \t]*\\\r?\n[ \t]*")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_INCLUDE = re.compile(r"(?:-[rc]\s*|--(?:requirement|constraint)[\s=]+)(\S.*)")
_LINKS = re.compile(r"(?:-f\s*|--find-links[\s=]+)(\S.*)")
_EDITABLE = re.compile(r"(?:-e|--editable)\b.*")
_UNNAMED = re.compile(r"[./~].*|\S+://.*|\S+\.(?:whl|zip|tar\.gz)\b.*|\S*/.*")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET = re.compile(r"//[^/@\s]*@")
_HASH = " --hash"
_EXPORT = (
    "export", "--frozen", "--no-emit-project", "--no-hashes", "--no-header", "--no-annotate", "--quiet",
)  # fmt: skip
_NOTHING = "nothing is listed in [project], [dependency-groups] or [tool.uv] constraint-dependencies"

_AGAIN = (
    "write it again with `uv lock`; one of a newer uv needs that uv installed here too, or its content as a "
    "requirements.txt: uv export --no-hashes -o requirements.txt"
)


def read(path: Path) -> str:
    """The constraints that a file states, a line each; raises `bad-settings` for one that states none.

    Of a requirements.txt that is each line, those of the files it includes too; of a pyproject.toml all that [project],
    [dependency-groups] and [tool.uv] list in the standard notation; of a uv.lock what uv would install.
    """
    try:
        if path.name == LOCKED:
            lines = [kept for line in _split(_exported(path)) if (kept := _kept(line, path))]
        elif path.suffix == ".toml":
            lines = _project(path)
        else:
            lines = [kept for where, line in _stated(path, set()) if (kept := _kept(line, where))]
    except (OSError, ValueError, AttributeError, TypeError) as problem:
        raise error("bad-settings", f"{path} can't be read as constraints: {problem}") from None
    if all(line.startswith("-") for line in lines):
        raise _empty(path, "it has no line that names a package")
    return "\n".join(lines)


def ignored(path: Path) -> list[str]:
    """What a file says that a lock does not heed although somebody may count on it, as sentences."""
    if path.name == LOCKED or path.suffix == ".toml":
        return []
    lines = list(_stated(path, set()))
    found = [
        f"{where.name}: {_SECRET.sub('//', line)} names no package, so it limits nothing"
        for where, line in lines
        if _ADDRESS.match(line)
    ]
    hashed = sorted({where.name for where, line in lines if _HASH in line})
    found += [
        f"{name}: its hashes are not compared; the lock has those that the package index gives" for name in hashed
    ]
    return found


def addressed(lines: str) -> list[tuple[str, str]]:
    """Which of the constraints that `read` gave take a package from an address on this machine: its name, and each."""
    stated = (Requirement(line.partition(" --")[0]) for line in lines.splitlines() if "@" in line and line[0] != "-")
    held = (each for each in stated if each.url and (each.marker is None or each.marker.evaluate()))
    return [(normalised(each.name), _SECRET.sub("//", f"{each.name} @ {each.url}")) for each in held]


def _project(path: Path) -> list[str]:
    """Every requirement that a pyproject.toml lists, without extras, which a constraint can't have."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    project, groups = tables.get("project", {}), tables.get("dependency-groups", {})
    own: dict[str, Any] = tables.get("tool", {})
    _require_python(project.get("requires-python", ""), path)
    _require_groups(groups, path)
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


def _require_python(requires: str, path: Path) -> None:
    """Raise `bad-settings` where the project excludes this Python, both as it is and as a lock names it."""
    allowed = SpecifierSet(requires)
    if not any(allowed.contains(each, prereleases=True) for each in (version(), platform.python_version())):
        raise error(
            "bad-settings",
            f"{path} requires Python {requires}, and the release would lock {version()} "
            f"(this is {platform.python_version()})",
            hint="train and release with a Python that it allows, or change its requires-python",
        )


def _require_groups(groups: dict[str, list[Any]], path: Path) -> None:
    """Raise `bad-settings`, naming all, for groups that include one that is not there, or themselves by others."""
    includes = {
        normalised(name): [normalised(str(each.get("include-group", each))) for each in group if isinstance(each, dict)]
        for name, group in groups.items()
    }
    missing = (f"{name} includes {each}" for name in includes for each in includes[name] if each not in includes)
    problems = [f"{each}, which is not there" for each in missing]
    order = TopologicalSorter(includes)
    try:
        order.prepare()
    except CycleError as problem:
        problems.append(f"{' includes '.join(reversed(problem.args[1]))}, so it has no end")
    if problems:
        raise error(
            "bad-settings",
            f"{path} can't be read as constraints: its [dependency-groups] lead nowhere",
            hint="include groups that are there, and none that includes the first again",
            details=tuple(problems),
        )


def _exported(path: Path) -> str:
    """What uv would install of a uv.lock, as a requirements file."""
    try:
        return uv.run([*_EXPORT, "--project", str(path.parent)], what=f"{path} can't be read").out
    except (SalverError, uv.Offline) as problem:
        said = problem.details if isinstance(problem, SalverError) else problem.args
        raise error("bad-settings", f"{path} can't be read as constraints", hint=_AGAIN, details=said) from None


def _split(text: str) -> Iterator[str]:
    """Each line that says something, whole and without its comment."""
    lines = (_COMMENT.sub("", raw).strip() for raw in _CONTINUES.sub(" ", text).splitlines())
    return filter(None, lines)


def _stated(path: Path, seen: set[Path]) -> Iterator[tuple[Path, str]]:
    """The lines of a requirements file and of those that it includes, each file once, each line with its file."""
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    for line in _split(path.read_text(encoding="utf-8-sig")):
        included = _INCLUDE.fullmatch(line)
        if included and "://" not in included[1]:
            yield from _stated(path.parent / included[1].strip("'\""), seen)
        else:
            yield path, line


def _kept(line: str, path: Path) -> str:
    """The line as it is of use elsewhere, its path absolute; '' for what has no name or is edited in place."""
    links = _LINKS.fullmatch(line)
    if links and "://" not in links[1]:
        folder = (path.parent / links[1].strip("'\"")).resolve()
        if not folder.exists():
            raise error(
                "bad-settings",
                f"{path} can't be read as constraints: {line!r} names {folder}, which does not exist",
                hint="put the wheels there, or name the folder as seen from the file",
            )
        return f"--find-links {folder}"
    if line.startswith("-"):
        return "" if _EDITABLE.fullmatch(line) else line
    if _UNNAMED.fullmatch(line) and "@" not in line.split("/")[0]:
        return ""
    _parsed(line.partition(" --")[0], path)
    return line


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
