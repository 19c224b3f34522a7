"""Reading everything again: what is damaged, missing, out of order, or referred to by nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from salver.errors import SalverError
from salver.record import Policy, Release
from salver.registry import content
from salver.registry.admission import check_manifest
from salver.registry.evidence import Pointer
from salver.registry.evidence import content as evidence_content
from salver.registry.layout import (
    BLOBS,
    MARK,
    MODELS,
    NAMES,
    blob_digest,
    blob_key,
    digest_of,
    is_release_id,
    numbered,
    numbered_key,
)
from salver.registry.releases import Claim, Mark
from salver.registry.sealed import T, unseal
from salver.release import MANIFEST, File, parse_manifest
from salver.route import Route, arms
from salver.storage import Storage


class Problem(Struct, frozen=True):
    """One thing that is wrong: the key of the object and what about it.

    `damaged`: not what was stored; `missing`: something refers to it; `gap`: a number is not there; `wrong`: it is
    intact but can't be true.
    """

    kind: Literal["damaged", "missing", "gap", "wrong"]
    key: str
    message: str


class Report(Struct, frozen=True):
    """What reading everything again found: objects and bytes read, problems, and the keys nothing refers to.

    Orphans are harmless: content of a publish that is under way or was broken off, and files that are not ours.
    """

    objects: int
    size: int
    problems: tuple[Problem, ...]
    orphans: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether everything that is referred to is there and intact."""
        return not self.problems


def verify(storage: Storage, model: str | None = None, progress: Callable[[str], None] | None = None) -> Report:
    """Check a whole registry, or one model of it (then without looking for orphans)."""
    check = _Check(storage, progress or (lambda _: None))
    # records before blobs: what is published meanwhile then shows as orphans at worst, never as missing
    check.records(f"{MODELS}{model}/" if model else MODELS)
    if model is None:
        check.names()
    check.blobs(everything=model is None)
    return Report(check.objects, check.size, tuple(check.problems), tuple(sorted(check.orphans)))


class _Check:
    """One run of verify: what it has seen so far."""

    def __init__(self, storage: Storage, progress: Callable[[str], None]) -> None:
        self.objects = 0
        self.size = 0
        self.problems: list[Problem] = []
        self.orphans: list[str] = []
        self._storage = storage
        self._progress = progress
        self._users: dict[str, tuple[File, str]] = {}  # digest → what refers to it first

    def names(self) -> None:
        """The mark and the claimed names."""
        self._record(MARK, Mark)
        for key in self._storage.list(NAMES):
            self._record(key, Claim)

    def records(self, prefix: str) -> None:
        """Everything below models/: each record, the order of each list, and what they refer to."""
        lists: dict[str, list[int]] = {}
        for key in self._storage.list(prefix):
            folder, _, _ = key.rpartition("/")
            parts = folder.removeprefix(MODELS).split("/")
            number = numbered(folder + "/", key)
            if len(parts) == 2 and parts[1] in ("releases", "routes", "policy") and number:
                lists.setdefault(folder + "/", []).append(number)
            elif len(parts) == 3 and parts[1] == "evidence" and key.endswith(".json"):
                self._evidence(key, parts[0])
            else:
                self.orphans.append(key)
        for folder, numbers in lists.items():
            self._gaps(folder, numbers)
            for number in numbers:
                self._entry(folder, number, lists)

    def blobs(self, *, everything: bool) -> None:
        """The content that is referred to and, with `everything`, all other content too."""
        present = set(self._storage.list(BLOBS)) if everything else set()
        for digest, (file, what) in self._users.items():
            present.discard(blob_key(digest))
            self._blob(digest, file.size, what)
        for key in present:
            self.orphans.append(key)
            digest_there = blob_digest(key)
            if digest_there:
                self._blob(digest_there, None, "referred to by nothing")

    def _entry(self, folder: str, number: int, lists: dict[str, list[int]]) -> None:
        key = numbered_key(folder, number)
        model, kind = folder.removeprefix(MODELS).rstrip("/").split("/")
        if kind == "releases":
            release = self._record(key, Release)
            if release and self._is(key, release.model == model and release.number == number):
                self._release(key, release)
        elif kind == "routes":
            route = self._record(key, Route)
            if route and self._is(key, route.model == model and route.seq == number):
                there = lists.get(f"{MODELS}{model}/releases/", [])
                for missing in sorted(set(arms(route)) - set(there)):
                    self._problem("wrong", key, f"it routes to {model}@{missing}, which does not exist")
        else:
            policy = self._record(key, Policy)
            self._is(key, policy is None or (policy.model == model and policy.seq == number))

    def _release(self, key: str, release: Release) -> None:
        if not self._is(key, is_release_id(release.id)):
            return
        what = f"{MANIFEST} of {release.name}"
        self._refer(File(MANIFEST, -1, digest_of(release.id)), what)
        try:
            data = content.manifest_data(self._storage, release)
        except SalverError:
            return  # named under its own key, among the blobs
        try:
            manifest = parse_manifest(data, where=what)
            check_manifest(manifest, what)
        except SalverError as problem:
            self._problem("wrong", key, str(problem))
            return
        self._is(key, manifest.model == release.model)
        for file in manifest.files:
            self._refer(file, f"{file.path} of {release.name}")

    def _evidence(self, key: str, model: str) -> None:
        pointer = self._record(key, Pointer)
        if pointer and self._is(key, key.endswith(f"/{pointer.name}.json")):
            self._refer(evidence_content(pointer), f"evidence {pointer.name} of {model}")

    def _refer(self, file: File, what: str) -> None:
        self._users.setdefault(file.sha256, (file, what))

    def _gaps(self, folder: str, numbers: list[int]) -> None:
        for missing in sorted(set(range(1, numbers[-1])) - set(numbers)):
            self._problem("gap", numbered_key(folder, missing), "this number is missing, a higher one is there")

    def _is(self, key: str, consistent: bool) -> bool:
        if not consistent:
            self._problem("wrong", key, "it belongs under another name")
        return consistent

    def _record(self, key: str, kind: type[T]) -> T | None:
        self._progress(key)
        try:
            data = self._storage.read(key)
            if data is None:
                self._problem("missing", key, "it is not there")
                return None
            self._count(len(data))
            return unseal(data, kind, key)
        except SalverError as problem:
            self._problem("damaged", key, str(problem))
            return None

    def _blob(self, digest: str, size: int | None, what: str) -> None:
        key = blob_key(digest)
        self._progress(key)
        try:
            pieces = self._storage.stream(key)
            if pieces is None:
                self._problem("missing", key, what)
                return
            found, length = content.measure(pieces)
        except SalverError as problem:
            self._problem("damaged", key, f"{what}: {problem}")
            return
        self._count(length)
        if found != digest:
            self._problem("damaged", key, f"{what}: its sha256 is {found}")
        elif size not in (None, -1, length):
            self._problem("wrong", key, f"{what}: {length} bytes instead of {size}")

    def _count(self, length: int) -> None:
        self.objects += 1
        self.size += length

    def _problem(self, kind: Literal["damaged", "missing", "gap", "wrong"], key: str, message: str) -> None:
        self.problems.append(Problem(kind, key, message))
