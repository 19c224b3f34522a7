"""What is done as memory runs short, and in which order a worker is replaced."""

from __future__ import annotations

import pytest

from salver.access.terms import Terms
from salver.errors import SalverError
from salver.gateway.shortage import EVERYBODY, Shut
from salver.limits import Limits, scarce
from salver.supervisor.cgroup import Held
from salver.supervisor.pressure import LONGEST_PAUSE, PAUSE, Turn, heaviest, level_of, relieve, said, turn_of
from tests.unit.follower_world import World

MIB = 1 << 20


@pytest.mark.parametrize(
    ("used", "last", "level"),
    [
        (949, 0, 0),
        (950, 0, 1),
        (979, 0, 1),
        (980, 0, 2),
        (1200, 0, 2),
        (935, 1, 1),
        (929, 1, 0),
        (965, 2, 2),
        (959, 2, 1),
        (965, 1, 1),
        (929, 2, 0),
        (0, 2, 0),
    ],
)
def test_a_level_begins_at_its_share_and_ends_two_points_below(used: int, last: int, level: int) -> None:
    assert level_of(1000, used, last) == level


def test_a_share_that_swings_about_a_threshold_moves_the_level_once() -> None:
    level, moves = 0, 0
    for used in (940, 951, 949, 952, 948, 950, 940):
        before, level = level, level_of(1000, used, level)
        moves += level != before
    assert (level, moves) == (1, 1)


def test_under_the_same_pressure_the_pauses_between_two_replacements_grow() -> None:
    turn, at = Turn(), []
    for now in range(1000):
        may, turn = turn_of(turn, 1, float(now))
        at += [now] if may else []
    assert at == [0, 60, 180, 420, 900]
    assert turn_of(Turn(0.0, LONGEST_PAUSE), 1, 5.0) == (True, Turn(5.0 + LONGEST_PAUSE, LONGEST_PAUSE))


def test_pressure_that_comes_back_at_once_has_to_wait_as_well_and_then_begins_anew() -> None:
    _, turn = turn_of(Turn(100.0, 480.0), 1, 100.0)
    _, turn = turn_of(turn, 0, 101.0)
    assert turn == Turn(580.0, PAUSE)
    assert turn_of(turn, 1, 102.0) == (False, turn)


def test_the_worker_that_holds_most_is_replaced_and_its_successor_starts_when_it_has_ended() -> None:
    world = World(gateways=2)
    world.serve(7)
    assert heaviest(world.state, {"churn@7/0": 5, "churn@7/1": 9}, 10) == "", "too little would be won"
    name = heaviest(world.state, {"churn@7/0": 50, "churn@7/1": 90}, 10)
    assert relieve(world.state, name) == "salver.worker churn@7/1 is replaced"
    world.settle()
    assert [worker.name for worker in world.table.releases[0].workers] == ["churn@7/0"]
    assert heaviest(world.state, {"churn@7/0": 90}, 10) == "", "one at a time"
    version = world.table.version
    world.ack(version, gateway=0)
    assert world.running == ["churn@7/0", "churn@7/1"], "one gateway still has requests there"
    world.ack(version, gateway=1)
    assert world.running == ["churn@7/0"]
    world.stopped("churn@7/1")
    assert world.running == ["churn@7/0", "churn@7/2"]
    world.ready("churn@7/2")
    assert [worker.name for worker in world.table.releases[0].workers] == ["churn@7/0", "churn@7/2"]
    assert heaviest(world.state, {"churn@7/0": 50, "churn@7/2": 9}, 10) == "churn@7/0"


def test_the_only_worker_ends_when_its_successor_is_proven_and_a_new_follower_goes_on_with_it() -> None:
    world = World(workers=1)
    world.serve(7)
    relieve(world.state, "churn@7/0")
    world.settle()
    assert world.running == ["churn@7/0", "churn@7/1"]
    assert [worker.name for worker in world.table.releases[0].workers] == ["churn@7/1", "churn@7/0"]
    world.follower_restarts()
    assert world.running == ["churn@7/0", "churn@7/1"]
    world.ready("churn@7/1")
    assert [worker.name for worker in world.table.releases[0].workers] == ["churn@7/1"]
    world.ack()
    assert world.running == ["churn@7/1"]


def test_a_worker_of_two_stays_while_the_other_is_down() -> None:
    world = World()
    world.serve(7)
    world.dies("churn@7/0")
    relieve(world.state, "churn@7/1")
    world.settle()
    world.ack()
    assert "churn@7/1" in world.running
    world.starts_again("churn@7/0")
    world.ready("churn@7/0")
    world.ack()
    assert "churn@7/1" not in world.running


def test_a_release_that_was_only_kept_warm_goes_instead() -> None:
    world = World()
    world.serve(7, 8)
    sizes = {name: 100 if name == "churn@7/1" else 10 for name in world.running}
    assert relieve(world.state, heaviest(world.state, sizes, 1)) == "churn@7, which was kept warm, is let go"
    world.settle()
    world.finish()
    assert world.running == world.names(8)


def test_while_the_server_ends_nothing_is_replaced() -> None:
    world = World()
    world.serve(7)
    world.state.draining = True
    assert heaviest(world.state, {"churn@7/0": 50}, 10) == ""


def test_people_read_how_much_is_in_use_of_what_and_what_is_done() -> None:
    done = "salver.worker churn@7/0 is replaced"
    assert said(Held(512 * MIB, 492 * MIB), "limits.memory", 1, done) == (
        "memory: 96 % of 512 MiB in use (limits.memory); bodies over 1 MiB are refused; "
        "salver.worker churn@7/0 is replaced"
    )
    assert said(Held(512 * MIB, 256 * MIB), "the control group", 0, "") == (
        "memory: 50 % of 512 MiB in use (the control group); every request is taken again"
    )


def test_scarce_limits_refuse_a_large_body_as_overloaded_and_change_nothing_else() -> None:
    usual = Limits(rows=7)
    short = scarce(usual)
    problem = short.too_large("body")
    assert (short.body, short.rows) == (MIB, 7)
    assert (problem.code, problem.limit, problem.retry_after) == ("overloaded", "memory", 5.0)
    assert usual.too_large("body").code == "too-large"
    small = Limits(body=1000)
    assert scarce(small) is small, "a body that never fits is not told to come again"


def test_at_the_highest_level_only_health_is_let_through() -> None:
    shut = Shut(Terms(), None)
    assert shut.check(b"", "health", "", 0.0) is EVERYBODY
    for scope in ("predict", "metadata", "docs"):
        refusal = shut.check(b"", scope, "", 0.0)
        assert isinstance(refusal, SalverError)
        assert (refusal.code, refusal.limit) == ("overloaded", "memory")
