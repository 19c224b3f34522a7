"""Which environment a release runs in: the current one where it is the locked one, else one built from the lock."""

from __future__ import annotations

import logging
import sys
import tempfile
from functools import cache
from pathlib import Path

from salver import lock
from salver.environments import build, view
from salver.environments.place import Place


def choose(text: str, python: str, *, what: str, cache: Path, scratch: Path) -> Place:
    """Where a worker of the release with this lock runs; raises `environment-failed` where there is no such place.

    `scratch` is a folder that lives as long as the worker. There come the links through which it sees, besides its
    locked packages, the light part of Salver that runs it. Where this environment is the locked one but can't be shown
    in part, the worker gets all of it, and the log says so.
    """
    runtime = Path(tempfile.mkdtemp(prefix="runtime-", dir=scratch))
    view.of_runtime(runtime / "salver")
    if lock.check(text, python):
        place = build.build(text, python, cache, what=what)
        return Place(place.python, (*place.path, str(runtime / "salver")))
    packages = runtime / "packages"
    unlisted = view.of_packages(lock.pins(text), packages)
    if not unlisted:
        return Place(build.interpreter(python, what), (str(packages), str(runtime / "salver")))
    _say_once(
        f"{what}: its workers see every package that is installed here, not the locked ones only: {unlisted} has no "
        "list of its files (RECORD); install it with pip or uv to change that"
    )
    return Place(sys.executable)


@cache
def _say_once(message: str) -> None:
    """Log a warning, once in this process."""
    logging.getLogger("salver.environments").warning("%s", message)
