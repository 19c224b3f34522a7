"""Proves a code closure: a clean process imports it with nothing but code/ and the installed packages on its path.

What the code's globals hold there is what they hold here, or the release is refused: a release that answers otherwise
than the model did has to be one that is never made.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from salver.errors import error
from salver.packaging import session, state
from salver.packaging.closure import Closure, installed_folders

TIMEOUT = 600
_RUNTIME = str(Path(__file__).resolve().parents[2])
"""The folder that holds this very package, wherever it is installed."""

_PROBE = """
import sys, json
given = json.load(sys.stdin)
sys.dont_write_bytecode = True
sys.path[:] = [given["code"], *sys.path, *given["installed"]]
import importlib, traceback
problems = []
for name in given["modules"]:
    try:
        importlib.import_module(name)
    except BaseException as problem:
        frames = [f for f in traceback.extract_tb(problem.__traceback__) if f.filename.startswith(given["code"])]
        place = f"code{frames[-1].filename[len(given['code']):]}, line {frames[-1].lineno}" if frames else name
        problems.append(f"{place}: {type(problem).__name__}: {problem}".replace(given["code"], "code"))
names = {name.partition(".")[0] for name in given["own"]}
for name, module in sorted(sys.modules.items()):
    file = getattr(module, "__file__", None) or ""
    if name.partition(".")[0] in names and not file.startswith(given["code"]) and file:
        problems.append(f"{name} came from {file}, not from the release")
from salver.packaging import state
values = {} if problems else state.snapshot(given["watched"], {given["code"]: "code", **given["places"]})
print("\\n" + json.dumps([problems, values]))
"""


class _Report(NamedTuple):
    """What a clean process said: what it could not import, and what the globals hold there."""

    problems: list[str]
    values: dict[str, str]


def prove(code: Path, modules: Sequence[str], closure: Closure | None = None) -> None:
    """Import `modules` from the folder `code` in a clean process; raises `code-not-closed` with what is missing.

    The process has neither the working directory nor what editable installs put on the path. Raises `code-not-closed`
    too where the globals that the closure's code reads hold other plain values there than here.
    """
    if not modules:
        return
    watched = {module: sorted(names) for module, names in closure.watched.items()} if closure else {}
    places = _places(watched)
    here = state.snapshot(watched, places)
    report = _probe(code, modules, watched, places)
    if report.problems:
        raise error(
            "code-not-closed",
            "the release's code can't be imported by itself",
            hint="make the model's class and imports self-contained; data files go into include or files",
            details=tuple(report.problems),
        )
    changing = closure.changing if closure else frozenset()
    differing = _differing(here, report.values, changing)
    if differing:
        again = _probe(code, modules, watched, places).values
        differing = [name for name in differing if again.get(name) == report.values[name]]
    if differing:
        raise error(
            "code-not-closed",
            f"in the release {', '.join(map(_short, differing))} would start with another value than here",
            hint="what changes it here does not travel: do that in load(self, files), or where it is defined, "
            "not under if __name__, through another name or from another file",
            details=tuple(_difference(name, here[name], report.values[name]) for name in differing),
        )


def _probe(code: Path, modules: Sequence[str], watched: Mapping[str, list[str]], places: Mapping[str, str]) -> _Report:
    own = [path.stem if path.suffix == ".py" else path.name for path in code.iterdir()]
    given = {
        "code": str(code), "installed": [*installed_folders(), _RUNTIME], "modules": list(modules), "own": own,
        "watched": watched, "places": places,
    }  # fmt: skip
    command = [sys.executable, "-I", "-S", "-c", _PROBE]
    done = subprocess.run(command, input=msgspec.json.encode(given), capture_output=True, timeout=TIMEOUT, check=False)
    try:
        return msgspec.json.decode(done.stdout.rsplit(b"\n", 2)[-2], type=_Report)
    except (msgspec.DecodeError, IndexError):
        ended = f"the process ended with status {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"
        return _Report([ended], {})


def _places(modules: Collection[str]) -> dict[str, str]:
    """The folders that the modules lie in here, which is code/ for the release, and what a script is called."""
    places: dict[str, str] = {}
    for module in modules:
        file = getattr(sys.modules.get(module), "__file__", None)
        if file:
            above = module.count(".") + (Path(file).name == "__init__.py")
            folders = {str(Path(file).parents[above]), str(Path(file).resolve().parents[above])}
            places |= {folder: "code" for folder in folders if len(folder) > 1}
    running = session.running()
    return places | ({session.MAIN: running.module} if running else {})


def _differing(here: Mapping[str, str], there: Mapping[str, str], changing: Collection[str]) -> list[str]:
    """What has another value there, and is not changed by the model while it predicts."""
    found = [name for name, value in sorted(here.items()) if there.get(name, value) != value]
    return [name for name in found if not set(_short(name).split(".")) & set(changing)]


def _short(name: str) -> str:
    return name.partition(":")[2]


def _difference(name: str, here: str, there: str) -> str:
    sizes = [value.rpartition(" ")[0] or "an object" for value in (here, there)]
    what = f"{sizes[0]} here, {sizes[1]} there" if sizes[0] != sizes[1] else f"{sizes[0]} with other content"
    return f"{name.replace(':', '.')}: {what}"
