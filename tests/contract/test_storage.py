"""What the registry relies on, for every storage there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

from salver.errors import SalverError
from salver.storage import PIECE, Storage
from salver.storage.folder import FolderStorage
from salver.storage.memory import MemoryStorage


@pytest.fixture(params=["memory", "folder"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return MemoryStorage() if request.param == "memory" else FolderStorage(tmp_path / "store")


def test_an_object_is_created_once_and_reads_back(storage: Storage) -> None:
    assert storage.create("a/b.json", [b"one ", b"", b"two"])
    assert not storage.create("a/b.json", [b"other"])
    assert storage.read("a/b.json") == b"one two"


def test_an_empty_object_is_an_object(storage: Storage) -> None:
    assert storage.create("empty", [])
    assert not storage.create("empty", [])
    assert storage.read("empty") == b""
    assert list(storage.stream("empty") or ["absent"]) == []


def test_what_is_absent_reads_as_none(storage: Storage) -> None:
    storage.create("a/b", [b"x"])
    for key in ("a/c", "c", "a", "a/b/c"):
        assert storage.read(key) is None
        assert storage.stream(key) is None


def test_a_large_object_streams_in_pieces_of_one_size(storage: Storage) -> None:
    storage.create("big", [b"x" * 1000] * (PIECE // 1000 + 1))
    assert [len(piece) for piece in storage.stream("big") or ()] == [PIECE, (PIECE // 1000 + 1) * 1000 - PIECE]


def test_a_listing_is_sorted_and_holds_whole_keys(storage: Storage) -> None:
    keys = ["a-b/x", "a/10", "a/2", "a/b/c", "ab", "b/x"]
    for key in reversed(keys):
        storage.create(key, [b"x"])
    assert list(storage.list("")) == sorted(keys)
    assert list(storage.list("a/")) == ["a/10", "a/2", "a/b/c"]
    assert list(storage.list("a/b/")) == ["a/b/c"]
    assert list(storage.list("nothing/")) == []


def test_data_that_fails_on_the_way_leaves_nothing(storage: Storage) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    storage.create("first", [b"x"])
    with pytest.raises(ZeroDivisionError):
        storage.create("a/b", broken())
    assert storage.read("a/b") is None
    assert list(storage.list("")) == ["first"]
    assert storage.create("a/b", [b"whole"])


@pytest.mark.parametrize("key", ["../a", "/a", "a/../../b", ".hidden", "a//b", ""])
def test_no_key_leads_outside(storage: Storage, key: str) -> None:
    for call in (lambda: storage.create(key, [b"x"]), lambda: storage.read(key), lambda: storage.stream(key)):
        with pytest.raises(SalverError) as caught:
            call()
        assert caught.value.code == "storage-failed"


def test_of_many_that_create_one_object_exactly_one_does(storage: Storage) -> None:
    storage.create("first", [b"x"])
    together, created = Barrier(8), []

    def create(number: int) -> None:
        together.wait()
        if storage.create("contested", [b"%d" % number]):
            created.append(number)

    threads = [Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = created
    assert storage.read("contested") == b"%d" % winner
