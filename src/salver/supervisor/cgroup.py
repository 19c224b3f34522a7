"""What the control groups of this process may hold in memory, and what they do: Linux, versions 2 and 1."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED = 1 << 60
"""Version 1 has a number for no limit: the largest, rounded down to whole pages."""


class Held(NamedTuple):
    """Bytes that may be held, and that are."""

    limit: int
    used: int


class Version(NamedTuple):
    """Where a version keeps its groups, below the root, and what its files and the field of its statistics are named.

    `inactive` are the bytes of files that were read and are not needed: the system takes those back by itself.
    """

    folder: str
    limit: str
    usage: str
    inactive: str


V2 = Version("", "memory.max", "memory.current", "inactive_file")
V1 = Version("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


class Groups:
    """A process's group and all groups above it."""

    def __init__(self, version: Version, folders: Sequence[Path]) -> None:
        self._version = version
        self._folders = folders

    def read(self) -> Held | None:
        """Of the group that is nearest to its limit; None where none has one."""
        found = [held for folder in self._folders if (held := self._read_one(folder)) is not None]
        return max(found, key=lambda held: held.used / held.limit, default=None)

    def _read_one(self, folder: Path) -> Held | None:
        version = self._version
        with contextlib.suppress(OSError, ValueError):
            limit = limit_in((folder / version.limit).read_text())
            if limit is not None:
                usage = (folder / version.usage).read_text()
                return Held(limit, working_set(usage, (folder / "memory.stat").read_text(), version))
        return None


def groups(own: Path = OWN, root: Path = ROOT) -> Groups | None:
    """The groups of this process; None where nothing accounts for its memory."""
    try:
        place = place_in(own.read_text())
    except OSError:
        return None
    if place is None:
        return None
    version, path = place
    return Groups(version, [root / version.folder / each.relative_to("/") for each in upwards(path)])


def place_in(text: str) -> tuple[Version, PurePosixPath] | None:
    """Which version accounts for memory, and a process's path there, as its /proc/PID/cgroup says."""
    unified = None
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return V1, PurePosixPath(path)
        if not controllers:
            unified = V2, PurePosixPath(path)
    return unified


def upwards(path: PurePosixPath) -> list[PurePosixPath]:
    """A group's path and those above it; only the top where it lies outside of what can be seen here."""
    if ".." in path.parts:
        return [PurePosixPath("/")]
    return [path, *path.parents]


def limit_in(text: str) -> int | None:
    """The bytes that a limit's file names, None for no limit."""
    text = text.strip()
    limit = UNLIMITED if text == "max" else int(text)
    return limit if 0 < limit < UNLIMITED else None


def working_set(usage: str, statistics: str, version: Version) -> int:
    """The bytes that a group holds and needs, from the texts of its files."""
    fields = dict(line.split(maxsplit=1) for line in statistics.splitlines() if line)
    return max(0, int(usage) - int(fields.get(version.inactive, "0")))
