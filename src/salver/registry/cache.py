"""The releases a machine has unpacked, and what it last knew of each model: enough to start with the registry down."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from msgspec import Struct

from salver.errors import SalverError, error
from salver.record import Release
from salver.registry.admission import check_manifest
from salver.registry.content import checked, exhaust
from salver.registry.layout import digest_of
from salver.registry.sealed import seal, unseal
from salver.release import MANIFEST, MAX_MANIFEST, File, Manifest, check_name, parse_manifest
from salver.route import Route
from salver.storage import PIECE
from salver.storage.disk import Disk, Entry, disk_error, remove_tree, write_file

_ABSENT = "it is not there"


class Source(Protocol):
    """Where a release's files come from: the registry."""

    def manifest_data(self, release: Release) -> bytes:
        """The canonical manifest, checked against the release's id."""

    def stream(self, release: Release, file: File) -> Iterator[bytes]:
        """One file in pieces; raises at the end unless it is what the manifest says."""


class Known(Struct, frozen=True):
    """What was in force for a model when its registry could last be read: the route and the releases it names."""

    route: Route
    releases: tuple[Release, ...]


class ReleaseCache:
    """Unpacked releases below `root`, one folder per id; several processes may share it.

    What was in force is kept apart for each registry, by its address: two of them may have a model of one name.
    """

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self._root = root
        self._disk = disk or Disk()

    def open(self, registry: Source | None, release: Release) -> Path:
        """The folder of a release, every byte of it checked just now; nothing else lies in it.

        A release that is not here, or not as it should be, is fetched from `registry`; one that is intact needs none.
        The files are read-only. Raises `corrupt`, `storage-failed` and whatever the registry raises.
        """
        digest = digest_of(release.id)
        folder = self._root / "releases" / digest
        try:
            damage = self._damage(folder, digest)
            if not damage:
                return folder
            if registry is None:
                raise self._unavailable(release, damage)
            for part in ("locks", "tmp", "releases"):
                self._make_folder(self._root / part)
            with self._disk.lock(self._root / "locks" / digest):
                if self._damage(folder, digest):
                    self._insert(registry, release, folder)
            return folder
        except OSError as problem:
            raise disk_error(problem, str(self._root), f"opening {release.name} in the cache") from problem

    def remember(self, registry: str, known: Known) -> None:
        """Keep what is in force for a model of a registry, for a start without it."""
        folder = self._known(registry)
        name = f"{check_name(known.route.model)}.json"
        temporary = self._root / "tmp" / f"{name}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            for each in (folder, self._root / "tmp"):
                self._make_folder(each)
            write_file(self._disk, temporary, [seal(known)])
            self._disk.rename(temporary, folder / name)
            self._disk.sync_folder(folder)
        except OSError as problem:
            raise disk_error(problem, str(self._root), f"writing {folder / name}") from problem

    def remembered(self, registry: str) -> list[str]:
        """The models of a registry of which something is remembered, sorted."""
        try:
            entries = list(self._disk.scan(self._known(registry)))
        except OSError:
            return []
        return sorted(entry.name.removesuffix(".json") for entry in entries if entry.name.endswith(".json"))

    def recall(self, registry: str, model: str) -> Known | None:
        """What was in force for a model when it was last remembered; None where that can't be read any more."""
        path = self._known(registry) / f"{check_name(model)}.json"
        try:
            with self._disk.reader(path) as file:
                return unseal(file.read(), Known, str(path))
        except (OSError, SalverError):
            return None

    def _known(self, registry: str) -> Path:
        return self._root / "registries" / hashlib.sha256(registry.encode()).hexdigest()[:16] / "known"

    def _damage(self, folder: Path, digest: str) -> str:
        """What is wrong with an entry; empty when nothing is. Removes what does not belong to the release."""
        try:
            with self._disk.reader(folder / MANIFEST) as file:
                data = file.read(MAX_MANIFEST + 1)
            exhaust(checked([data], File(MANIFEST, len(data), digest), str(folder / MANIFEST)))
            manifest = _safe_manifest(data, str(folder / MANIFEST))
            found = self._own_files(folder, manifest)
            for entry in manifest.files:
                path = folder / entry.path
                size = found[entry.path].size if entry.path in found else None
                if size != entry.size:
                    return f"{path} is {'missing' if size is None else f'{size} bytes, not {entry.size}'}"
                exhaust(checked(self._pieces(path), entry, str(path)))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return _ABSENT
        except SalverError as problem:
            if problem.code != "corrupt":
                raise
            return problem.message
        return ""

    def _own_files(self, folder: Path, manifest: Manifest) -> dict[str, Entry]:
        """The regular files of the manifest that are there; everything else is removed, be it only bytecode.

        Python would load a stray module, or bytecode beside one, that no digest vouches for.
        """
        wanted = {MANIFEST, *(file.path for file in manifest.files)}
        folders = {str(above) for path in wanted for above in PurePosixPath(path).parents}
        found: dict[str, Entry] = {}
        waiting = [PurePosixPath(".")]
        while waiting:
            above = waiting.pop()
            for entry in self._disk.scan(folder / above):
                path = above / entry.name
                if entry.kind == "folder" and str(path) in folders:
                    waiting.append(path)
                elif entry.kind == "file" and str(path) in wanted:
                    found[str(path)] = entry
                else:
                    self._remove(folder / path, entry)
        return found

    def _remove(self, path: Path, entry: Entry) -> None:
        if entry.kind == "folder":
            remove_tree(self._disk, path)
        else:
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(path)

    def _insert(self, registry: Source, release: Release, folder: Path) -> None:
        """Unpack a release beside its final place and move it there whole. The lock is held."""
        temporary = self._root / "tmp" / folder.name
        damaged = self._root / "tmp" / f"{folder.name}.damaged"
        for leftover in (temporary, damaged):
            remove_tree(self._disk, leftover)
        if self._disk.exists(folder):
            self._disk.rename(folder, damaged)
            remove_tree(self._disk, damaged)
        try:
            self._unpack(registry, release, temporary)
            self._disk.rename(temporary, folder)
        except BaseException:
            with contextlib.suppress(OSError):
                remove_tree(self._disk, temporary)
            raise
        self._disk.sync_folder(folder.parent)

    def _unpack(self, registry: Source, release: Release, folder: Path) -> None:
        data = registry.manifest_data(release)
        manifest = _safe_manifest(data, f"{MANIFEST} of {release.name}")
        made = {folder}
        self._disk.mkdir(folder)
        for file in manifest.files:
            path = folder / file.path
            for above in reversed(path.relative_to(folder).parents):
                if folder / above not in made:
                    self._disk.mkdir(folder / above)
                    made.add(folder / above)
            write_file(self._disk, path, registry.stream(release, file))
        write_file(self._disk, folder / MANIFEST, [data])
        for each in sorted(made, reverse=True):
            self._disk.sync_folder(each)

    def _make_folder(self, folder: Path) -> None:
        if self._disk.is_folder(folder):
            return
        self._make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            self._disk.mkdir(folder)
        self._disk.sync_folder(folder.parent)

    def _pieces(self, path: Path) -> Iterator[bytes]:
        with self._disk.reader(path) as file:
            while piece := file.read(PIECE):
                yield piece

    def _unavailable(self, release: Release, damage: str) -> SalverError:
        absent = damage == _ABSENT
        return error(
            "no-such-release" if absent else "corrupt",
            f"{release.name} {'is not' if absent else 'is damaged'} in the cache {self._root}, and there is no registry"
            f" to fetch it from{'' if absent else f': {damage}'}",
            hint="start once with the registry in reach",
        )


def _safe_manifest(data: bytes, where: str) -> Manifest:
    manifest = parse_manifest(data, where=where)
    check_manifest(manifest, where)
    return manifest
