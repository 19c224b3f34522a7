"""References, keys, manifests and places: the parts of the registry that touch no storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from salver.errors import SalverError
from salver.record import Provenance, Release
from salver.registry import locate
from salver.registry.admission import check_manifest
from salver.registry.layout import blob_digest, blob_key, numbered, numbered_key
from salver.registry.references import Reference, no_such_model, no_such_release, parse_reference
from salver.registry.sealed import seal, unseal
from salver.release import CHUNK, FORMAT, MAX_FILE, MAX_FILES, File, Manifest
from salver.signature import Column, Signature
from salver.storage import check_key, check_prefix
from salver.storage.memory import MemoryStorage

DIGEST = "ab" * 32
RELEASE = Release("churn", 7, f"sha256:{DIGEST}", Provenance(actor="ann", at="2025-01-01T00:00:00Z"))


def manifest(*files: File) -> Manifest:
    signature = Signature(inputs=(Column("age", "float"),), outputs=(Column("churn", "float"),))
    return Manifest(FORMAT, "churn", signature, "function", "churn:Churn", files, "3.11", "0" * 64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("churn", Reference("churn", "live")),
        ("churn@live", Reference("churn", "live")),
        ("churn@latest", Reference("churn", "latest")),
        ("churn@7", Reference("churn", 7)),
        ("a.b-c_d@123456789012", Reference("a.b-c_d", 123456789012)),
        ("sha256:abcd", Reference("", "sha256:abcd")),
        ("churn@sha256:abcd12", Reference("churn", "sha256:abcd12")),
    ],
)
def test_a_reference_reads_as_people_write_it(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text", ["", "@7", "churn@", "churn@0", "churn@07", "churn@-1", "churn@1234567890123", "churn@x", "churn@7@8",
             "churn@\u0667", "../churn", "churn\n", "sha256:abc", "sha256:ABCD", "ch urn@7", "churn@7 "]
)  # fmt: skip
def test_what_names_no_release_is_refused(text: str) -> None:
    with pytest.raises(SalverError) as caught:
        parse_reference(text)
    assert caught.value.code == "bad-name"


def test_a_missing_release_is_answered_with_those_there_are() -> None:
    problem = no_such_release("churn@9", "churn", [5, 6, 7])
    assert str(problem) == "churn@9 does not exist · hint: churn has 5, 6, 7"
    assert no_such_release("churn@99", "churn", range(1, 21)).hint.endswith("18, 19, 20 and 10 before")


def test_a_missing_model_is_answered_with_the_one_that_was_meant() -> None:
    assert no_such_model("Chrun", ["churn", "fraud"], "here").hint == "did you mean churn?"
    assert no_such_model("zzz", ["churn", "fraud"], "here").hint == "it has churn, fraud"


def test_keys_of_numbers_and_blobs_read_back_and_others_do_not() -> None:
    assert numbered("a/", numbered_key("a/", 7)) == 7
    for stray in ("a/7.json", "a/000000000000.json", "a/000000000007.json.bak", "a/.000000000007.json"):
        assert numbered("a/", stray) is None
    assert blob_digest(blob_key(DIGEST)) == DIGEST
    for stray in (f"blobs/sha256/{DIGEST}", f"blobs/sha256/ab/{DIGEST[2:].upper()}", "blobs/sha256/ab/x", "ab/cd"):
        assert blob_digest(stray) is None


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/..", "./a", "a/.b", "a\\b", "a\0b", "ä", "a\n"])
def test_a_key_that_could_leave_the_store_is_refused(key: str) -> None:
    with pytest.raises(SalverError) as caught:
        check_key(key)
    assert caught.value.code == "storage-failed"


@pytest.mark.parametrize("prefix", ["a", "/", "../", "a/../"])
def test_a_prefix_is_empty_or_whole_segments(prefix: str) -> None:
    assert check_prefix("") == ""
    assert check_prefix("a/b/") == "a/b/"
    with pytest.raises(SalverError):
        check_prefix(prefix)


def test_memory_storage_creates_an_object_once_even_an_empty_one() -> None:
    storage = MemoryStorage()
    assert storage.create("a/b", [])
    assert not storage.create("a/b", [])
    assert not storage.create("a/b", [b"other"])
    assert storage.read("a/b") == b""
    assert storage.read("a/c") is None
    assert storage.stream("a/c") is None
    assert list(storage.list("a/")) == ["a/b"]


def test_a_sealed_record_reads_back() -> None:
    assert unseal(seal(RELEASE), Release, "here") == RELEASE


def test_every_flipped_bit_of_a_sealed_record_is_seen() -> None:
    data = seal(RELEASE)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SalverError) as caught:
            unseal(bytes(flipped), Release, "the place")
        assert caught.value.code in ("corrupt", "format-too-new")
        assert "the place" in caught.value.message


def test_every_truncation_of_a_sealed_record_is_seen() -> None:
    data = seal(RELEASE)
    for length in range(len(data)):
        with pytest.raises(SalverError):
            unseal(data[:length], Release, "here")


def test_a_record_of_a_newer_format_asks_for_a_newer_salver() -> None:
    data = msgspec.json.encode({"format": 2, "something": "new"})
    with pytest.raises(SalverError) as caught:
        unseal(data, Release, "here")
    assert caught.value.code == "format-too-new"
    assert caught.value.hint == "update Salver"


def test_a_usual_file_list_is_accepted() -> None:
    check_manifest(manifest(), "here")
    big = File("model/big.bin", CHUNK + 1, DIGEST, (DIGEST, DIGEST))
    check_manifest(manifest(File("model/a", 0, DIGEST), File("model/größe.txt", 1, DIGEST), big), "here")


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../a", "a/../b", "a/./b", "a//b", "a/", "release.json", "a\\b", "a\0b", "a\nb", "a\x7fb",
     "x" * 256, "/".join(["long"] * 300), "a/\ud800"],
)  # fmt: skip
def test_a_file_path_that_could_do_harm_is_refused(path: str) -> None:
    with pytest.raises(SalverError) as caught:
        check_manifest(manifest(File(path, 1, DIGEST)), "here")
    assert caught.value.code == "bad-manifest"


@pytest.mark.parametrize(
    "paths", [("a", "a"), ("model/A", "model/a"), ("caf\u00e9", "cafe\u0301"), ("a", "a/b"), ("A/x", "a/y")]
)
def test_paths_that_meet_on_some_file_system_are_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(SalverError) as caught:
        check_manifest(manifest(*(File(path, 1, DIGEST) for path in paths)), "here")
    assert caught.value.code == "bad-manifest"


@pytest.mark.parametrize(
    "change",
    [{"size": -1}, {"size": MAX_FILE + 1}, {"sha256": "AB" * 32}, {"sha256": "ab"}, {"chunks": (DIGEST, DIGEST)},
     {"chunks": ("x",)}],
)  # fmt: skip
def test_a_file_entry_that_can_not_be_true_is_refused(change: dict[str, Any]) -> None:
    entry = msgspec.structs.replace(File("model/a", 1, DIGEST), **change)
    with pytest.raises(SalverError) as caught:
        check_manifest(manifest(entry), "here")
    assert caught.value.code == "bad-manifest"


def test_all_problems_of_a_file_list_are_named_at_once() -> None:
    with pytest.raises(SalverError) as caught:
        check_manifest(manifest(File("../a", -1, "x"), File("b\\c", 1, DIGEST)), "here")
    assert len(caught.value.details) == 4


def test_a_file_list_may_have_as_many_files_as_the_limit_and_no_more() -> None:
    files = tuple(File(f"f{number}", 1, DIGEST) for number in range(MAX_FILES + 1))
    check_manifest(manifest(*files[:-1]), "here")
    with pytest.raises(SalverError) as caught:
        check_manifest(manifest(*files), "here")
    assert caught.value.details == (f"{MAX_FILES + 1} files, the limit is {MAX_FILES}",)


def test_the_registry_that_was_said_wins_over_the_variable() -> None:
    here = Path("/srv/project")
    assert locate("reg", {"SALVER_REGISTRY": "/other"}, here) == Path("/srv/project/reg")
    assert locate(None, {"SALVER_REGISTRY": "/other"}, here) == Path("/other")
    assert locate("/said", {}, here) == Path("/said")
