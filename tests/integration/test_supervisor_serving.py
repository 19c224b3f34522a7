"""A whole server with real releases: deployments that go well, those that don't, and followers that die."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import salver
from salver.errors import SalverError
from salver.registry import Registry
from salver.rollout.move import Intent, promote, rollback
from salver.route import Route
from salver.storage.folder import FolderStorage
from salver.supervisor import status
from salver.supervisor.status import RunningServer
from tests.integration.oracle import LyingOracle, SecondOracle, answer
from tests.integration.server import Server

PATIENCE = 120.0
EXAMPLES = [{"key": key, "act": ""} for key in (0, 1, 7)]
PREDICT = "/models/oracle/predict"
SALTS = {"oracle@1": 1, "oracle@2": 2}
Start = Callable[..., Server]


def opened(server: Server) -> Registry:
    return Registry(FolderStorage(server.registry))


def intent() -> Intent:
    return Intent("tester", "2025-01-01T00:00:00Z")


def running(server: Server) -> RunningServer:
    [found] = status.servers(str(server.registry))
    return found


def arrives(server: Server, route: Route, model: str = "oracle") -> dict[str, Any]:
    """What becomes of a route on this server."""
    here = running(server)
    assert status.nudge([here]) == 1
    return status.wait_effective(here, model, route.seq, PATIENCE)


def eventually(true: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < ends, f"{what} did not happen"
        time.sleep(0.05)


def release_of(server: Server, model: str = "oracle") -> str:
    got = server.post(f"/models/{model}/predict", {"key": 7, "act": ""})
    assert got.status == 200, got.body
    return got.headers["x-salver-release"]


@pytest.fixture
def serve(start: Start, tmp_path: Path) -> Start:
    """Start servers with a cache of their own."""

    def begin(*options: str, **settings: Any) -> Server:
        return start("--workers", "1", "--cache", str(tmp_path / "cache"), *options, **settings)

    return begin


@pytest.fixture
def liar(registry: Path, tmp_path: Path) -> Path:
    """Adds oracle@3, which stops reproducing its golden rows once the file given here exists."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "toggle").write_text(str(tmp_path / "lies"))
    salver.release("oracle", LyingOracle, examples=EXAMPLES, registry=str(registry), files=tmp_path / "files")
    return tmp_path / "lies"


class Traffic:
    """Requests one after the other; remembers what was no right answer of a known release."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0
        self.wrong: list[object] = []

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            got = self._server.post(PREDICT, {"key": self.answered, "act": ""})
            salt = SALTS.get(got.headers.get("x-salver-release", ""))
            if got.status != 200 or salt is None or got.json != {"prediction": answer(salt, self.answered)}:
                self.wrong.append((got.status, got.headers, got.body))
            self.answered += 1


def test_a_follower_that_is_killed_costs_no_request_and_its_successor_keeps_every_worker(serve: Start) -> None:
    server = serve()
    before = status.status(running(server))
    workers = server.workers()
    assert len(workers) == 1
    with Traffic(server) as traffic:
        os.kill(before["follower"], signal.SIGKILL)
        eventually(lambda: _follower(server) not in (None, before["follower"]), "a new follower")
        route = promote(opened(server), "oracle", 2, intent())
        assert arrives(server, route)["state"] == "effective"
        seen = traffic.answered
        eventually(lambda: traffic.answered > seen + 20, "more answers")
    assert traffic.wrong == []
    assert set(workers) <= set(server.workers()), "the first release is warm, in the same processes"
    assert release_of(server) == "oracle@2"


def _follower(server: Server) -> int | None:
    try:
        return int(status.status(running(server))["follower"])
    except SalverError:
        return None


def test_a_follower_that_dies_in_the_middle_of_a_deployment_is_succeeded_by_one_that_ends_it(serve: Start) -> None:
    server = serve()
    here = running(server)
    with Traffic(server) as traffic:
        route = promote(opened(server), "oracle", 2, intent())
        for _ in range(3):
            status.nudge([here])
            eventually(lambda: _follower(server) is not None, "a follower")
            os.kill(_follower(server) or -1, signal.SIGKILL)
        eventually(lambda: _follower(server) is not None, "a follower")
        assert arrives(server, route)["state"] == "effective"
    assert traffic.wrong == []
    assert len(server.workers("oracle@2")) == 1, "no worker was started twice"


@pytest.mark.parametrize("where", ["full disk", "closed pipe", "full pipe"])
def test_a_server_that_nobody_hears_loses_no_process_and_a_model_that_prints_answers(
    serve: Start, registry: Path, noting: Path, tmp_path: Path, where: str
) -> None:
    shutil.copytree(noting, registry, dirs_exist_ok=True)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        if where == "full pipe":
            fifo.write_bytes(bytes(fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)))
        server = serve(speaks_to=Path("/dev/full") if where == "full disk" else fifo)
        if where == "closed pipe":
            reader.close()
        _goes_on_unheard(server)


def _goes_on_unheard(server: Server) -> None:
    before = status.status(running(server))["processes"]
    assert arrives(server, promote(opened(server), "oracle", 2, intent()))["state"] == "effective"
    assert arrives(server, rollback(opened(server), "oracle", intent()))["state"] == "effective"
    for number in range(20):
        got = server.post("/models/noting/predict", {"x": number})
        assert (got.status, got.json) == (200, {"prediction": 2.0 * number})
    assert status.status(running(server))["processes"] == before
    assert server.stop() == 0


def test_going_back_loads_nothing(serve: Start) -> None:
    server = serve()
    registry = opened(server)
    arrives(server, promote(registry, "oracle", 2, intent()))
    workers = server.workers()
    with Traffic(server) as traffic:
        for live in (1, 2, 1):
            answer_ = arrives(server, rollback(registry, "oracle", intent(), to=live))
            assert (answer_["state"], answer_["live"]) == ("effective", live)
    assert traffic.wrong == []
    assert server.workers() == workers
    assert "it was warm" in server.log.read_text()


def test_a_release_with_a_damaged_file_is_refused_and_the_old_one_goes_on_also_after_a_restart(
    serve: Start, registry: Path
) -> None:
    server = serve()
    [manifest] = [
        opened(server).manifest(release) for release in opened(server).releases("oracle") if release.number == 2
    ]
    first = opened(server).manifest(opened(server).find("oracle@1"))
    only = {file.sha256 for file in manifest.files} - {file.sha256 for file in first.files}
    digest = sorted(only)[0]
    blob = registry / "blobs" / "sha256" / digest[:2] / digest[2:]
    blob.chmod(0o644)
    blob.write_bytes(b"\0" + blob.read_bytes()[1:])
    with Traffic(server) as traffic:
        outcome = arrives(server, promote(opened(server), "oracle", 2, intent()))
        assert outcome["state"] == "refused"
        assert (outcome["failure"]["code"], outcome["live"]) == ("corrupt", 1)
        eventually(lambda: opened(server).history("oracle")[-1].action == "fallback", "the fallback")
    assert traffic.wrong == []
    fallback = opened(server).history("oracle")[-1]
    assert (fallback.live, fallback.actor) == (1, "automatic")
    assert "corrupt" in fallback.why
    text = server.log.read_text()
    assert "oracle@2 was refused" in text
    assert "oracle@1 keeps serving" in text
    server.stop()
    assert release_of(serve()) == "oracle@1"


def test_a_release_that_does_not_reproduce_its_golden_rows_never_gets_a_request(serve: Start, liar: Path) -> None:
    server = serve()
    liar.touch()
    with Traffic(server) as traffic:
        outcome = arrives(server, promote(opened(server), "oracle", 3, intent()))
    assert traffic.wrong == []
    assert (outcome["state"], outcome["failure"]["code"]) == ("refused", "golden-mismatch")
    assert outcome["failure"]["details"]
    ends = time.monotonic() + PATIENCE
    while server.workers("oracle@3"):
        assert time.monotonic() < ends, "its worker ends"
        time.sleep(0.02)
    [model] = status.status(running(server))["models"]
    assert (model["live"], model["failure"]["release"]) == (1, "oracle@3")


def test_a_server_that_starts_on_a_bad_release_serves_the_one_before_it_and_writes_that_down(
    serve: Start, liar: Path
) -> None:
    """As after a crash in the middle of a deployment: the route is there, and nothing else."""
    registry = Registry(FolderStorage(liar.parent / "registry"))
    promote(registry, "oracle", 3, intent())
    liar.touch()
    server = serve()
    assert release_of(server) == "oracle@1"
    eventually(lambda: registry.history("oracle")[-1].action == "fallback", "the fallback")
    assert [route.live for route in registry.history("oracle")] == [1, 3, 1]


def test_a_server_goes_on_and_starts_again_while_its_registry_is_gone(serve: Start, registry: Path) -> None:
    server = serve()
    moved = registry.rename(registry.with_name("moved"))
    eventually(lambda: "the registry can't be read" in server.log.read_text(), "the notice")
    assert release_of(server) == "oracle@1"
    server.stop()
    again = serve()
    assert release_of(again) == "oracle@1"
    moved.rename(registry)
    eventually(lambda: "can be read again" in again.log.read_text(), "the notice")
    assert arrives(again, promote(opened(again), "oracle", 2, intent()))["state"] == "effective"


def test_a_server_of_all_models_takes_up_one_that_appears_later_and_a_named_one_does_not(
    serve: Start, registry: Path
) -> None:
    everything = serve()
    named = serve("oracle")
    salver.release("second", SecondOracle, examples=EXAMPLES, registry=str(registry))
    route = Registry(FolderStorage(registry)).current("second")
    assert route is not None
    by_port = {server.http: server for server in status.servers(str(registry))}
    first, other = (by_port[f"http://127.0.0.1:{server.port}"] for server in (everything, named))
    assert status.wait_effective(first, "second", route.seq, PATIENCE)["state"] == "effective"
    assert release_of(everything, "second") == "second@1"
    assert status.wait_effective(other, "second", route.seq, PATIENCE)["state"] == "not-served"
    assert named.post("/models/second/predict", {"key": 1, "act": ""}).status == 404


def test_a_gateway_that_starts_anew_serves_what_can_answer_while_another_model_can_not(
    serve: Start, liar: Path, tmp_path: Path
) -> None:
    registry = tmp_path / "registry"
    salver.release("second", LyingOracle, examples=EXAMPLES, registry=str(registry), files=tmp_path / "files")
    server = serve()
    row = {"key": 7, "act": ""}
    eventually(lambda: server.post("/models/second/predict", row).status == 200, "an answer of the second model")
    liar.touch()
    [worker] = server.workers("second@1")
    os.kill(worker, signal.SIGKILL)
    [gateway] = server.gateways()
    os.kill(gateway, signal.SIGKILL)
    eventually(lambda: server.gateways() not in ([], [gateway]), "a new gateway")
    eventually(lambda: _status(server, "/models/oracle/predict", row) == 200, "an answer of the model that can")
    assert _status(server, "/models/second/predict", row) == 503
    assert server.get("/healthz/ready").json == {"ready": False, "waiting_for": ["second"]}
    route = promote(opened(server), "oracle", 2, intent())
    assert arrives(server, route)["state"] == "effective", "nor does it keep others from being promoted"


def _status(server: Server, path: str, row: dict[str, Any]) -> int:
    try:
        return server.post(path, row).status
    except OSError:
        return 0


def test_two_servers_that_refuse_the_same_release_write_one_fallback(serve: Start, liar: Path) -> None:
    servers = [serve(), serve()]
    liar.touch()
    registry = opened(servers[0])
    route = promote(registry, "oracle", 3, intent())
    found = status.servers(str(servers[0].registry))
    assert len(found) == 2
    status.nudge(found)
    for each in found:
        assert status.wait_effective(each, "oracle", route.seq, PATIENCE)["state"] in ("refused", "superseded")
        assert status.wait_effective(each, "oracle", route.seq + 1, PATIENCE)["state"] == "effective"
    assert [(each.live, each.action) for each in registry.history("oracle")][1:] == [(3, "promote"), (1, "fallback")]


def _loaded(server: Server) -> int:
    [release] = status.status(running(server))["releases"]
    return sum(worker["load_ms"] is not None for worker in release["workers"])


def test_a_release_gets_as_many_workers_as_asked_for_and_status_tells_of_each(start: Start, tmp_path: Path) -> None:
    server = start("--workers", "3", "--gateways", "2", "--cache", str(tmp_path / "cache"))
    eventually(lambda: _loaded(server) == 3, "three workers")  # it answers as soon as the first one stands
    said = status.status(running(server))
    [release] = said["releases"]
    assert [worker["name"] for worker in release["workers"]] == ["oracle@1/0", "oracle@1/1", "oracle@1/2"]
    assert sorted(worker["pid"] for worker in release["workers"]) == sorted(server.workers())
    assert all(worker["rss"] > 1 << 20 for worker in release["workers"])
    assert {each["name"] for each in said["processes"]} == {"follower", "gateway/0", "gateway/1"}
    assert [model["state"] for model in said["models"]] == ["ready"]


def test_a_dead_server_is_not_found_and_one_of_another_registry_neither(serve: Start, tmp_path: Path) -> None:
    server = serve()
    other = shutil.copytree(server.registry, tmp_path / "other")
    assert status.servers(str(other)) == []
    gone = running(server)
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    eventually(lambda: status.servers(str(server.registry)) == [], "the end")
    assert not gone.folder.exists()
    with pytest.raises(SalverError) as caught:
        status.status(gone)
    assert caught.value.code == "no-server"
    assert status.nudge([gone]) == 0


@pytest.mark.parametrize(
    "question",
    [{}, {"op": "fly"}, {"op": "wait"}, {"op": "wait", "model": "oracle", "seq": "x", "timeout": 1}, {"op": ["a"]}],
)
def test_a_question_that_makes_no_sense_gets_an_answer_that_says_so(server: Server, question: dict[str, Any]) -> None:
    answer_ = status.ask(running(server), question)
    assert (answer_["ok"], answer_["state"]) == (False, "bad-question")


def test_a_wait_for_a_route_that_does_not_come_ends_in_time(server: Server) -> None:
    assert status.wait_effective(running(server), "oracle", 99, 0.3)["state"] == "timeout"
