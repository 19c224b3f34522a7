"""The registry and the release cache on a real disk: layout, permissions, damage, a registry that is down."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from salver import wiring
from salver.errors import SalverError
from salver.record import Release
from salver.registry import Known, Registry, ReleaseCache, locate
from salver.release import CHUNK, canonical
from salver.route import Change, Route, next_route
from salver.settings import Settings
from salver.storage import PIECE
from salver.storage.disk import Disk
from salver.storage.folder import FolderStorage
from tests.integration.sample_releases import PROVENANCE, build, describe, manifest_of


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def registry(place: Path, tmp_path: Path) -> Registry:
    """A registry with churn@1 (live) and churn@2, and evidence on the first."""
    registry = Registry(FolderStorage(place))
    for content in ("one", "two"):
        folder = tmp_path / content
        registry.publish(folder, build(folder, content), PROVENANCE)
    registry.append_route(
        next_route("churn", registry.current("churn"), Change(1, "first", "ann", "2025-01-02T00:00:00Z"))
    )
    registry.put_evidence("churn", registry.find("churn").id, "verdict", b"passed")
    return registry


@pytest.fixture
def cache(tmp_path: Path) -> ReleaseCache:
    return ReleaseCache(tmp_path / "cache")


def stored(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


def unlock(path: Path) -> None:
    path.chmod(0o644)


def flip_a_bit(path: Path) -> bytes:
    before = path.read_bytes()
    unlock(path)
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 4]) if before else b"\0")
    return before


def test_everything_lies_where_the_layout_says_and_nobody_may_write_it(registry: Registry, place: Path) -> None:
    release = registry.find("churn@2")
    digest = release.id.removeprefix("sha256:")
    assert (place / "blobs/sha256" / digest[:2] / digest[2:]).read_bytes() == canonical(registry.manifest(release))
    for path in (
        "registry.json", "names/churn.json", "models/churn/releases/000000000002.json",
        "models/churn/routes/000000000001.json",
    ):  # fmt: skip
        assert (place / path).is_file()
    assert not list((place / "tmp").iterdir())
    assert {path.stat().st_mode & 0o777 for path in stored(place)} == {0o444}


def test_every_flipped_bit_is_named_by_verify_and_refused_before_use(
    registry: Registry, place: Path, tmp_path: Path
) -> None:
    release = registry.find("churn@1")
    assert registry.verify().clean
    paths = stored(place)
    digests = {file.sha256 for file in registry.manifest(release).files} | {release.id.removeprefix("sha256:")}
    assert len(paths) == 16
    for number, path in enumerate(paths):
        before = flip_a_bit(path)
        key = path.relative_to(place).as_posix()
        assert key in {problem.key for problem in registry.verify().problems}, f"verify does not name {key}"
        if path.parent.name + path.name in digests:
            with pytest.raises(SalverError) as caught:
                ReleaseCache(tmp_path / f"cache{number}").open(registry, release)
            assert caught.value.code == "corrupt"
            assert str(path) in caught.value.message
            assert not stored(tmp_path / f"cache{number}" / "releases")
        path.write_bytes(before)
    assert registry.verify().clean


def test_publishing_content_that_rotted_in_the_registry_says_so(
    registry: Registry, place: Path, tmp_path: Path
) -> None:
    manifest = registry.manifest(registry.find("churn@1"))
    model = next(file for file in manifest.files if file.path == "model/model.bin")
    damaged = place / "blobs/sha256" / model.sha256[:2] / model.sha256[2:]
    flip_a_bit(damaged)
    with pytest.raises(SalverError) as caught:
        registry.publish(tmp_path / "one", manifest, PROVENANCE)
    assert caught.value.code == "corrupt"
    damaged.unlink()  # what the hint says
    assert registry.publish(tmp_path / "one", manifest, PROVENANCE).release.number == 1
    assert registry.verify().clean


def test_a_folder_that_is_not_what_its_manifest_says_is_not_published(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "three"
    manifest = build(folder, "three")
    (folder / "code/churn.py").write_text("import os")
    with pytest.raises(SalverError) as changed:
        registry.publish(folder, manifest, PROVENANCE)
    assert changed.value.code == "corrupt"
    (folder / "code/churn.py").unlink()
    with pytest.raises(SalverError) as gone:
        registry.publish(folder, manifest, PROVENANCE)
    assert gone.value.code == "missing-file"
    assert str(folder / "code/churn.py") in changed.value.message
    assert str(folder / "code/churn.py") in gone.value.message
    assert len(registry.releases("churn")) == 2
    assert registry.verify().clean


def test_a_file_of_several_pieces_arrives_whole_and_its_piece_digests_must_be_true(
    registry: Registry, tmp_path: Path, cache: ReleaseCache
) -> None:
    assert PIECE == CHUNK  # the pieces that storage hands out are those that the manifest describes
    big = os.urandom(CHUNK + 12345)
    manifest = manifest_of(tmp_path / "big", {"model/big.bin": big}, model="big")
    release = registry.publish(tmp_path / "big", manifest, PROVENANCE).release
    assert (cache.open(registry, release) / "model/big.bin").read_bytes() == big
    entry = describe("model/big.bin", big)
    lie = msgspec.structs.replace(entry, chunks=(entry.chunks[0], "0" * 64))
    with pytest.raises(SalverError) as caught:
        registry.publish(tmp_path / "big", msgspec.structs.replace(manifest, files=(lie,)), PROVENANCE)
    assert caught.value.code == "corrupt"
    assert "piece 1" in caught.value.message


def test_without_a_folder_there_is_no_registry(tmp_path: Path) -> None:
    for place in (tmp_path / "nothing", tmp_path):
        with pytest.raises(SalverError) as caught:
            Registry(FolderStorage(place)).find("churn")
        assert caught.value.code == "no-registry"
        assert str(place) in caught.value.message
    assert not (tmp_path / "nothing").exists()


def test_publishing_below_a_folder_that_does_not_exist_names_it(tmp_path: Path) -> None:
    with pytest.raises(SalverError) as caught:
        Registry(FolderStorage(tmp_path / "a" / "b")).publish(
            tmp_path / "one", build(tmp_path / "one", "one"), PROVENANCE
        )
    assert caught.value.code == "storage-failed"
    assert f"there is no folder {tmp_path / 'a'}" in caught.value.message


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENOSPC, "space"), (errno.EDQUOT, "quota"), (errno.EACCES, "user"), (errno.EROFS, "read-only")],
)
def test_a_disk_that_refuses_is_named_with_what_to_do(place: Path, tmp_path: Path, number: int, hint: str) -> None:
    class Refusing(Disk):
        def writer(self, path: Path) -> int:
            raise OSError(number, os.strerror(number), str(path))

    with pytest.raises(SalverError) as caught:
        Registry(FolderStorage(place, Refusing())).publish(tmp_path, build(tmp_path, "one"), PROVENANCE)
    assert caught.value.code == "storage-failed"
    assert str(place) in caught.value.message
    assert os.strerror(number) in caught.value.message
    assert hint in caught.value.hint


def test_what_a_crash_left_is_ignored_and_removed_once_it_is_a_day_old(registry: Registry, place: Path) -> None:
    old, new = place / "tmp/old", place / "tmp/new"
    for path in (old, new):
        path.write_bytes(b"half a model")
    os.utime(old, (0, 0))
    assert (registry.verify().clean, registry.verify().orphans) == (True, ())
    Registry(FolderStorage(place)).put_evidence("churn", "run", "note", b"x")
    assert (old.exists(), new.exists()) == (False, True)


def test_a_cached_release_is_exactly_the_release(registry: Registry, cache: ReleaseCache, tmp_path: Path) -> None:
    release = registry.find("churn@1")
    folder = cache.open(registry, release)
    manifest = registry.manifest(release)
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert set(found) == {"release.json", *(file.path for file in manifest.files)}
    assert all((tmp_path / "one" / file.path).read_bytes() == found[file.path].read_bytes() for file in manifest.files)
    assert found["release.json"].read_bytes() == canonical(manifest)
    assert {path.stat().st_mode & 0o777 for path in found.values()} == {0o444}
    inodes = {path.stat().st_ino for path in stored(tmp_path / "registry")}
    assert not inodes & {path.stat().st_ino for path in found.values()}


def test_an_intact_release_opens_with_the_registry_down(registry: Registry, cache: ReleaseCache, place: Path) -> None:
    release = registry.find("churn@1")
    folder = cache.open(registry, release)
    place.rename(place.with_name("gone"))
    assert cache.open(None, release) == folder
    assert cache.open(registry, release) == folder
    with pytest.raises(SalverError) as caught:
        cache.open(registry, Release("churn", 2, "sha256:" + "ab" * 32, PROVENANCE))
    assert caught.value.code == "no-registry"
    with pytest.raises(SalverError) as caught:
        cache.open(None, Release("churn", 2, "sha256:" + "ab" * 32, PROVENANCE))
    assert caught.value.code == "no-such-release"
    assert "churn@2 is not in the cache" in caught.value.message


def test_every_damage_of_a_cached_release_is_seen_and_mended(registry: Registry, cache: ReleaseCache) -> None:
    release = registry.find("churn@1")
    folder = cache.open(registry, release)
    intact = {path.relative_to(folder): path.read_bytes() for path in stored(folder)}
    for relative in intact:
        for harm in (flip_a_bit, Path.unlink, _shorten, _replace_by_link, _replace_by_folder):
            harm(folder / relative)
            with pytest.raises(SalverError) as caught:
                cache.open(None, release)
            assert caught.value.code in ("corrupt", "no-such-release"), (relative, harm)
            assert cache.open(registry, release) == folder
            assert {path.relative_to(folder): path.read_bytes() for path in stored(folder)} == intact, (relative, harm)
    assert registry.verify().clean


def _shorten(path: Path) -> None:
    unlock(path)
    os.truncate(path, max(0, path.stat().st_size - 1))
    if not path.stat().st_size:
        path.unlink()


def _replace_by_link(path: Path) -> None:
    """A link to the very same content is no file of ours either: it could change afterwards."""
    target = path.with_suffix(".elsewhere")
    path.rename(target)
    path.symlink_to(target)
    if path.name == "release.json":
        path.unlink()


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def test_what_does_not_belong_to_a_release_is_removed_before_use(
    registry: Registry, cache: ReleaseCache, tmp_path: Path
) -> None:
    release = registry.find("churn@1")
    folder = cache.open(registry, release)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("mine")
    (folder / "code/__pycache__").mkdir()
    (folder / "code/__pycache__/churn.cpython-311.pyc").write_bytes(b"bytecode that nobody vouches for")
    (folder / "code/numpy.py").write_text("print('gotcha')")
    (folder / "linked").symlink_to(outside)
    assert cache.open(None, release) == folder
    assert {path.name for path in (folder / "code").iterdir()} == {"churn.py", "empty"}
    assert not (folder / "linked").is_symlink()
    assert (outside / "kept.txt").read_text() == "mine"


def test_what_was_in_force_is_remembered_and_damage_to_it_is_not_believed(
    registry: Registry, cache: ReleaseCache, tmp_path: Path
) -> None:
    assert cache.recall("/reg", "churn") is None
    assert cache.remembered("/reg") == []
    known = [Known(route, (registry.find("churn"),)) for route in _routes(2)]
    for each in known:
        cache.remember("/reg", each)
        assert cache.recall("/reg", "churn") == each
    [path] = (tmp_path / "cache").rglob("churn.json")
    flip_a_bit(path)
    assert cache.recall("/reg", "churn") is None
    cache.remember("/reg", known[0])
    assert cache.recall("/reg", "churn") == known[0]
    assert cache.remembered("/reg") == ["churn"]
    assert not list((tmp_path / "cache/tmp").iterdir())


def test_two_registries_that_share_a_cache_do_not_share_what_was_in_force(
    registry: Registry, cache: ReleaseCache
) -> None:
    release = registry.find("churn")
    mine, theirs = (Known(route, (release,)) for route in _routes(2))
    cache.remember("/mine", mine)
    assert cache.recall("/theirs", "churn") is None
    assert cache.remembered("/theirs") == []
    cache.remember("/theirs", theirs)
    assert (cache.recall("/mine", "churn"), cache.recall("/theirs", "churn")) == (mine, theirs)


def test_a_model_that_was_in_force_may_be_served_by_name_while_its_registry_is_gone(
    registry: Registry, cache: ReleaseCache, tmp_path: Path
) -> None:
    mine, theirs = (Settings(registry=str(tmp_path / name), cache=str(tmp_path / "cache")) for name in ("a", "b"))
    cache.remember(mine.registry, Known(_routes(1)[0], (registry.find("churn"),)))
    wiring.check_models(mine, ("churn",))
    with pytest.raises(SalverError) as caught:
        wiring.check_models(theirs, ("churn",))
    assert caught.value.code == "no-registry"


def _routes(count: int) -> list[Route]:
    return [Route("churn", seq, 1, "ann", "2025-01-02T00:00:00Z", "promote") for seq in range(1, count + 1)]


def test_the_registry_is_beside_the_nearest_settings_file(tmp_path: Path) -> None:
    deep = tmp_path / "project/src/deep"
    deep.mkdir(parents=True)
    assert locate(None, {}, deep) == deep / ".salver"
    (tmp_path / "project/salver.toml").touch()
    assert locate(None, {}, deep) == tmp_path / "project/.salver"
    assert locate("", {"SALVER_REGISTRY": ""}, deep) == tmp_path / "project/.salver"


def test_importing_the_registry_brings_no_heavy_package() -> None:
    script = "import sys, salver.registry, salver.storage.folder; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    third_party = set(loaded) - sys.stdlib_module_names - {"salver", "__main__"}
    assert {name for name in third_party if not name.startswith(("_", "sitecustomize"))} <= {
        "msgspec",
        "typing_extensions",
    }
