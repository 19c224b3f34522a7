"""A disk in memory that fails, tears, crashes and loses power at any chosen call.

What a process wrote is seen at once by everybody; what was not forced to the medium is `pending`, and after a power
loss any part of it may be there or not, in any combination. A folder's names are data of the folder: a file that was
synced is lost when its folder was not.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from salver.storage.disk import Disk, Entry

KINDS = ("crash-before", "crash-after", "EIO", "ENOSPC", "EIO-after", "short", "torn")


class Crash(BaseException):  # nothing that catches errors may catch a kill
    """The process dies here."""


class Fault(NamedTuple):
    at: int
    kind: str


class File:
    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()


class Folder:
    def __init__(self) -> None:
        self.names: dict[str, File | Folder] = {}
        self.durable: dict[str, File | Folder] = {}


class Pending(NamedTuple):
    """One change that is not on the medium yet, and whose sync would put it there."""

    nodes: tuple[Any, ...]
    apply: Callable[[bool], None]


class Write:
    def __init__(self, file: File, offset: int, data: bytes) -> None:
        self.file, self.offset, self.data = file, offset, data

    def __call__(self, torn: bool) -> None:
        data = self.data[: len(self.data) // 2] if torn else self.data
        content = self.file.durable
        content.extend(bytes(max(0, self.offset - len(content))))
        content[self.offset : self.offset + len(data)] = data


class Names:
    def __init__(self, *changes: tuple[Folder, str, File | Folder | None]) -> None:
        self.changes = changes

    def __call__(self, _torn: bool) -> None:
        for folder, name, node in self.changes:
            if node is None:
                folder.durable.pop(name, None)
            else:
                folder.durable[name] = node


class SimulatedDisk(Disk):
    def __init__(self) -> None:
        self.root = Folder()
        self.pending: list[Pending] = []
        self.calls: list[str] = []
        self.fault: Fault | None = None
        self.dead = False
        self._open: dict[int, File] = {}

    def restarted(self) -> SimulatedDisk:
        """The same disk as the next process finds it; the kernel has lived on."""
        disk = copy.deepcopy(self)
        disk.calls, disk.fault, disk.dead, disk._open = [], None, False, {}
        return disk

    def after_power_loss(self, survives: Callable[[int], str]) -> SimulatedDisk:
        """The disk as it comes back; `survives(i)` is `kept`, `lost` or `torn` for pending change i."""
        disk = self.restarted()
        for index, change in enumerate(disk.pending):
            fate = survives(index)
            if fate != "lost":
                change.apply(fate == "torn")
        disk.pending = []
        waiting: list[File | Folder] = [disk.root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, Folder):
                node.names = dict(node.durable)
                waiting.extend(node.names.values())
            else:
                node.data = bytearray(node.durable)
        return disk

    def files(self) -> dict[str, File]:
        """Every file by its path."""
        found: dict[str, File] = {}
        waiting: list[tuple[str, Folder]] = [("", self.root)]
        while waiting:
            path, folder = waiting.pop()
            for name, node in folder.names.items():
                if isinstance(node, Folder):
                    waiting.append((f"{path}/{name}", node))
                else:
                    found[f"{path}/{name}"] = node
        return found

    def scan(self, folder: Path) -> list[Entry]:
        def act() -> list[Entry]:
            return sorted(
                Entry(name, "folder", 0, 0.0) if isinstance(node, Folder) else Entry(name, "file", len(node.data), 0.0)
                for name, node in self._folder(folder).names.items()
            )

        return self._call(f"scan {folder}", act)

    def is_folder(self, path: Path) -> bool:
        return self._call(f"is_folder {path}", lambda: isinstance(self._find(path), Folder))

    def exists(self, path: Path) -> bool:
        return self._call(f"exists {path}", lambda: self._find(path) is not None)

    def reader(self, path: Path) -> BinaryIO:
        return self._call(f"reader {path}", lambda: io.BytesIO(bytes(self._file(path).data)))

    def writer(self, path: Path) -> int:
        def act() -> int:
            file = File()
            self._name(path, file)
            descriptor = len(self._open) + 3
            self._open[descriptor] = file
            return descriptor

        return self._call(f"writer {path}", act)

    def write(self, descriptor: int, data: memoryview) -> int:
        def act(length: int) -> int:
            file = self._open[descriptor]
            change = Write(file, len(file.data), bytes(data[:length]))
            file.data += change.data
            self.pending.append(Pending((file,), change))
            return length

        half = (len(data) + 1) // 2
        return self._call(f"write {len(data)}", lambda: act(len(data)), lambda: act(half))

    def sync(self, descriptor: int) -> None:
        self._call("sync", lambda: self._flush(self._open[descriptor]))

    def close(self, descriptor: int) -> None:
        self._call("close", lambda: self._open[descriptor])

    def sync_folder(self, folder: Path) -> None:
        self._call(f"sync_folder {folder}", lambda: self._flush(self._folder(folder)))

    def link(self, path: Path, name: Path) -> None:
        self._call(f"link {name}", lambda: self._name(name, self._file(path)))

    def mkdir(self, folder: Path) -> None:
        self._call(f"mkdir {folder}", lambda: self._name(folder, Folder()))

    def rename(self, path: Path, name: Path) -> None:
        def act() -> None:
            node, old, new = self._find(path), self._folder(path.parent), self._folder(name.parent)
            assert node is not None
            there = new.names.get(name.name)
            if isinstance(there, Folder) and there.names:
                raise OSError(errno.ENOTEMPTY, "not empty")
            del old.names[path.name]
            new.names[name.name] = node
            self.pending.append(Pending((old, new), Names((old, path.name, None), (new, name.name, node))))

        self._call(f"rename {name}", act)

    def unlink(self, path: Path) -> None:
        def act() -> None:
            self._file(path)
            self._drop(path)

        self._call(f"unlink {path}", act)

    def rmdir(self, folder: Path) -> None:
        def act() -> None:
            if self._folder(folder).names:
                raise OSError(errno.ENOTEMPTY, "not empty")
            self._drop(folder)

        self._call(f"rmdir {folder}", act)

    @contextlib.contextmanager
    def lock(self, path: Path) -> Iterator[None]:
        self._call(f"lock {path}", lambda: None)
        yield

    def _call(self, name: str, act: Callable[[], Any], partly: Callable[[], Any] | None = None) -> Any:
        if self.dead:
            raise Crash
        number = len(self.calls)
        self.calls.append(name)
        kind = self.fault.kind if self.fault and self.fault.at == number else ""
        if kind in ("EIO", "ENOSPC"):
            raise OSError(getattr(errno, kind), f"simulated {kind}")
        if kind == "short" and partly:
            return partly()
        if kind == "torn" and partly:
            partly()
        if kind in ("crash-before", "torn"):
            self.dead = True
            raise Crash
        result = act()
        if kind == "crash-after":
            self.dead = True
            raise Crash
        if kind == "EIO-after":
            raise OSError(errno.EIO, "simulated EIO, after the effect")
        return result

    def _flush(self, node: File | Folder) -> None:
        for change in self.pending:
            if any(one is node for one in change.nodes):
                change.apply(False)
        self.pending = [change for change in self.pending if not any(one is node for one in change.nodes)]

    def _find(self, path: Path) -> File | Folder | None:
        node: File | Folder | None = self.root
        for part in path.parts[1:]:
            if node is None:
                return None
            if isinstance(node, File):
                raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(path))
            node = node.names.get(part)
        return node

    def _folder(self, path: Path) -> Folder:
        node = self._find(path)
        if not isinstance(node, Folder):
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(path))
        return node

    def _file(self, path: Path) -> File:
        node = self._find(path)
        if isinstance(node, Folder):
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return node

    def _name(self, path: Path, node: File | Folder) -> None:
        folder = self._folder(path.parent)
        if path.name in folder.names:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        folder.names[path.name] = node
        self.pending.append(Pending((folder,), Names((folder, path.name, node))))

    def _drop(self, path: Path) -> None:
        folder = self._folder(path.parent)
        del folder.names[path.name]
        self.pending.append(Pending((folder,), Names((folder, path.name, None))))
