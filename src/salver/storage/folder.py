"""Storage in a folder: a temporary file, its sync, a create-only link to the final name, the sync of the folder."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from salver.errors import error
from salver.storage import PIECE, check_key, check_prefix
from salver.storage.disk import Disk, disk_error, write_file

TEMPORARY = "tmp"
KEEP_TEMPORARY = 24 * 3600.0


class FolderStorage:
    """Objects as read-only files below `root`, which the first `create` makes.

    Files that a crash left in `tmp/` are never seen, and removed by the first `create` once they are a day old.
    """

    def __init__(self, root: Path, disk: Disk | None = None, clock: Callable[[], float] = time.time) -> None:
        self.place = str(root)
        self._root = root
        self._disk = disk or Disk()
        self._clock = clock
        self._durable: set[Path] = set()
        self._swept = False

    def create(self, key: str, data: Iterable[bytes]) -> bool:
        """Create an object; False when it exists already. Both answers mean that it survives a power loss."""
        path = self._path(key)
        try:
            self._make_folder(path.parent)
            created = not self._disk.exists(path) and self._write(path, data)
            # also when it existed: whoever made that name may have died before it was forced to the medium
            self._disk.sync_folder(path.parent)
        except OSError as problem:
            self._fail(problem, f"writing {key}")
        return created

    def read(self, key: str) -> bytes | None:
        """The whole object, or None."""
        pieces = self.stream(key)
        return None if pieces is None else b"".join(pieces)

    def stream(self, key: str) -> Iterator[bytes] | None:
        """The object in pieces, or None."""
        path = self._path(key)
        try:
            file = self._disk.reader(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._check_root()
            return None
        except OSError as problem:
            self._fail(problem, f"reading {key}")
        pieces = self._pieces(file, key)
        first = next(pieces, b"")  # a generator that has begun closes its file even when nobody reads on
        return itertools.chain([first] if first else (), pieces)

    def list(self, prefix: str) -> Iterator[str]:
        """All keys below `prefix`, sorted."""
        check_prefix(prefix)
        self._check_root()
        try:
            return iter(sorted(self._walk(self._root / prefix, prefix)))
        except OSError as problem:
            self._fail(problem, f"listing {prefix or 'everything'}")

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, and force each name to the medium once in this process's life."""
        if folder in self._durable:
            return
        above = folder.parent
        if folder != self._root:
            self._make_folder(above)
        elif not self._disk.is_folder(above):
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {above}")
        with contextlib.suppress(FileExistsError):
            self._disk.mkdir(folder)
        self._disk.sync_folder(above)
        self._durable.add(folder)

    def _write(self, path: Path, data: Iterable[bytes]) -> bool:
        folder = self._root / TEMPORARY
        self._make_folder(folder)
        self._sweep(folder)
        temporary = folder / f"{os.getpid()}-{os.urandom(8).hex()}"
        write_file(self._disk, temporary, data)
        try:
            self._disk.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(OSError):  # a temporary file that stays is swept tomorrow
                self._disk.unlink(temporary)
        return True

    def _sweep(self, folder: Path) -> None:
        if self._swept:
            return
        self._swept = True
        with contextlib.suppress(OSError):
            for entry in self._disk.scan(folder):
                if entry.kind == "file" and entry.changed < self._clock() - KEEP_TEMPORARY:
                    self._disk.unlink(folder / entry.name)

    def _walk(self, folder: Path, prefix: str) -> Iterator[str]:
        try:
            entries = self._disk.scan(folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            key = prefix + entry.name
            if entry.kind == "folder" and key != TEMPORARY:
                yield from self._walk(folder / entry.name, key + "/")
            elif entry.kind == "file":
                yield key

    def _pieces(self, file: BinaryIO, key: str) -> Iterator[bytes]:
        with file:
            while True:
                try:
                    piece = file.read(PIECE)
                except OSError as problem:
                    self._fail(problem, f"reading {key}")
                if not piece:
                    return
                yield piece

    def _check_root(self) -> None:
        try:
            there = self._disk.is_folder(self._root)
        except OSError as problem:
            self._fail(problem, "looking for it")
        if not there:
            raise error(
                "no-registry",
                f"there is no registry at {self.place}",
                hint="release a model to make one, or name another with --registry or SALVER_REGISTRY",
            )

    def _fail(self, problem: OSError, doing: str) -> NoReturn:
        raise disk_error(problem, self.place, doing) from problem
