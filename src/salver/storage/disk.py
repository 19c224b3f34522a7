"""Every operating-system call of the folder storage and the release cache, in one small class.

Tests put a simulated disk in its place that fails, tears, crashes and loses power at any chosen call.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from salver.errors import SalverError, error

READ_ONLY = 0o444

_HINTS = {
    errno.ENOENT: "make that folder, or name another place with --registry or SALVER_REGISTRY",
    errno.ENOSPC: "free some space on that disk and try again",
    errno.EDQUOT: "the disk quota is used up: free some space and try again",
    errno.EACCES: "the user that runs Salver needs to read and write there",
    errno.EPERM: "the user that runs Salver needs to read and write there, and the file system must have hard links",
    errno.EROFS: "the file system is mounted read-only",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "the disk reports a fault: look at the system's log before you try again",
    errno.ENOTSUP: "the file system must have hard links",
}


class Entry(NamedTuple):
    """One name in a folder, its kind (`other`: a link, a device), size in bytes and time of change in epoch seconds."""

    name: str
    kind: Literal["file", "folder", "other"]
    size: int
    changed: float


class Disk:
    """The real disk."""

    def scan(self, folder: Path) -> list[Entry]:
        """The entries of a folder, sorted by name; links are not followed."""
        entries = []
        with os.scandir(folder) as names:
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # gone since the folder was opened
                    found = name.stat(follow_symlinks=False)
                    entries.append(Entry(name.name, _kind(found.st_mode), found.st_size, found.st_mtime))
        return sorted(entries)

    def is_folder(self, path: Path) -> bool:
        """Whether `path` is a folder, or a link to one."""
        return path.is_dir()

    def exists(self, path: Path) -> bool:
        """Whether anything has this name."""
        return os.path.lexists(path)

    def reader(self, path: Path) -> BinaryIO:
        """Open a file for reading."""
        return open(path, "rb")

    def writer(self, path: Path) -> int:
        """Create a file that nobody may write later, and open it for writing; it must not exist."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, READ_ONLY)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of `data`; the number of bytes written."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Force what was written to the medium."""
        _sync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def sync_folder(self, folder: Path) -> None:
        """Force a folder's names to the medium."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)

    def link(self, path: Path, name: Path) -> None:
        """Give a file a second name, which must not exist."""
        os.link(path, name)

    def mkdir(self, folder: Path) -> None:
        """Create a folder, which must not exist."""
        os.mkdir(folder)

    def rename(self, path: Path, name: Path) -> None:
        """Give a file or folder another name."""
        os.rename(path, name)

    def unlink(self, path: Path) -> None:
        """Remove a name of a file."""
        os.unlink(path)

    def rmdir(self, folder: Path) -> None:
        """Remove an empty folder."""
        os.rmdir(folder)

    @contextlib.contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        """Hold `path` alone among all processes; a process that dies lets go."""
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def write_file(disk: Disk, path: Path, data: Iterable[bytes]) -> None:
    """Write a new file and force it to the medium; on any failure nothing of it stays.

    A failed sync is final for this file: what the kernel dropped can't be synced again, so the file goes.
    """
    descriptor = disk.writer(path)
    try:
        try:
            for piece in data:
                rest = memoryview(piece)
                while rest:
                    rest = rest[disk.write(descriptor, rest) :]
            disk.sync(descriptor)
        finally:
            disk.close(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(path)
        raise


def remove_tree(disk: Disk, folder: Path) -> None:
    """Remove a folder and all below it, following no link; what is gone already is fine."""
    with contextlib.suppress(FileNotFoundError):
        for entry in disk.scan(folder):
            if entry.kind == "folder":
                remove_tree(disk, folder / entry.name)
            else:
                disk.unlink(folder / entry.name)
        disk.rmdir(folder)


def disk_error(problem: OSError, place: str, doing: str) -> SalverError:
    """The error of a failed call: where, what was tried, why, and what to do about it."""
    reason = problem.strerror or str(problem)
    return error("storage-failed", f"{place}: {doing} failed: {reason}", hint=_HINTS.get(problem.errno or 0, ""))


def _kind(mode: int) -> Literal["file", "folder", "other"]:
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "other"


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # there fsync alone leaves the data in the drive's own cache
    else:
        os.fsync(descriptor)
