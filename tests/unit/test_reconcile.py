"""From wanted and seen to what should be done, case by case."""

from __future__ import annotations

from collections import deque

from salver.supervisor import inquiry, state
from tests.unit.follower_world import MODEL, Open, Publish, Start, World


def test_a_route_leads_through_open_and_start_to_live_and_each_step_waits_for_the_one_before() -> None:
    world = World()
    world.route(7)
    assert world.of(Open) == [Open(MODEL, 7)]
    assert not world.running
    world.opened(7)
    assert world.running == ["churn@7/0", "churn@7/1"]
    assert world.live is None
    world.ready("churn@7/0")
    assert world.live == 7, "where nothing answers yet, one proven worker is enough"
    assert [worker.address for worker in world.table.releases[0].workers] == ["/run/churn@7/0", "/run/churn@7/1"]
    assert not world.told("live"), "no gateway has said that it swapped"
    world.ack()
    assert [(tell.release, tell.workers, tell.loading) for tell in world.told("live")] == [("churn@7", 1, 1)]


def test_no_more_workers_load_at_once_than_there_are_cores_and_a_slow_load_holds_up_no_other() -> None:
    world = World(loads_at_once=1)
    world.route(7)
    world.opened(7)
    assert world.running == ["churn@7/0"]
    world.ready("churn@7/0")
    assert world.live == 7
    assert world.running == ["churn@7/0", "churn@7/1"]
    slow = World(loads_at_once=1)
    slow.route(7)
    slow.opened(7)
    slow.passes(state.LONG_LOAD)
    assert slow.running == ["churn@7/0", "churn@7/1"]


def test_a_model_without_a_route_is_known_to_gateways_and_nothing_is_loaded() -> None:
    world = World()
    state.add_model(world.state, MODEL)
    world.settle()
    assert world.table.routed == (MODEL,)
    assert world.table.live == {}
    assert not world.of(Open)


def test_nothing_is_done_twice() -> None:
    world = World()
    world.serve(7)
    before = len(world.done)
    for _ in range(5):
        world.passes(100.0)
        world.ack()
    assert len(world.done) == before


def test_the_old_release_answers_until_the_new_one_is_proven_and_stays_warm_after() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.opened(8)
    world.ready("churn@8/0")
    assert (world.live, world.loaded) == (7, [7])
    world.ready("churn@8/1")
    assert (world.live, world.loaded) == (8, [7, 8])
    world.finish()
    world.passes(3600)
    assert world.running == [*world.names(7), *world.names(8)]


def test_going_back_to_the_warm_release_is_one_table_and_no_load() -> None:
    world = World()
    world.serve(7, 8)
    before = len(world.done)
    world.route(7, "rollback")
    assert [type(action) for action in world.done[before:]] == [Publish]
    assert world.live == 7
    world.finish()
    assert world.told("live")[-1].seconds is None
    assert world.running == [*world.names(7), *world.names(8)], "the one that was left is warm now"


def test_only_the_last_live_release_stays_warm_and_its_forerunner_ends_after_every_gateway_let_go() -> None:
    world = World(gateways=2)
    world.serve(6, 7)
    world.route(8)
    world.load(8)
    assert world.loaded == [6, 7, 8], "first the swap is confirmed, then the old one leaves"
    world.ack()
    assert (world.live, world.loaded) == (8, [7, 8])
    assert world.names(6)[0] in world.running
    version = world.table.version
    world.ack(version, gateway=0)
    assert world.names(6)[0] in world.running, "one gateway still has requests there"
    world.ack(version, gateway=1)
    assert world.running == [*world.names(7), *world.names(8)]


def test_a_later_table_does_not_prove_that_a_gateway_let_go_of_what_left_before() -> None:
    world = World()
    world.serve(6, 7, 8)
    world.route(9)
    world.load(9)
    world.ack()
    left = world.table.version
    assert world.loaded == [8, 9]
    world.route(8, "rollback")
    world.ack(left + 1)
    assert world.names(7)[0] in world.running
    world.ack(left)
    assert world.names(7)[0] not in world.running


def test_a_gateway_that_never_confirms_does_not_keep_old_workers_for_ever() -> None:
    world = World(drain_timeout=30.0)
    world.serve(6, 7)
    world.route(8)
    world.load(8)
    world.ack()
    world.passes(39.0)
    assert world.names(6)[0] in world.running
    world.passes(2.0)
    assert world.names(6)[0] not in world.running


def test_a_swap_is_in_force_when_all_gateways_have_it() -> None:
    world = World(gateways=2)
    seq = world.route(7)
    world.load(7)
    world.ack(gateway=1)
    assert inquiry.outcome(world.state, MODEL, seq) is None
    world.ack(gateway=0)
    answer = inquiry.outcome(world.state, MODEL, seq)
    assert answer is not None
    assert (answer["state"], answer["live"]) == ("effective", 7)


def test_a_gateway_that_is_away_is_waited_for_but_not_for_ever() -> None:
    world = World(gateways=2)
    world.serve(7)
    state.gateway_went(world.state, 1)
    seq = world.route(8)
    world.load(8)
    world.ack(gateway=0)
    assert inquiry.outcome(world.state, MODEL, seq) is None
    world.passes(11.0)
    assert inquiry.outcome(world.state, MODEL, seq) is not None


def test_without_any_gateway_nothing_is_in_force() -> None:
    world = World(gateways=1)
    state.gateway_went(world.state, 0)
    seq = world.route(7)
    world.load(7)
    world.passes(1000.0)
    assert inquiry.outcome(world.state, MODEL, seq) is None


def test_a_promotion_while_another_release_loads_drops_that_one() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.opened(8)
    world.route(9)
    assert world.running == world.names(7)
    world.finish()
    world.load(9)
    world.finish()
    assert (world.live, world.loaded) == (9, [7, 9])
    assert world.running == [*world.names(7), *world.names(9)]


def test_a_release_that_is_wanted_again_while_it_is_fetched_is_fetched_once() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.route(7, "rollback")
    world.route(8)
    assert world.of(Open).count(Open(MODEL, 8)) == 1
    world.load(8)
    assert world.live == 8


def test_a_fetch_that_nobody_waits_for_any_more_starts_nothing() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.route(7, "rollback")
    world.opened(8)
    assert world.running == world.names(7)


def test_a_release_that_is_wanted_again_while_its_workers_end_waits_for_their_end() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.opened(8)
    world.fails("churn@8/0")
    world.route(8)
    world.opened(8)
    starts = len(world.of(Start))
    world.stopped("churn@8/0")
    world.stopped("churn@8/1")
    assert len(world.of(Start)) == starts + 2
    assert len(world.told("refused")) == 1, "the old attempt's failure is not the new one's"
    for name in world.names(8):
        world.ready(name)
    assert world.live == 8


def test_a_leaving_release_that_is_wanted_again_comes_back_without_a_load() -> None:
    world = World()
    world.serve(6, 7)
    world.route(8)
    world.load(8)
    world.ack()
    assert world.loaded == [7, 8]
    opens = len(world.of(Open))
    world.route(6, "rollback")
    assert (world.live, world.loaded) == (6, [6, 7, 8])
    assert len(world.of(Open)) == opens
    world.finish()
    assert (world.live, world.loaded) == (6, [6, 8])


def test_a_dead_worker_of_the_live_release_changes_no_table() -> None:
    world = World()
    world.serve(7)
    version = world.table.version
    for name in world.names(7):
        world.dies(name)
    assert (world.table.version, world.live) == (version, 7)
    assert inquiry.describe(world.state)["models"][0]["state"] == "crashing"
    for name in world.names(7):
        world.starts_again(name)
        world.ready(name)
    assert (world.table.version, world.live) == (version, 7)
    assert inquiry.describe(world.state)["models"][0]["state"] == "ready"


def test_a_warm_release_without_a_proven_worker_does_not_become_live_before_it_has_one() -> None:
    world = World()
    world.serve(7, 8)
    for name in world.names(7):
        world.dies(name)
    world.route(7, "rollback")
    assert world.live == 8
    world.starts_again("churn@7/0")
    assert world.live == 8
    world.ready("churn@7/0")
    assert world.live == 7


def test_a_route_that_names_the_live_release_again_is_in_force_at_once() -> None:
    world = World()
    world.serve(7)
    tables = len(world.tables)
    seq = world.route(7)
    assert inquiry.outcome(world.state, MODEL, seq)["state"] == "effective"  # type: ignore[index]
    assert len(world.tables) == tables
    assert len(world.told("live")) == 1


def test_a_route_that_was_overtaken_is_said_to_be_superseded_and_by_whom() -> None:
    world = World()
    world.serve(7)
    seq = world.route(8)
    world.route(7, "rollback")
    answer = inquiry.outcome(world.state, MODEL, seq)
    assert answer is not None
    assert (answer["state"], answer["ok"], answer["route"]["action"]) == ("superseded", False, "rollback")


def test_models_do_not_wait_for_each_other() -> None:
    world = World()
    world.route(1, model="churn")
    world.route(5, model="fraud")
    world.load(5, model="fraud")
    assert world.table.live == {"fraud": 5}
    assert world.table.routed == ("churn", "fraud")
    world.load(1)
    assert world.table.live == {"fraud": 5, "churn": 1}


def test_a_slot_stays_while_its_release_is_loaded_and_the_oldest_freed_one_is_used_last() -> None:
    world = World()
    world.serve(1, 2, 3, 4)
    assert world.table.slots == {"churn@3": 2, "churn@4": 3}
    assert list(world.state.free_slots)[-2:] == [0, 1]
    world.state.free_slots.clear()
    world.state.free_slots.extend([0, 1])
    world.serve(5)
    assert world.table.slots == {"churn@4": 3, "churn@5": 0}


def test_more_releases_than_slots_share_the_last_one_and_give_it_back_once() -> None:
    world = World(workers=1)
    world.state.free_slots = deque([7])
    for model in ("a", "b", "c"):
        world.route(1, model=model)
        world.load(1, model=model)
    assert world.table.slots == {"a@1": 7, "b@1": 255, "c@1": 255}
    for number in (2, 3):
        world.route(number, model="b")
        world.load(number, model="b")
        world.ack()
        world.ack()
    assert "b@1" not in world.table.slots
    assert 255 not in world.state.free_slots, "another release still counts there"


def test_draining_is_told_to_gateways_and_starts_nothing_more() -> None:
    world = World()
    world.serve(7)
    world.state.draining = True
    world.settle()
    assert world.table.draining
    assert world.table.live == {MODEL: 7}
    world.route(8)
    assert world.of(Open)[-1] != Open(MODEL, 8)
    assert world.running == world.names(7)


def test_a_new_follower_changes_nothing_where_nothing_has_changed() -> None:
    world = World(gateways=2)
    world.serve(6, 7, 8)
    table, running, before = world.table, world.running, len(world.done)
    world.follower_restarts()
    world.finish()
    assert world.table == table
    assert world.running == running
    assert world.done[before:] == []
    world.route(7, "rollback")
    assert world.live == 7, "what was warm still is"


def test_a_new_follower_gives_requests_on_a_release_that_left_all_the_time_they_may_need() -> None:
    world = World(drain_timeout=30.0)
    world.serve(6, 7)
    world.route(8)
    world.load(8)
    world.ack()
    world.follower_restarts()
    world.ack()
    world.passes(39.0)
    assert set(world.names(6)) <= set(world.running)
    world.passes(2.0)
    assert world.running == [*world.names(7), *world.names(8)]


def test_a_gateway_that_is_away_for_a_moment_may_still_have_requests_on_what_left() -> None:
    world = World(gateways=2)
    world.serve(6, 7)
    world.route(8)
    world.load(8)
    world.ack()
    state.gateway_went(world.state, 1)
    world.ack(gateway=0)
    assert set(world.names(6)) <= set(world.running)
    state.gateway_came(world.state, 1)
    world.ack()
    assert world.running == [*world.names(7), *world.names(8)]


def test_a_new_follower_goes_on_with_a_load_that_had_begun_and_starts_no_worker_twice() -> None:
    world = World()
    world.serve(7)
    world.route(8)
    world.opened(8)
    world.ready("churn@8/0")
    world.follower_restarts()
    assert world.running == [*world.names(7), *world.names(8)]
    world.opened(8)
    world.ready("churn@8/1")
    assert world.live == 8


def test_a_swap_that_was_not_confirmed_when_the_follower_died_is_confirmed_to_the_next_one() -> None:
    world = World()
    world.serve(7)
    seq = world.route(8)
    world.load(8)
    world.follower_restarts()
    assert inquiry.outcome(world.state, MODEL, seq) is None
    world.ack()
    assert inquiry.outcome(world.state, MODEL, seq)["state"] == "effective"  # type: ignore[index]
    assert world.loaded == [7, 8]
