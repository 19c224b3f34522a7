"""What the registry answers, on storage in memory. Releases without files need no disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from salver.errors import Busy, SalverError
from salver.record import Policy, Provenance, Release
from salver.registry import Registry
from salver.release import FORMAT, File, Manifest
from salver.route import Canary, Change, next_route
from salver.signature import Column, Signature
from salver.storage.memory import MemoryStorage

NOWHERE = Path("/nowhere")
ANN = Provenance(actor="ann", at="2025-01-01T00:00:00Z")
SIGNATURE = Signature(inputs=(Column("age", "float"),), outputs=(Column("churn", "float"),))


def manifest(content: str, model: str = "churn", files: tuple[File, ...] = ()) -> Manifest:
    return Manifest(FORMAT, model, SIGNATURE, "function", content, files, "3.11", "0" * 64)


def publish(registry: Registry, content: str, model: str = "churn") -> Release:
    return registry.publish(NOWHERE, manifest(content, model), ANN).release


def change(live: int, **more: Any) -> Change:
    return Change(live, "promote", "ann", "2025-01-02T00:00:00Z", **more)


def code(caught: pytest.ExceptionInfo[SalverError]) -> str:
    return caught.value.code


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def registry(storage: MemoryStorage) -> Registry:
    return Registry(storage)


@pytest.fixture
def three(registry: Registry) -> Registry:
    """A registry with churn@1, churn@2 (live) and churn@3."""
    for content in ("one", "two", "three"):
        publish(registry, content)
    registry.append_route(next_route("churn", registry.current("churn"), change(2)))
    return registry


def test_releases_are_numbered_from_one_in_the_order_of_publishing(three: Registry) -> None:
    assert [release.number for release in three.releases("churn")] == [1, 2, 3]
    assert [three.manifest(release).entry for release in three.releases("churn")] == ["one", "two", "three"]
    assert three.releases("churn")[0].provenance == ANN


def test_the_same_content_again_is_the_same_release_whoever_publishes_it(three: Registry) -> None:
    again = three.publish(NOWHERE, manifest("two"), Provenance(actor="bob", at="later"))
    assert (again.created, again.release.number, again.release.provenance.actor) == (False, 2, "ann")
    assert len(three.releases("churn")) == 3


def test_the_same_content_under_another_model_is_another_release(three: Registry) -> None:
    other = publish(three, "two", "fraud")
    assert (other.name, other.id == three.find("churn@2").id) == ("fraud@1", False)
    assert three.models() == ["churn", "fraud"]


def test_a_model_name_that_differs_in_case_only_is_refused(three: Registry) -> None:
    with pytest.raises(SalverError) as caught:
        publish(three, "one", "Churn")
    assert code(caught) == "name-collision"
    assert "'churn'" in str(caught.value)
    assert three.models() == ["churn"]


def test_a_bad_model_name_is_refused_everywhere(three: Registry) -> None:
    for call in (three.releases, three.history, three.current, three.policy, lambda name: three.routes_after(name, 0)):
        with pytest.raises(SalverError) as caught:
            call("../churn")
        assert code(caught) == "bad-name"
    with pytest.raises(SalverError) as caught:
        publish(three, "one", "../churn")
    assert code(caught) == "bad-name"


def test_a_release_is_found_by_number_by_route_by_age_and_by_id(three: Registry) -> None:
    second = three.releases("churn")[1]
    for reference in ("churn", "churn@live", "churn@2", second.id, second.id[:20], f"churn@{second.id[:14]}"):
        assert three.find(reference) == second
    assert three.find("churn@latest").number == 3


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("churn@9", "churn@9 does not exist · hint: churn has 1, 2, 3"),
        ("chrun@1", "memory has no model 'chrun' · hint: did you mean churn?"),
        ("fraud", "memory has no model 'fraud' · hint: it has churn"),
        ("fraud@latest", "memory has no model 'fraud' · hint: it has churn"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(three: Registry, reference: str, expected: str) -> None:
    with pytest.raises(SalverError) as caught:
        three.find(reference)
    assert str(caught.value) == expected


def test_an_unknown_id_and_the_beginning_of_several_ids_are_refused(registry: Registry) -> None:
    starts: list[str] = []
    while len(set(starts)) == len(starts):  # a few hundred ids until two share four digits
        starts.append(publish(registry, str(len(starts))).id[:11])
    shared = starts[-1]
    with pytest.raises(SalverError) as caught:
        registry.find(shared)
    assert code(caught) == "no-such-release"
    assert "several ids" in str(caught.value)
    unknown = next(f"sha256:{n:04x}" for n in range(1 << 16) if f"sha256:{n:04x}" not in starts)
    with pytest.raises(SalverError) as caught:
        registry.find(unknown)
    assert code(caught) == "no-such-release"


def test_a_model_without_a_route_has_no_live_release(registry: Registry) -> None:
    publish(registry, "one")
    assert registry.current("churn") is None
    assert registry.history("churn") == []
    with pytest.raises(SalverError) as caught:
        registry.find("churn")
    assert str(caught.value) == "churn has no live release · hint: promote one, or name it: churn@1"


def test_where_nothing_was_published_there_is_no_registry(registry: Registry) -> None:
    for call in (registry.models, registry.verify, lambda: registry.find("churn"), lambda: registry.current("churn")):
        with pytest.raises(SalverError) as caught:
            call()
        assert code(caught) == "no-registry"
        assert caught.value.hint


def test_a_route_is_in_force_once_it_is_appended(three: Registry) -> None:
    route = next_route(
        "churn", three.current("churn"), change(3, why="better", canary=Canary(1, 0.1), evidence={"gate": ["passed"]})
    )
    three.append_route(route)
    assert three.current("churn") == route
    assert [(each.seq, each.live) for each in three.history("churn")] == [(1, 2), (2, 3)]
    assert three.routes_after("churn", 0) == three.history("churn")
    assert three.routes_after("churn", 1) == [route]
    assert three.routes_after("churn", 2) == []


def test_whoever_comes_second_loses_the_race_and_changes_nothing(three: Registry) -> None:
    mine, other = (
        next_route("churn", three.current("churn"), change(1)),
        next_route("churn", three.current("churn"), change(3)),
    )
    three.append_route(other)
    with pytest.raises(Busy) as caught:
        three.append_route(mine)
    assert code(caught) == "lost-race"
    assert three.current("churn") == other


@pytest.mark.parametrize("seq", [0, -1, 3, 10**12])
def test_a_route_can_not_leave_a_gap(three: Registry, seq: int) -> None:
    route = msgspec.structs.replace(next_route("churn", three.current("churn"), change(1)), seq=seq)
    with pytest.raises(Busy) as caught:
        three.append_route(route)
    assert code(caught) == "lost-race"
    assert len(three.history("churn")) == 1


@pytest.mark.parametrize("arms", [{"live": 9}, {"live": 1, "canary": Canary(9, 0.5)}, {"live": 1, "shadow": (9,)}])
def test_a_route_can_not_name_a_release_that_does_not_exist(three: Registry, arms: dict[str, Any]) -> None:
    with pytest.raises(SalverError) as caught:
        three.append_route(next_route("churn", three.current("churn"), change(**arms)))
    assert str(caught.value) == "churn@9 does not exist · hint: churn has 1, 2, 3"
    assert len(three.history("churn")) == 1


def test_a_policy_is_an_append_only_list_too(three: Registry) -> None:
    assert three.policy("churn") is None
    first, second = (Policy("churn", seq, {"accuracy": 0.9 + seq / 100}, "ann", "t") for seq in (1, 2))
    three.append_policy(first)
    three.append_policy(second)
    assert three.policy("churn") == second
    with pytest.raises(Busy):
        three.append_policy(second)


def test_evidence_is_kept_by_name_and_never_changes(three: Registry) -> None:
    release = three.find("churn@1")
    three.put_evidence("churn", release.id, "verdict.json", b"passed")
    three.put_evidence("churn", release.id, "verdict.json", b"passed")
    three.put_evidence("churn", release.id, "empty", b"")
    assert three.evidence("churn", release.id) == {"verdict.json": b"passed", "empty": b""}
    assert three.evidence("churn", "run-7") == {}
    with pytest.raises(SalverError) as caught:
        three.put_evidence("churn", release.id, "verdict.json", b"failed")
    assert code(caught) == "already-exists"
    for bad in ("../x", "", ".x", "a/b", "x" * 129):
        with pytest.raises(SalverError) as caught:
            three.put_evidence("churn", release.id, bad, b"")
        assert code(caught) == "bad-name"


def test_a_manifest_that_could_not_be_loaded_is_not_published(registry: Registry) -> None:
    with pytest.raises(SalverError) as caught:
        registry.publish(NOWHERE, manifest("x", files=(File("../evil", 1, "ab" * 32),)), ANN)
    assert code(caught) == "bad-manifest"
    with pytest.raises(SalverError) as caught:
        registry.publish(NOWHERE, msgspec.structs.replace(manifest("x"), options={"x": "y" * (1 << 20)}), ANN)
    assert code(caught) == "bad-manifest"
    with pytest.raises(SalverError) as caught:
        registry.models()
    assert code(caught) == "no-registry"


def damage(storage: MemoryStorage, key: str, data: bytes | None) -> None:
    if data is None:
        del storage.objects[key]
    else:
        storage.objects[key] = data


def test_verify_of_an_intact_registry_is_clean(three: Registry) -> None:
    three.put_evidence("churn", "run", "verdict", b"passed")
    seen: list[str] = []
    report = three.verify(progress=seen.append)
    assert (report.clean, report.problems, report.orphans) == (True, (), ())
    assert report.objects == len(seen) == 11  # mark, name, three releases, three manifests, route, evidence (2)
    assert report.size > 0
    assert three.verify("churn").clean


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("models/churn/releases/000000000002.json", "gap"),
        ("models/churn/releases/000000000003.json", "wrong"),
        ("models/churn/routes/000000000001.json", "gap"),
        ("registry.json", "missing"),
    ],
)
def test_verify_names_a_record_that_is_gone(three: Registry, storage: MemoryStorage, key: str, kind: str) -> None:
    three.append_route(next_route("churn", three.current("churn"), change(3)))
    damage(storage, key, None)
    found = {problem.kind: problem.key for problem in three.verify().problems}
    assert kind in found
    assert kind == "wrong" or found[kind] == key


def test_verify_names_a_manifest_that_is_gone_and_the_release_it_is_of(three: Registry, storage: MemoryStorage) -> None:
    digest = three.find("churn@2").id.removeprefix("sha256:")
    damage(storage, f"blobs/sha256/{digest[:2]}/{digest[2:]}", None)
    (problem,) = three.verify().problems
    assert (problem.kind, problem.message) == ("missing", "release.json of churn@2")
    with pytest.raises(SalverError) as caught:
        three.manifest(three.find("churn@2"))
    assert code(caught) == "corrupt"
    assert three.manifest(three.find("churn@1")).entry == "one"


def test_verify_sees_a_record_under_another_name_and_a_route_to_nowhere(
    three: Registry, storage: MemoryStorage
) -> None:
    third = storage.read("models/churn/releases/000000000003.json")
    damage(storage, "models/churn/releases/000000000002.json", third)
    assert [problem.kind for problem in three.verify().problems] == ["wrong"]
    damage(storage, "models/fraud/routes/000000000001.json", storage.read("models/churn/routes/000000000001.json"))
    assert len(three.verify().problems) == 2


def test_verify_lists_what_nothing_refers_to_and_calls_it_harmless(three: Registry, storage: MemoryStorage) -> None:
    storage.create("models/churn/releases/7.json", [b"{}"])
    storage.create("blobs/sha256/zz/stray", [b"x"])
    report = three.verify()
    assert report.clean
    assert report.orphans == ("blobs/sha256/zz/stray", "models/churn/releases/7.json")


def test_a_damaged_old_record_does_not_stop_the_next_publish(three: Registry, storage: MemoryStorage) -> None:
    damage(storage, "models/churn/releases/000000000001.json", b"rubbish")
    assert publish(three, "four").number == 4
    assert three.find("churn").number == 2
    with pytest.raises(SalverError) as caught:
        three.releases("churn")
    assert code(caught) == "corrupt"
    assert "models/churn/releases/000000000001.json" in caught.value.message
