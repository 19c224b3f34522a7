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
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import numpy as np
from msgspec import Struct

from salver import plugins
from salver.errors import SalverError, error
from salver.frameworks.owners import is_installed
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
        bare = file.name == FILE and file.parent.is_dir()
        what = f"{file.parent.resolve()} has no {FILE}" if bare else f"{file} does not exist"
        raise error("missing-file", what, hint=_HINT) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise error("bad-settings", f"{file} is no TOML: {problem}") from None
    if "release" not in content:
        raise error("bad-settings", f"{file} has no table [release]", hint=_HINT)
    problems: list[str] = []
    release = _read_table(_with_serving(content, problems), problems)
    if isinstance(release.get("name"), str):
        try:
            check_name(release["name"])
        except SalverError as problem:
            problems.append(f"release.name: {problem.message}" + (f"; {problem.hint}" if problem.hint else ""))
    if not all(release.get("entry", "module:object").partition(":")[::2]):
        problems.append(f"release.entry: {release['entry']!r} must be module:object or file.py:object")
    problems += _missing_files(release, file.parent)
    if problems:
        raise error("bad-settings", f"{file} can't be used", details=tuple(problems))
    return ReleaseTable(**release)


_HINT = (
    'the first lines of a salver.toml are [release], name = "churn", entry = "train:model" (module:object) '
    'and examples = "examples.csv"'
)


def _with_serving(content: Mapping[str, Any], problems: list[str]) -> Any:
    """The table `[release]` with the table `[serving]`, which may also be written as `[release.serving]`."""
    table = content["release"]
    if "serving" not in content or not isinstance(table, dict):
        return table
    if "serving" in table:
        problems.append("[serving] and [release.serving] are the same table: keep one")
    return {**table, "serving": content["serving"]}


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
    found = _imported(entry, module, places)
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), 1)
            said = f", did you mean {near[0]!r}?" if near else ""
            raise error("bad-settings", f"release.entry: {entry} can't be found: {place} has no {part!r}{said}")
        found = getattr(found, part)
    return module, found


def _imported(entry: str, module: str, places: Sequence[str]) -> Any:
    """The module of the entry; raises `bad-settings` where it isn't there, and for whatever importing it raises."""
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as problem:  # the user's module is run here for the first time
        if isinstance(problem, ModuleNotFoundError) and f"{module}.".startswith(f"{problem.name}."):
            raise error(
                "bad-settings",
                f"release.entry: {entry} can't be found: there is no module {problem.name!r}",
                hint=f"looked in {' and '.join(places)}",
            ) from problem
        raise error(
            "bad-settings",
            f"release.entry: importing {module} raised {type(problem).__name__}{_line_of(problem)}: {problem}",
            hint="mend it there; SALVER_DEBUG=1 shows the traceback",
        ) from problem


def _line_of(problem: BaseException) -> str:
    """Where in the user's own files an import failed, as ` (train.py, line 3)`; '' where that can't be told."""
    frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if not is_installed(Path(frame.filename))]
    own = [frame for frame in frames if Path(frame.filename).is_file() and frame.filename != __file__]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def table(path: Path) -> Any:
    """The rows of a file: a DataFrame, a list of mappings (.jsonl) or an array (.npy)."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".csv": lambda path: _pandas().read_csv(path),
        ".parquet": lambda path: _pandas().read_parquet(path),
        ".jsonl": _json_lines,
        ".npy": lambda path: np.load(path, allow_pickle=False),
    }
    reader = readers.get(path.suffix.lower())
    if path.is_dir():
        raise error("bad-examples", f"{path} is a folder, not a file of rows", hint="use " + ", ".join(readers))
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


def _json_lines(path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            rows += [msgspec.json.decode(line)] if line.strip() else []
        except msgspec.DecodeError as problem:
            raise ValueError(f"line {number} is no JSON: {problem}") from None
    return rows


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
    rows = isinstance(examples, list) and all(isinstance(row, dict) for row in examples)
    if not rows and not hasattr(examples, "columns"):
        raise error("bad-settings", "release.drop: the examples have no named columns")
    known = {key for row in examples for key in row} if rows else examples.columns
    missing = [name for name in names if name not in known]
    if missing:
        raise error("bad-settings", f"release.drop: the examples have no column {', '.join(missing)}")
    if rows:
        return [{key: value for key, value in row.items() if key not in names} for row in examples]
    return examples.drop(columns=names)


def _answers(table: Any) -> Any:
    """Expected answers; a table of one column is the one output, whatever it is called there."""
    if hasattr(table, "columns") and len(table.columns) == 1:
        return table.iloc[:, 0]
    return table
