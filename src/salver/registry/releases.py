"""Publishing: blobs first, then one create-only record, so that a half-published release can't be seen."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from salver.errors import SalverError, error
from salver.record import Provenance, Release
from salver.registry.admission import check_manifest
from salver.registry.content import put_bytes, put_file
from salver.registry.layout import FORMAT, MARK, MODELS, NAMES, name_key
from salver.registry.numbered import NumberedList
from salver.registry.sealed import seal, unseal
from salver.release import Manifest, canonical, check_name, parse_manifest, release_id
from salver.storage import Storage


class Published(Struct, frozen=True):
    """The release that holds some content, and whether this call created it."""

    release: Release
    created: bool


class Mark(Struct, frozen=True):
    """What makes a store a registry, and its format number."""

    registry: int


class Claim(Struct, frozen=True):
    """The one spelling of a model's name that a registry accepts."""

    model: str


def release_list(storage: Storage, model: str) -> NumberedList[Release]:
    """The releases of one model."""
    return NumberedList(storage, f"{MODELS}{model}/releases/", Release)


def publish(storage: Storage, folder: Path, manifest: Manifest, provenance: Provenance) -> Published:
    """Store the release that lies in `folder`, or find the one of the same model that has the same content."""
    model, identity, data = check_name(manifest.model), release_id(manifest), canonical(manifest)
    where = f"the manifest of {model} in {folder}"
    parse_manifest(data, where=where)
    check_manifest(manifest, where)
    _mark(storage)
    _refuse_collision(storage, model)
    for file in manifest.files:
        put_file(storage, folder, file)
    put_bytes(storage, data)
    _claim(storage, model)
    return _record(storage, Release(model=model, number=1, id=identity, provenance=provenance))


def models(storage: Storage) -> list[str]:
    """The names of all models that have a release, sorted; a store that is no registry is an error."""
    claimed = (unseal(storage.read(key) or b"", Claim, f"{storage.place}/{key}") for key in _names(storage))
    found = sorted(claim.model for claim in claimed if release_list(storage, claim.model).numbers())
    if not found:
        check_registry(storage)
    return found


def check_registry(storage: Storage) -> None:
    """Refuse a store that nothing was ever published to."""
    if storage.read(MARK) is None and not _names(storage):
        raise error(
            "no-registry",
            f"{storage.place} is not a registry: it has no {MARK}",
            hint="release a model to make one there, or name another with --registry or SALVER_REGISTRY",
        )


def _mark(storage: Storage) -> None:
    """Make the store a registry, or make sure that it is one of a format that this Salver knows."""
    if not storage.create(MARK, [seal(Mark(FORMAT))]):
        unseal(storage.read(MARK) or b"", Mark, f"{storage.place}/{MARK}")


def _record(storage: Storage, release: Release) -> Published:
    """Create the record under the next free number, unless the same id has one.

    Every number up to the one that is created has been looked at, so two publishers of one content can't both win.
    """
    releases = release_list(storage, release.model)
    number = 0
    for number in releases.numbers():
        found = _same(releases, number, release.id)
        if found:
            return _acknowledged(releases, found)
    while True:
        number += 1
        candidate = Release(release.model, number, release.id, release.provenance)
        if releases.append(number, candidate):
            return Published(candidate, created=True)
        found = _same(releases, number, release.id)
        if found:
            return _acknowledged(releases, found)


def _same(releases: NumberedList[Release], number: int, identity: str) -> Release | None:
    """The release of this number if it has this id.

    A damaged record is nobody's: the same content gets a new number then, rather than no number at all.
    """
    try:
        found = releases.get(number)
    except SalverError as problem:
        if problem.code != "corrupt":
            raise
        return None
    return found if found and found.id == identity else None


def _acknowledged(releases: NumberedList[Release], found: Release) -> Published:
    releases.append(found.number, found)  # its publisher may have died before it was durable
    return Published(found, created=False)


def _refuse_collision(storage: Storage, model: str) -> None:
    key = name_key(model)
    data = storage.read(key)
    taken = unseal(data, Claim, f"{storage.place}/{key}").model if data is not None else model
    if taken != model:
        raise error(
            "name-collision",
            f"{storage.place} has a model {taken!r}, from which {model!r} differs in case only",
            hint=f"release it as {taken}, or under a name that differs in more than case",
        )


def _claim(storage: Storage, model: str) -> None:
    if not storage.create(name_key(model), [seal(Claim(model))]):
        _refuse_collision(storage, model)


def _names(storage: Storage) -> list[str]:
    return [key for key in storage.list(NAMES) if key.endswith(".json")]
