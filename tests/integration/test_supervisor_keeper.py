"""The keeper with real children: what dies starts again, what it owns stays open, and everything ends in order."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from salver.supervisor import runtime
from salver.supervisor.__main__ import DESCRIPTORS
from tests.integration.keeping import PATIENCE, Keeping, is_alive


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Callable[..., Keeping]]:
    running: list[Keeping] = []

    def begin(**plan: Any) -> Keeping:
        keeping = Keeping(tmp_path, **plan)
        running.append(keeping)
        keeping.follow()
        return keeping

    yield begin
    for keeping in running:
        keeping.end()


def test_a_worker_is_started_and_what_it_says_is_passed_on(keep: Callable[..., Keeping]) -> None:
    keeping = keep()
    keeping.start_worker("ready")
    started = keeping.event("started", "churn@7/0")
    said = keeping.event("status", "churn@7/0")
    assert said["status"] == {"state": "ready", "load_ms": 1.0}
    assert said["pid"] == started["pid"]
    assert is_alive(started["pid"])
    assert Path(started["address"]).is_socket()
    assert len(os.fsencode(started["address"])) <= 107


def test_a_worker_inherits_its_two_descriptors_and_the_environment_of_its_order_and_nothing_else(
    keep: Callable[..., Keeping], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    keeping = keep()
    keeping.start_worker("look")
    looked = keeping.event("status", "churn@7/0")["status"]
    assert looked["descriptors"] == [0, 1, 2, *looked["own"]]
    assert looked["env"].pop("TOLD") == "yes"
    assert set(looked["env"]) <= {"LC_CTYPE"}, "Python itself sets this one"


def test_a_worker_that_crashes_at_once_waits_longer_each_time_and_the_fifth_death_opens_the_breaker(
    keep: Callable[..., Keeping],
) -> None:
    keeping = keep()
    keeping.start_worker("crash")
    waits = []
    for _ in range(4):
        ended = keeping.event("exited", "churn@7/0")
        assert ended["code"] == 3
        waits.append(ended["restart_in"])
    for wait, step in zip(waits, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert step / 2 - 0.001 <= wait <= step
    assert keeping.event("breaker", "churn@7")["open"] is True
    assert keeping.event("exited", "churn@7/0")["restart_in"] >= 15.0


def test_one_release_that_crashes_does_not_slow_another_one_down(keep: Callable[..., Keeping]) -> None:
    keeping = keep()
    keeping.start_worker("crash")
    keeping.event("breaker", "churn@7")
    keeping.start_worker("crash", "churn@6/0")
    assert keeping.event("exited", "churn@6/0")["restart_in"] <= 0.1


def test_a_worker_that_says_it_can_not_serve_is_reported_and_left_alone(keep: Callable[..., Keeping]) -> None:
    keeping = keep()
    keeping.start_worker("fail")
    ended = keeping.event("exited", "churn@7/0")
    assert ended["status"]["code"] == "golden-mismatch"
    assert ended["status"]["details"] == ["row 1"]
    assert ended["restart_in"] is None
    keeping.order(op="stop", name="churn@7/0", grace=1.0)
    assert keeping.event("exited", "churn@7/0")["code"] is None
    keeping.start_worker("ready")
    assert keeping.event("status", "churn@7/0")["status"]["state"] == "ready"


def test_a_command_that_can_not_be_run_is_a_death_and_not_the_end_of_the_keeper(keep: Callable[..., Keeping]) -> None:
    keeping = keep()
    keeping.order(op="start", name="churn@7/0", group="churn@7", argv=["/no/such/python"], env={})
    ended = keeping.event("exited", "churn@7/0")
    assert (ended["code"], ended["status"]["code"]) == (127, "start-failed")
    keeping.start_worker("ready", "churn@7/1")
    keeping.event("status", "churn@7/1")


@contextmanager
def files_left(keeping: Keeping, left: int) -> Iterator[None]:
    """The keeper can open only so many more files for a while."""
    pid = keeping.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    held = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = (number for number in range(max(held) + left + 2) if number not in held)
    last = [next(free) for _ in range(left + 1)][-1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (last, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_worker_for_which_no_files_are_left_is_a_failure_and_not_the_end_of_follower_or_keeper(
    keep: Callable[..., Keeping], left: int
) -> None:
    keeping = keep()
    keeping.wait(lambda: bool(keeping.gateway_pids()), "a gateway's start")
    with files_left(keeping, left):
        keeping.start_worker("ready")
        ended = keeping.event("exited", "churn@7/0")
    assert (ended["code"], ended["status"]["code"], ended["restart_in"]) == (127, "start-failed", None)
    assert "Too many open files" in ended["status"]["message"]
    keeping.order(op="stop", name="churn@7/0", grace=1.0)
    assert keeping.event("exited", "churn@7/0")["code"] is None
    keeping.start_worker("ready")
    assert keeping.event("status", "churn@7/0")["status"]["state"] == "ready"


def test_a_follower_for_which_no_files_are_left_is_started_once_there_are(keep: Callable[..., Keeping]) -> None:
    keeping = keep()
    keeping.wait(lambda: bool(keeping.gateway_pids()), "a gateway's start")
    with files_left(keeping, 0):
        keeping.events.close()
        keeping.link.close()
        keeping.wait(lambda: "follower can't be started" in keeping.errors.read_text(), "a start in vain")
    children = {child["name"]: child for child in keeping.follow()["children"]}
    assert children["follower"]["restarts"] >= 2
    assert is_alive(keeping.gateway_pids()[0])


def test_the_keeper_takes_as_many_files_as_it_may_have(keep: Callable[..., Keeping]) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        keeping = keep()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    hard = DESCRIPTORS if before[1] == resource.RLIM_INFINITY else before[1]
    assert resource.prlimit(keeping.process.pid, resource.RLIMIT_NOFILE) == (min(DESCRIPTORS, hard), before[1])


def test_a_worker_killed_while_healthy_is_back_on_the_same_address_and_nobody_is_blamed(
    keep: Callable[..., Keeping],
) -> None:
    keeping = keep()
    keeping.start_worker("ready")
    first = keeping.event("started", "churn@7/0")
    for _ in range(6):
        keeping.event("status", "churn@7/0")
        time.sleep(1.05)
        os.kill(first["pid"], signal.SIGKILL)
        assert keeping.event("exited", "churn@7/0")["restart_in"] <= 0.1
        again = keeping.event("started", "churn@7/0")
        assert again["address"] == first["address"]
        first = again


def test_deaths_while_alone_open_no_breaker(keep: Callable[..., Keeping]) -> None:
    keeping = keep()
    keeping.start_worker("alone")
    for _ in range(7):
        ended = keeping.event("exited", "churn@7/0")
        assert ended["code"] == -signal.SIGABRT
        assert ended["restart_in"] <= 0.1


def test_a_client_of_a_dead_worker_waits_in_its_queue_and_is_not_refused(keep: Callable[..., Keeping]) -> None:
    keeping = keep()
    keeping.start_worker("fail")
    address = keeping.event("started", "churn@7/0")["address"]
    keeping.event("exited", "churn@7/0")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address)


def test_a_worker_that_does_not_end_when_told_is_killed_after_its_grace(keep: Callable[..., Keeping]) -> None:
    keeping = keep()
    keeping.start_worker("stubborn")
    address = keeping.event("started", "churn@7/0")["address"]
    keeping.event("status", "churn@7/0")
    keeping.order(op="stop", name="churn@7/0", grace=0.2)
    ended = keeping.event("exited", "churn@7/0")
    assert ended["code"] == -signal.SIGKILL
    assert ended["restart_in"] is None
    assert not Path(address).exists()


def test_an_order_that_makes_no_sense_is_passed_over(keep: Callable[..., Keeping]) -> None:
    keeping = keep()
    for order in ({"op": "start"}, {"op": "fly"}, {"op": "stop", "name": "x"}, {"no": 1}, {"op": "stop"}):
        keeping.order(**order)
    keeping.link.sendall(b"no json\n[1]\n")
    keeping.order(op="start", name="a@1/0", group="a@1", argv=3, env=None)
    keeping.order(op="stop", name="follower", grace=0)
    keeping.order(op="stop", name="gateway/0", grace=0)
    keeping.start_worker("ready")
    assert keeping.event("status", "churn@7/0")["status"]["state"] == "ready"
    keeping.wait(lambda: bool(keeping.gateway_pids()), "a gateway's start")
    assert is_alive(keeping.gateway_pids()[0])


def test_a_new_follower_hears_of_every_child_its_last_words_and_what_was_remembered(
    keep: Callable[..., Keeping],
) -> None:
    keeping = keep()
    keeping.start_worker("ready")
    pid = keeping.event("status", "churn@7/0")["pid"]
    keeping.start_worker("fail", "churn@8/0")
    keeping.event("exited", "churn@8/0")
    keeping.order(op="remember", note={"live": 1})
    keeping.order(op="remember", note={"live": [7, "é"]})
    keeping.events.close()
    keeping.link.close()
    first = keeping.follow()
    children = {child["name"]: child for child in first["children"]}
    assert first["note"] == {"live": [7, "é"]}
    assert (children["churn@7/0"]["pid"], children["churn@7/0"]["status"]["state"]) == (pid, "ready")
    assert children["churn@8/0"]["gone"]
    assert children["churn@8/0"]["status"]["code"] == "golden-mismatch"
    assert is_alive(pid)
    assert children["follower"]["restarts"] == 1


def test_the_port_stays_open_while_gateways_come_and_go(keep: Callable[..., Keeping]) -> None:
    keeping = keep(gateways=2)
    keeping.wait(lambda: len(keeping.gateway_pids()) == 2, "the gateways' start")
    for round_ in range(3):
        for pid in keeping.gateway_pids()[-2:]:
            os.kill(pid, signal.SIGKILL)
        assert keeping.ask() in (b"0", b"1")
        due = 2 * (round_ + 2)
        keeping.wait(lambda: len(keeping.gateway_pids()) >= due, "the gateways' return")  # noqa: B023 - used at once


def test_no_child_outlives_a_keeper_that_is_killed(keep: Callable[..., Keeping]) -> None:
    keeping = keep()
    keeping.start_worker("stubborn")
    worker = keeping.event("status", "churn@7/0")["pid"]
    keeping.wait(lambda: bool(keeping.gateway_pids()), "a gateway's start")
    children = [worker, *keeping.gateway_pids()]
    keeping.process.kill()
    keeping.process.wait()
    keeping.wait(lambda: not any(map(is_alive, children)), "the children's end")
    left = list(keeping.root.iterdir())
    assert left
    assert list(runtime.found(str(keeping.root))) == []
    assert [folder for folder in keeping.root.iterdir() if f"{keeping.process.pid}-" in folder.name] == []


def test_sigterm_ends_gateways_first_then_workers_and_leaves_nothing(keep: Callable[..., Keeping]) -> None:
    keeping = keep(mode="stubborn", drain_timeout=60.0)
    keeping.start_worker("ready")
    worker = keeping.event("status", "churn@7/0")["pid"]
    keeping.wait(lambda: bool(keeping.gateway_pids()), "a gateway's start")
    keeping.process.send_signal(signal.SIGTERM)
    keeping.event("drain")
    keeping.wait(lambda: keeping.heard("gateway 0 SIGTERM"), "the gateway's order")
    time.sleep(0.3)
    assert is_alive(worker), "a request in flight may still need it"
    os.kill(keeping.gateway_pids()[0], signal.SIGKILL)
    keeping.process.wait(PATIENCE)
    assert keeping.process.returncode == 0
    assert not is_alive(worker)
    assert len(keeping.gateway_pids()) == 1, "a gateway that ends while draining is not started again"
    assert not [folder for folder in keeping.root.iterdir() if f"{keeping.process.pid}-" in folder.name]


def test_a_worker_that_dies_during_the_drain_is_started_again_for_what_is_in_flight(
    keep: Callable[..., Keeping],
) -> None:
    keeping = keep(mode="stubborn", drain_timeout=60.0)
    keeping.start_worker("ready")
    worker = keeping.event("status", "churn@7/0")["pid"]
    keeping.wait(lambda: bool(keeping.gateway_pids()), "a gateway's start")
    keeping.process.send_signal(signal.SIGTERM)
    keeping.event("drain")
    os.kill(worker, signal.SIGKILL)
    assert keeping.event("started", "churn@7/0")["pid"] != worker


def test_control_c_is_told_to_gateways_as_such_and_a_second_one_ends_what_does_not_listen(
    keep: Callable[..., Keeping],
) -> None:
    keeping = keep(mode="stubborn", drain_timeout=600.0)
    keeping.wait(lambda: bool(keeping.gateway_pids()), "a gateway's start")
    keeping.process.send_signal(signal.SIGINT)
    keeping.wait(lambda: keeping.heard("gateway 0 SIGINT"), "the gateway's order")
    assert keeping.process.poll() is None
    keeping.process.send_signal(signal.SIGINT)
    keeping.process.wait(PATIENCE)
    assert keeping.process.returncode == 0
    assert not any(map(is_alive, keeping.gateway_pids()))


def test_gateways_that_do_not_end_in_time_are_killed(keep: Callable[..., Keeping]) -> None:
    keeping = keep(mode="stubborn", drain_timeout=-4.5)
    keeping.wait(lambda: bool(keeping.gateway_pids()), "a gateway's start")
    keeping.process.send_signal(signal.SIGTERM)
    keeping.process.wait(PATIENCE)
    assert keeping.process.returncode == 0


def test_stop_before_anything_has_started_is_an_orderly_end(keep: Callable[..., Keeping]) -> None:
    keeping = keep(gateways=3, gateway=["/no/such/gateway"])
    keeping.process.send_signal(signal.SIGTERM)
    keeping.process.wait(PATIENCE)
    assert keeping.process.returncode == 0


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGTERM, "SIGTERM: requests are taken for 0.2 s more, then what is in flight is answered, within 5 s"),
        (signal.SIGINT, "SIGINT: what is in flight is answered, within 5 s"),
    ],
)
def test_a_keeper_that_is_stopped_says_that_it_drains_and_that_it_ended(
    keep: Callable[..., Keeping], number: int, said: str
) -> None:
    keeping = keep(drain_delay=0.2)
    keeping.wait(lambda: bool(keeping.gateway_pids()), "a gateway's start")
    keeping.process.send_signal(number)
    keeping.event("drain")
    keeping.process.send_signal(number)
    assert keeping.process.wait(PATIENCE) == 0
    assert keeping.errors.read_text().splitlines() == [f"salver: {said}", "salver: ended"]


def test_a_keeper_to_whom_nobody_listens_ends_in_order_too(keep: Callable[..., Keeping], tmp_path: Path) -> None:
    unheard = tmp_path / "stderr"
    os.mkfifo(unheard)
    listener = os.open(unheard, os.O_RDONLY | os.O_NONBLOCK)
    keeping = keep()
    keeping.wait(lambda: bool(keeping.gateway_pids()), "a gateway's start")
    os.close(listener)
    keeping.process.send_signal(signal.SIGTERM)
    assert keeping.process.wait(PATIENCE) == 0
