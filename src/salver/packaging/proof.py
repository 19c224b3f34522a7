"""Proves a code closure: a clean process imports it with nothing but code/ and the installed packages on its path."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from salver.errors import error
from salver.packaging.closure import installed_folders

TIMEOUT = 600
_RUNTIME = str(Path(__file__).resolve().parents[2])
"""The folder that holds this very package, wherever it is installed."""

_PROBE = """
import sys, json
given = json.loads(sys.argv[1])
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
        problems.append(f"{place}: {type(problem).__name__}: {problem}")
names = {name.partition(".")[0] for name in given["own"]}
for name, module in sorted(sys.modules.items()):
    file = getattr(module, "__file__", None) or ""
    if name.partition(".")[0] in names and not file.startswith(given["code"]) and file:
        problems.append(f"{name} came from {file}, not from the release")
print("\\n" + json.dumps(problems))
"""


def prove(code: Path, modules: Sequence[str]) -> None:
    """Import `modules` from the folder `code` in a clean process; raises `code-not-closed` with what is missing.

    The process has neither the working directory nor what editable installs put on the path.
    """
    if not modules:
        return
    own = [path.stem if path.suffix == ".py" else path.name for path in code.iterdir()]
    given = {"code": str(code), "installed": [*installed_folders(), _RUNTIME], "modules": list(modules), "own": own}
    command = [sys.executable, "-I", "-S", "-c", _PROBE, msgspec.json.encode(given).decode()]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    try:
        problems = msgspec.json.decode(done.stdout.rsplit(b"\n", 2)[-2], type=list[str])
    except (msgspec.DecodeError, IndexError):
        problems = [f"the process ended with status {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"]
    if problems:
        raise error(
            "code-not-closed",
            "the release's code can't be imported by itself",
            hint="make the model's class and imports self-contained; data files go into include or files",
            details=tuple(problems),
        )
