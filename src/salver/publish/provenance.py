"""Where a release came from: who, when, which host, commit and script. None of it is part of the release's identity."""

from __future__ import annotations

import getpass
import socket
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from salver.packaging import session
from salver.packaging.session import Notebook, Script
from salver.publish.request import ReleaseRequest
from salver.record import Provenance

GIT_TIMEOUT = 10.0


def gather(request: ReleaseRequest, at: datetime) -> Provenance:
    """The provenance of a release published now, from the script's, notebook's or project's folder."""
    running = session.running()
    folder = request.project or (running.folder if running else Path.cwd())
    root = _git(folder, "rev-parse", "--show-toplevel")
    commit = _git(folder, "rev-parse", "HEAD") if root else ""
    return Provenance(
        actor=request.actor or _user(),
        at=at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        host=socket.gethostname(),
        salver=_version(),
        git_commit=commit,
        git_dirty=bool(root and _git(folder, "status", "--porcelain")),
        script=_name(running, Path(root) if root else folder),
        note=request.note,
        unproven=not request.proof,
    )


def _git(folder: Path, *arguments: str) -> str:
    """What git says, or '' where there is no git, no repository or no commit."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def _version() -> str:
    try:
        return version("salver")
    except PackageNotFoundError:
        return ""


def _name(running: Script | Notebook | None, root: Path) -> str:
    """The script below the repository; only its name where it lies elsewhere, since other paths say too much."""
    if running is None:
        return ""
    path = running.path
    if path is None:
        return "notebook"
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
