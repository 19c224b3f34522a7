"""Reads a project folder: `salver.toml` says what to release.

[release]
name = "churn"
entry = "train:model"          # an object or class of a module of the project, or "train.py:model"
examples = "examples.csv"      # or .jsonl, .parquet, .npy
expected = "expected.csv"      # the answers to the examples, in the same order
drop = ["churned"]             # columns of the examples that are no inputs
files = "artifacts"            # goes to model/
include = ["features/*.json"]  # data files that go to code/ beside the modules
private = ["email"]
options = { method = "predict_proba" }

[serving]
max_batch = 64
"""

from __future__ import annotations

import difflib
import importlib
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import numpy as np
from msgspec import Struct

from salver import plugins
from salver.errors import SalverError, error
from salver.packaging.assembly import SOURCES
from salver.publish.request import ReleaseRequest
from salver.release import Serving, SideEffects, check_name

FILE = "salver.toml"


class ReleaseTable(Struct, frozen=True):
    """The table `[release]` of salver.toml; paths are relative to the project's folder."""

    name: str
    entry: str
    examples: str
    expected: str = ""
    drop: tuple[str, ...] = ()
    framework: str = ""
    options: dict[str, Any] = {}
    files: str = ""
    include: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    side_effects: SideEffects = "none"
    serving: Serving = Serving()
    constraints: str = ""
    packages: tuple[str, ...] = ()


def load_project(path: Path) -> ReleaseRequest:
    """The release that the project at `path` (its folder or its salver.toml) describes; imports the model's module.

    Raises `bad-settings` with every problem of the file at once, `missing-file` for what isn't there.
    """
    file = path / FILE if path.is_dir() else path
    folder = file.parent.resolve()
    release = read_project(file)
    module, model = _entry(release.entry, folder)
    examples = table(folder / release.examples)
    return ReleaseRequest(
        name=release.name,
        model=model,
        examples=_without(examples, release.drop),
        expected=_answers(table(folder / release.expected)) if release.expected else None,
        framework=release.framework,
        options=release.options,
        files=folder / release.files if release.files else None,
        include=release.include,
        project=folder,
        module=module,
        private=release.private,
        serving=release.serving,
        constraints=folder / release.constraints if release.constraints else None,
        packages=release.packages,
        side_effects=release.side_effects,
    )


def read_project(file: Path) -> ReleaseTable:
    """The table `[release]` of a salver.toml, checked."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error("missing-file", f"{file} does not exist", hint=f"a project has a {FILE}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise error("bad-settings", f"{file} is no TOML: {problem}") from None
    problems: list[str] = []
    release = _read_table(content.get("release", {}), problems)
    if isinstance(release.get("name"), str):
        try:
            check_name(release["name"])
        except SalverError as problem:
            problems.append(f"release.name: {problem.message}")
    if ":" not in release.get("entry", ":"):
        problems.append(f"release.entry: {release['entry']!r} must be module:object or file.py:object")
    problems += _missing_files(release, file.parent)
    if problems:
        raise error("bad-settings", f"{file} can't be used", details=tuple(problems))
    return ReleaseTable(**release)


def _read_table(table: Any, problems: list[str]) -> dict[str, Any]:
    """The table's values by name, each converted; problems are collected, not raised."""
    if not isinstance(table, dict):
        problems.append("[release] is not a table")
        return {}
    hints = get_type_hints(ReleaseTable)
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            problems.append(f"release.{key}: unknown" + (f", did you mean {near[0]!r}?" if near else ""))
            continue
        try:
            found[key] = msgspec.convert(value, hints[key])
        except msgspec.ValidationError as problem:
            problems.append(f"release.{key}: {problem}")
    required = [field.name for field in msgspec.structs.fields(ReleaseTable) if field.required]
    problems += (f"release.{key}: missing" for key in required if key not in table)
    return found


def _missing_files(release: Mapping[str, Any], folder: Path) -> Iterable[str]:
    for key in ("examples", "expected", "files", "constraints"):
        value = release.get(key)
        if value and not (folder / value).exists():
            yield f"release.{key}: {folder / value} does not exist"


def _entry(entry: str, folder: Path) -> tuple[str, Any]:
    """Import the entry's module; returns its name and the object.

    The project's folder, and its `src` where it has one, stay first on the path: its modules may import others later.
    """
    place, _, name = entry.partition(":")
    relative = place.removesuffix(".py")
    module = relative.replace("/", ".") if place.endswith(".py") else place
    places = [str(place) for place in (folder, folder / SOURCES) if place.is_dir()]
    sys.path[:0] = [place for place in places if place not in sys.path]
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as problem:
        raise error(
            "bad-settings",
            f"release.entry: {entry} can't be found: {problem}",
            hint=f"looked in {' and '.join(places)}",
        ) from problem
    return module, found


def table(path: Path) -> Any:
    """The rows of a file: a DataFrame, a list of mappings (.jsonl) or an array (.npy)."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".csv": lambda path: _pandas().read_csv(path),
        ".parquet": lambda path: _pandas().read_parquet(path),
        ".jsonl": lambda path: [msgspec.json.decode(line) for line in path.read_bytes().splitlines() if line.strip()],
        ".npy": lambda path: np.load(path, allow_pickle=False),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise error(
            "bad-examples",
            f"{path}: can't read a {path.suffix or 'file without suffix'}",
            hint="use " + ", ".join(readers),
        )
    try:
        return reader(path)
    except SalverError:
        raise
    except (OSError, ValueError, ImportError) as problem:  # pandas and msgspec raise kinds of ValueError
        raise error("bad-examples", f"{path} can't be read: {problem}") from None


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise plugins.missing_extra("pandas", needed_for="reading a table from a file") from None
    return pandas


def _without(examples: Any, drop: Iterable[str]) -> Any:
    names = list(drop)
    if not names:
        return examples
    if hasattr(examples, "columns"):
        missing = [name for name in names if name not in examples.columns]
        if missing:
            raise error("bad-settings", f"release.drop: the examples have no column {', '.join(missing)}")
        return examples.drop(columns=names)
    if isinstance(examples, list):
        return [{key: value for key, value in row.items() if key not in names} for row in examples]
    raise error("bad-settings", "release.drop: the examples have no named columns")


def _answers(table: Any) -> Any:
    """Expected answers; a table of one column is the one output, whatever it is called there."""
    if hasattr(table, "columns") and len(table.columns) == 1:
        return table.iloc[:, 0]
    return table
