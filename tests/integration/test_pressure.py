"""Memory runs short: large bodies are refused, then everything, a worker is replaced, and no other request fails."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

import salver
from salver.signature import Column, Signature
from salver.supervisor.cgroup import V2, Groups, Held
from salver.supervisor.pressure import LOOK
from tests.integration.filling import Filling
from tests.integration.server import Server
from tests.integration.test_grpc import place, wait_serving
from tests.integration.watched import PATIENCE, comes, sample
from tests.ports import free_port

MIB = 1 << 20
BUDGET = 2048 * MIB
SIGNATURE = Signature((Column("mib", "int"),), (Column("kept", "int"),))
LARGE = json.dumps({"mib": 0, "more": "x" * (MIB + 1000)}).encode()
PREDICT = "/models/filling/predict"
Result = tuple[int, str, str]
"""Status, code and what a refusal says, or its retry-after."""


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with the model; it is never asked twice, so that a worker that ends too early fails requests."""
    registry = tmp_path_factory.mktemp("filling") / "registry"
    examples = [{"mib": 0}]
    unsafe: dict[str, Any] = {"side_effects": "unsafe", "signature": SIGNATURE}
    salver.release("filling", Filling, examples=examples, registry=str(registry), **unsafe)
    return registry


@pytest.fixture
def serve(filling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setenv("SALVER_LIMITS_MEMORY", str(BUDGET))
    running: list[Server] = []

    def begin(workers: int) -> Server:
        port = str(free_port())
        server = Server(filling, "--workers", str(workers), "--grpc-port", port, log=tmp_path / "log")
        running.append(server)
        server.__enter__()
        wait_serving(server)
        comes(lambda: len(server.workers("filling@1")) == workers and sample(server, "salver_memory_used_ratio"))
        return server

    yield begin
    for server in running:
        server.stop()


class Asking(threading.Thread):
    """Asks one question after the other, until told to stop or a question fails."""

    def __init__(self, ask: Callable[[], Result]) -> None:
        super().__init__()
        self.ask = ask
        self.results: list[Result] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            self.results.append(self.ask())

    @property
    def refused(self) -> list[Result]:
        return [result for result in self.results if result[1] == "overloaded"]

    def again(self) -> bool:
        """Whether the last question was answered, after others that were refused."""
        return bool(self.refused) and self.results[-1][0] in (0, 200)


class Everybody:
    """Several who ask at once."""

    def __init__(self, **asks: Callable[[], Result]) -> None:
        self.by_name = {name: Asking(ask) for name, ask in asks.items()}

    def __enter__(self) -> dict[str, Asking]:
        for each in self.by_name.values():
            each.start()
        return self.by_name

    def __exit__(self, *_: object) -> None:
        for each in self.by_name.values():
            each.ended.set()
        for each in self.by_name.values():
            each.join()


def post(server: Server, body: bytes, *, chunked: bool = False) -> Result:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        parts: Any = iter([body[at : at + 65536] for at in range(0, len(body), 65536)]) if chunked else body
        connection.request("POST", PREDICT, parts, {"content-type": "application/json"}, encode_chunked=chunked)
        response = connection.getresponse()
        answer = json.loads(response.read())
        return response.status, answer.get("code", ""), response.headers.get("retry-after", "")
    finally:
        connection.close()


def call(server: Server, padding: str) -> Result:
    request = service_pb2.ModelInferRequest(model_name="filling")
    request.parameters["more"].string_param = padding
    mib = request.inputs.add(name="mib", datatype="INT64", shape=[1])
    mib.contents.int64_contents.append(0)
    with grpc.insecure_channel(place(server)) as channel:
        try:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE)
        except grpc.RpcError as problem:
            said = dict(problem.trailing_metadata() or ())
            return problem.code().value[0], said.get("x-salver-error", ""), problem.details()
    return 0, "", ""


def get(server: Server, path: str, port: int | None = None) -> Result:
    answer = server.get(path, port=port)
    return (
        answer.status,
        "overloaded" if b"short of memory" in answer.body else "",
        answer.headers.get("retry-after", ""),
    )


def fill(server: Server, share: float) -> None:
    """Have the workers take so much memory that this share of the budget is in use; the last step is a small one."""
    take(server, 0.92, 256)
    take(server, share, 1024)


def take(server: Server, share: float, step: int) -> None:
    """Take what is missing to a share, so many MiB at once."""
    missing = round((share - comes(lambda: steady(server))) * BUDGET / MIB)
    for at in range(0, missing, step):
        assert server.post(PREDICT, {"mib": min(step, missing - at)}).status == 200


def steady(server: Server) -> float:
    """The share in use; 0 while something is taken: it is looked up twice a second, also in the midst of a step."""
    before = sample(server, "salver_memory_used_ratio")
    time.sleep(2 * LOOK)
    after = sample(server, "salver_memory_used_ratio")
    return after if abs(after - before) < 0.005 else 0.0


def test_large_bodies_are_refused_until_the_worker_that_holds_most_is_replaced(serve: Callable[..., Server]) -> None:
    server = serve(2)
    before = set(server.workers("filling@1"))
    large = {
        "large": lambda: post(server, LARGE),
        "chunked": lambda: post(server, LARGE, chunked=True),
        "message": lambda: call(server, "x" * (MIB + 1000)),
    }
    small = {"small": lambda: post(server, b'{"mib": 0}'), "page": lambda: get(server, "/v2/models/filling")}
    with Everybody(**large, **small) as asking:
        fill(server, 0.957)
        comes(lambda: all(asking[name].again() for name in large))
        comes(lambda: len(server.workers("filling@1")) == 2 and set(server.workers("filling@1")) != before)
        assert comes(lambda: "every request is taken again" in server.log.read_text())
    refused = [result for name in large for result in asking[name].refused]
    assert {status for status, _, _ in refused} == {503, grpc.StatusCode.UNAVAILABLE.value[0]}
    assert {retry for status, _, retry in refused if status == 503} == {"5"}
    assert {said for status, _, said in refused if status != 503} == {
        "this server is short of memory, so no message over 1 MiB is taken · hint: try again in a moment"
    }
    for name, each in asking.items():
        others = {result[0] for result in each.results if result not in refused}
        assert others == ({0} if name == "message" else {200}), f"nothing else fails: {name}"
    assert not [name for name in small if asking[name].refused]
    assert sample(server, "salver_limit_hits_total", limit="memory") == len(refused)
    assert sample(server, "salver_worker_deaths_total") == 0, "one that is replaced has not died"
    assert len(before & set(server.workers("filling@1"))) == 1, "one is replaced, the other goes on"
    assert "bodies over 1 MiB are refused; salver.worker filling@1/" in server.log.read_text()


def test_short_of_the_last_memory_only_health_and_the_admin_port_answer(serve: Callable[..., Server]) -> None:
    server = serve(1)
    [before] = server.workers("filling@1")

    def health() -> Result:
        with grpc.insecure_channel(place(server)) as channel:
            said = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        return said.status - health_pb2.HealthCheckResponse.SERVING, "", ""

    refused = {
        "predict": lambda: post(server, b'{"mib": 0}'),
        "infer": lambda: call(server, ""),
        "metadata": lambda: get(server, "/v2/models/filling"),
    }
    answered = {
        "live": lambda: get(server, "/healthz/live"),
        "ready": lambda: get(server, "/healthz/ready"),
        "health": health,
        "metrics": lambda: get(server, "/metrics", server.admin_port),
    }
    with Everybody(**refused, **answered) as asking:
        fill(server, 0.99)
        comes(lambda: all(asking[name].again() for name in refused))
    for each in asking.values():
        assert {result[:2] for result in each.results if result not in each.refused} <= {(200, ""), (0, "")}
    assert not [name for name in answered if asking[name].refused]
    hits = sum(len(asking[name].refused) for name in refused)
    assert sample(server, "salver_limit_hits_total", limit="memory") == hits
    assert sample(server, "salver_limit_hits_total", limit="queue") == 0
    [after] = comes(lambda: [pid for pid in server.workers("filling@1") if pid != before])
    assert after != before
    log = server.log.read_text()
    assert "only health and the admin port answer" in log
    assert log.count("salver.worker filling@1/0 is replaced") == 1


def test_the_group_that_is_nearest_to_its_limit_counts(tmp_path: Path) -> None:
    def group(folder: Path, limit: str, used: int, inactive: int) -> Path:
        folder.mkdir()
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\n")
        return folder

    top = group(tmp_path / "top", "max", 5000, 0)
    pod = group(top / "pod", "2000", 1900, 100)
    own = group(pod / "own", "1000", 700, 500)
    assert Groups(V2, [own, pod, top]).read() == Held(2000, 1800)
    (own / "memory.current").write_text("1490\n")
    assert Groups(V2, [own, pod, top]).read() == Held(1000, 990)
    assert Groups(V2, [top, tmp_path]).read() is None
