"""Which environment a release runs in: the current one where it is the locked one, else one built from the lock."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from salver import lock
from salver.environments import build, view
from salver.environments.place import Place


def choose(text: str, python: str, *, what: str, cache: Path, scratch: Path) -> Place:
    """Where a worker of the release with this lock runs; raises `environment-failed` where there is no such place.

    `scratch` is a folder that lives as long as the worker. There come the links through which it sees, besides its
    locked packages, the light part of Salver that runs it.
    """
    runtime = Path(tempfile.mkdtemp(prefix="runtime-", dir=scratch))
    view.of_runtime(runtime / "salver")
    if lock.check(text, python):
        place = build.build(text, python, cache, what=what)
        return Place(place.python, (*place.path, str(runtime / "salver")))
    packages = runtime / "packages"
    if view.of_packages(lock.pins(text), packages):
        return Place(build.interpreter(python, what), (str(packages), str(runtime / "salver")))
    return Place(sys.executable)
