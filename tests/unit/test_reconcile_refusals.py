"""What becomes of a release that can't be live, or not yet: people are told, and the old one goes on."""

from __future__ import annotations

import pytest

from salver.route import Route
from salver.supervisor import inquiry, state
from tests.unit.follower_world import MODEL, Fallback, Open, Tell, World


@pytest.mark.parametrize("code", ["corrupt", "bad-manifest", "no-such-release", "format-too-new", "internal"])
def test_a_release_that_can_not_be_opened_is_refused_at_once_and_the_old_one_goes_on(code: str) -> None:
    world = World()
    world.serve(7)
    seq = world.route(8)
    world.open_failed(8, code)
    assert (world.live, world.loaded) == (7, [7])
    [fallback] = world.of(Fallback)
    assert (fallback.model, fallback.seq, fallback.live) == (MODEL, seq, 7)
    assert code in fallback.why
    answer = inquiry.outcome(world.state, MODEL, seq)
    assert answer is not None
    assert (answer["state"], answer["failure"]["code"], answer["live"]) == ("refused", code, 7)


@pytest.mark.parametrize("code", ["load-failed", "golden-mismatch", "environment-differs"])
def test_a_worker_that_refuses_its_release_ends_the_attempt_for_all_of_them(code: str) -> None:
    world = World()
    world.serve(7)
    seq = world.route(8)
    world.opened(8)
    world.ready("churn@8/1")
    world.fails("churn@8/0", code, hint="look", details=["row 3"])
    assert (world.live, world.running) == (7, world.names(7))
    [tell] = world.told("refused")
    assert (tell.release, tell.keeps) == ("churn@8", "churn@7")
    assert tell.failure is not None
    assert (tell.failure.code, tell.failure.hint, tell.failure.details) == (code, "look", ("row 3",))
    assert [fallback.live for fallback in world.of(Fallback)] == [7]
    world.fallback_written()
    world.finish()
    assert inquiry.outcome(world.state, MODEL, seq)["state"] == "refused"  # type: ignore[index]
    assert inquiry.outcome(world.state, MODEL, seq + 1)["state"] == "effective"  # type: ignore[index]
    assert world.state.models[MODEL].failure is not None, "people still see why"
    assert len(world.of(Fallback)) == 1


def test_what_a_worker_writes_is_not_believed_to_be_well_formed() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.opened(8)
    world.fails("churn@8/0", code=["no", "code"], details="not a list", hint=None)  # type: ignore[arg-type]
    failure = world.state.models[MODEL].failure
    assert failure is not None
    assert (failure.code, failure.details, failure.hint) == ("load-failed", (), "")


def test_a_release_whose_workers_die_while_loading_is_refused_when_the_breaker_opens() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.opened(8)
    world.dies("churn@8/0")
    assert not world.told("refused")
    state.breaker_moved(world.state, "churn@8", True)
    world.settle()
    [tell] = world.told("refused")
    assert tell.failure is not None
    assert tell.failure.code == "start-failed"
    assert (world.live, world.running) == (7, world.names(7))


def test_a_release_that_loads_for_ever_is_refused_after_the_time_for_it() -> None:
    world = World(load_timeout=60.0)
    world.serve(7)
    world.route(8)
    world.opened(8)
    world.ready("churn@8/0")
    world.passes(60.0)
    assert not world.told("refused")
    world.passes(1.0)
    assert world.told("refused")
    assert world.running == world.names(7)


def test_time_spent_fetching_is_no_time_spent_loading() -> None:
    world = World(load_timeout=60.0)
    world.route(8)
    world.passes(10_000.0)
    world.opened(8)
    world.passes(59.0)
    assert not world.told("refused")


def test_without_another_release_to_serve_a_refused_one_leaves_the_model_not_ready_and_says_why() -> None:
    world = World()
    seq = world.route(1, "first")
    world.opened(1)
    world.fails("churn@1/0")
    assert world.live is None
    assert not world.of(Fallback)
    assert inquiry.outcome(world.state, MODEL, seq)["state"] == "refused"  # type: ignore[index]
    [described] = inquiry.describe(world.state)["models"]
    assert (described["state"], described["failure"]["code"]) == ("failed", "golden-mismatch")
    opens = len(world.of(Open))
    world.finish()
    world.passes(3600.0)
    assert len(world.of(Open)) == opens, "what is wrong with the release does not pass"


def test_a_passing_cause_is_tried_three_times_at_once_then_every_30_seconds() -> None:
    world = World()
    world.route(1, "first")
    world.open_failed(1, "storage-failed")
    assert [tell.kind for tell in world.told("refused")] == []
    world.passes(1.0)
    world.open_failed(1, "storage-failed")
    world.passes(1.0)
    world.open_failed(1, "storage-failed")
    assert len(world.of(Open)) == 3
    world.passes(29.0)
    assert len(world.of(Open)) == 3
    world.passes(1.0)
    assert len(world.of(Open)) == 4
    world.load(1)
    world.ack()
    assert world.live == 1
    assert world.state.models[MODEL].seq == 1


def test_a_passing_cause_makes_no_fallback_before_the_third_try() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    for tries in (1, 2, 3):
        assert not world.of(Fallback)
        world.open_failed(8, "storage-failed")
        if tries < 3:
            world.passes(1.0)
    assert [fallback.live for fallback in world.of(Fallback)] == [7]


def test_after_a_cold_start_on_a_bad_release_the_one_before_it_serves_and_that_is_written_down() -> None:
    world = World()
    world.routes[MODEL] = []
    for live in (6, 7, 8):
        world.routes[MODEL].append(
            Route(MODEL, len(world.routes[MODEL]) + 1, live, "ann", "2025-01-01T00:00:00Z", "promote")
        )
    state.routes_came(world.state, MODEL, world.routes[MODEL])
    world.settle()
    assert world.of(Open) == [Open(MODEL, 8)]
    world.open_failed(8, "corrupt")
    assert world.of(Open)[-1] == Open(MODEL, 7)
    world.load(7)
    assert not world.of(Fallback), "first it serves"
    world.ack()
    assert [(fallback.seq, fallback.live) for fallback in world.of(Fallback)] == [(3, 7)]
    world.fallback_written()
    world.finish()
    assert (world.live, world.state.models[MODEL].seq) == (7, 4)
    assert world.of(Open)[2:] == []


def test_a_fallback_that_can_not_be_written_is_tried_again() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.open_failed(8, "corrupt")
    state.fallback_failed(world.state, MODEL, world.now)
    world.passes(29.0)
    assert len(world.of(Fallback)) == 1
    world.passes(1.0)
    assert len(world.of(Fallback)) == 2


def test_a_newer_route_wins_over_a_fallback_and_a_refused_release_may_be_promoted_again() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.open_failed(8, "corrupt")
    world.finish()
    world.route(8)
    assert world.of(Open)[-1] == Open(MODEL, 8)
    world.load(8)
    world.finish()
    assert world.live == 8
    assert world.state.models[MODEL].failure is None


def test_a_passing_cause_at_a_cold_start_does_not_load_the_release_before_at_once() -> None:
    world = World()
    routes = [Route(MODEL, seq, seq, "ann", "2025-01-01T00:00:00Z", "promote") for seq in (1, 2)]
    state.routes_came(world.state, MODEL, routes)
    world.settle()
    world.open_failed(2, "storage-failed")
    assert world.of(Open) == [Open(MODEL, 2)]
    world.passes(1.0)
    assert world.of(Open) == [Open(MODEL, 2), Open(MODEL, 2)]


def comes_back_and_fails(gateways: int = 1) -> tuple[World, int]:
    """Release 6 has left, comes back with a worker that had died, and is refused; and the table that left it out."""
    world = World(gateways)
    world.serve(6, 7)
    world.route(8)
    world.load(8)
    world.ack()
    left = world.table.version
    assert world.loaded == [7, 8]
    world.dies("churn@6/0")
    world.route(6, "rollback")
    world.starts_again("churn@6/0")
    world.fails("churn@6/0")
    assert world.told("refused")[-1].release == "churn@6"
    return world, left


def test_a_release_that_comes_back_and_is_refused_keeps_its_workers_until_every_gateway_let_go() -> None:
    world, left = comes_back_and_fails(gateways=2)
    assert "churn@6/1" in world.running
    world.ack(left, gateway=0)
    assert "churn@6/1" in world.running, "one gateway still has requests there"
    world.ack(left, gateway=1)
    assert world.running == [*world.names(7), *world.names(8)]


def test_a_release_that_comes_back_and_is_refused_gives_back_its_slot() -> None:
    world, _ = comes_back_and_fails()
    world.finish()
    assert len(world.state.slots) == 2
    assert len(world.state.free_slots) == state.SLOTS - 2


def test_a_release_that_was_refused_while_it_left_is_tried_anew_when_it_is_promoted_again() -> None:
    world, _ = comes_back_and_fails()
    world.stopped("churn@6/0")
    world.route(6)
    assert len(world.told("refused")) == 1, "the old attempt's failure is not the new one's"
    world.ready("churn@6/0")
    assert world.live == 6
    world.finish()
    assert len(world.state.free_slots) == state.SLOTS - len(world.loaded)


def test_a_worker_that_could_not_even_be_started_ends_the_attempt_with_the_keepers_reason() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.opened(8)
    failed = {"state": "failed", "code": "start-failed", "message": "churn@8/0 can't be started: no room"}
    state.process_ended(world.state, "churn@8/0", 127, None, failed)
    world.settle()
    [tell] = world.told("refused")
    assert tell.failure is not None
    assert (tell.failure.code, tell.failure.message) == ("start-failed", failed["message"])
    assert (world.live, world.running) == (7, world.names(7))


def test_what_is_not_ready_yet_is_told_each_time_that_it_has_taken_twice_as_long() -> None:
    world = World(workers=1)
    world.route(1)
    world.passes(9)
    assert world.of(Tell) == []
    world.passes(1)
    world.passes(9)
    world.opened(1)
    world.passes(1)
    world.passes(15)
    told = [Tell("opening", "churn@1", seconds=10.0), Tell("starting", "churn@1", seconds=20.0)]
    assert world.of(Tell) == told
    world.ready("churn@1/0")
    world.ack()
    world.passes(100)
    assert [tell.kind for tell in world.of(Tell)] == ["opening", "starting", "live"]
    world.route(2)
    world.passes(10)
    assert world.of(Tell)[-1] == Tell("opening", "churn@2", keeps="churn@1", seconds=10.0)
