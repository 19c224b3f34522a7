"""Where a running server keeps its sockets, and how another process finds it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from salver.errors import error

CARD = "server.json"
CONTROL = "control.sock"
STATUS = "status.sock"
LONGEST = 100
"""A unix socket's path has at most 107 bytes on Linux and 103 on macOS."""
_LONGEST_NAME = len("/12345678-12345678/w123456.sock")


def roots() -> list[Path]:
    """The folders that may hold servers of this user, the preferred one first."""
    found = []
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session and len(os.fsencode(session)) + len("/salver") + _LONGEST_NAME <= LONGEST:
        found.append(Path(session) / "salver")
    return [*found, Path("/tmp") / f"salver-{os.getuid()}"]


def private(folder: Path) -> Path:
    """Make `folder` if it is missing and refuse it if another user could write to it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise error(
            "start-failed",
            f"{folder}: the folder for sockets must be a directory that only you can write to",
            hint="remove it, or set XDG_RUNTIME_DIR to a private folder",
        )
    return folder


def create(root: str = "") -> Path:
    """A new private folder for one server; a root that can't be used gives way to the next one."""
    if root:
        return _fresh(Path(root))
    first, *rest = roots()
    for fallback in rest:
        with contextlib.suppress(OSError):
            return _fresh(first)
        first = fallback
    return _fresh(first)


def _fresh(root: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=private(root)))
    if len(os.fsencode(folder)) + len("/w123456.sock") > LONGEST:
        folder.rmdir()
        raise error("start-failed", f"{root}: too long a path for sockets", hint="set XDG_RUNTIME_DIR to a shorter one")
    return folder


def announce(folder: Path, card: dict[str, Any]) -> None:
    """Write the server's card; it appears whole or not at all."""
    draft = folder / f".{CARD}"
    draft.write_text(json.dumps(card))
    draft.replace(folder / CARD)


def found(root: str = "") -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every server of this user that is alive, with its card; what dead ones left is removed."""
    for place in [Path(root)] if root else roots():
        for folder in sorted(place.iterdir()) if place.is_dir() else ():
            pid = folder.name.partition("-")[0]
            if not pid.isdecimal():
                continue
            if not _alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            with contextlib.suppress(OSError, ValueError):
                yield folder, json.loads((folder / CARD).read_text())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
