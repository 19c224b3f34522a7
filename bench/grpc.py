"""gRPC: `python -m bench.grpc [CALLS ROUNDS]`, calls a second and CPU a ModelInfer beside an empty grpc.aio echo.

The whole tree of each server is pinned to core 0 and h2load to core 1, with 4 connections of 16 calls in flight; the
rounds of all servers take turns. The echo answers the same bytes that it got, without reading them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import joblib
import numpy as np
import uvloop

import salver
from bench import fixtures, processes
from bench.onnx_model import Onnx
from bench.servers import free_port
from salver.protocols import protobuf
from salver.protocols.protobuf import block, string

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CONNECTIONS, STREAMS = 4, 16
START_TIME = 120.0


class Server(NamedTuple):
    """One server under load: its name, first process, port, and the message that it is asked."""

    name: str
    pid: int
    port: int
    body: bytes


class Figure(NamedTuple):
    """One round: calls a second of wall time, and CPU microseconds of the whole server per call."""

    per_second: float
    cpu_us: float


def message(model: str, row: list[float]) -> bytes:
    """A ModelInferRequest of one raw row, a tensor per column."""
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    inputs = [block(5, string(1, name) + string(2, "FP64") + protobuf.packed(3, [1])) for name in names]
    raw = [block(7, np.float64(value).tobytes()) for value in row]
    return string(1, model) + b"".join(inputs + raw)


def publish(registry: Path, models: Path, fixture: fixtures.Fixture) -> None:
    """Publish the pipeline as `iris`, and the same as ONNX in a function model as `iris-onnx`."""
    os.environ["SALVER_REGISTRY"] = str(registry)
    salver.release("iris", joblib.load(models / "iris.joblib"), examples=fixture.frame)
    salver.release("iris-onnx", Onnx(), examples=fixture.frame, files=models / "iris.onnx")


async def echo(port: int) -> None:
    """Serve the empty echo."""

    async def answer(request: bytes, _: Any) -> bytes:
        return request

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    service, _, name = METHOD[1:].partition("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(None)


@contextlib.contextmanager
def running(name: str, port: int, body: bytes, command: list[str], environment: dict[str, str]) -> Iterator[Server]:
    """One server, pinned to core 0, from its first answer on."""
    argv = ["taskset", "-c", "0", sys.executable, *command]
    process = subprocess.Popen(argv, env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
    try:
        ends = time.monotonic() + START_TIME
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            while True:
                try:
                    channel.unary_unary(METHOD)(body, wait_for_ready=True, timeout=START_TIME)
                    break
                except grpc.RpcError:
                    if time.monotonic() > ends:
                        raise
                    time.sleep(0.1)
        processes.settle(process.pid)
        yield Server(name, process.pid, port, body)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def measure(server: Server, count: int, folder: Path) -> Figure:
    """One round of h2load, which takes every HTTP answer for a success: that the call is one is seen before."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        channel.unary_unary(METHOD)(server.body, timeout=START_TIME)
    file = folder / "body"
    file.write_bytes(b"\0" + len(server.body).to_bytes(4, "big") + server.body)
    pids = processes.tree(server.pid)
    before, began = processes.cpu_seconds(pids), time.monotonic()
    said = subprocess.run(
        ["taskset", "-c", "1", "h2load", "-t1", f"-c{CONNECTIONS}", f"-m{STREAMS}", f"-n{count}", f"-d{file}",
         "-Hcontent-type: application/grpc", "-Hte: trailers", f"http://127.0.0.1:{server.port}{METHOD}"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    used, took = processes.cpu_seconds(pids) - before, time.monotonic() - began
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", said)
    assert done is not None, said
    calls, failed = int(done[1]), int(done[2])
    assert calls, said
    assert not failed, said
    return Figure(calls / took, used * 1e6 / calls)


def main() -> None:
    """Measure all servers in turns, and print one line for each."""
    if sys.argv[1:2] == ["echo"]:
        run = uvloop.run if sys.argv[3] == "uvloop" else asyncio.run
        with contextlib.suppress(KeyboardInterrupt):
            run(echo(int(sys.argv[2])))
        return
    for program in ("h2load", "taskset"):
        if shutil.which(program) is None:
            raise SystemExit(f"bench.grpc needs {program}: apt-get install nghttp2-client util-linux")
    count, rounds = (int(word) for word in (*sys.argv[1:], "20000", "3")[:2])
    iris = fixtures.load()["iris"]
    row = [float(value) for value in iris.frame.iloc[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fixtures.write(folder / "models", iris)
        publish(folder / "registry", folder / "models", iris)
        ports = [free_port() for _ in range(3)]
        settings = {"SALVER_REGISTRY": str(folder / "registry"), "SALVER_SERVE_PORT": "0"}
        settings |= {"SALVER_SERVE_ADMIN_PORT": "0", "SALVER_SERVE_WORKERS": "1", "SALVER_SERVE_DRAIN_DELAY": "0"}
        plain, sk, onnx = (message(model, row) for model in ("echo", "iris", "iris-onnx"))
        serve = ["-m", "salver", "serve", "--grpc-port"]
        with (
            running("echo asyncio", ports[0], plain, ["-m", "bench.grpc", "echo", str(ports[0]), "asyncio"], {}) as a,
            running("echo uvloop", ports[1], plain, ["-m", "bench.grpc", "echo", str(ports[1]), "uvloop"], {}) as b,
            running("salver iris", ports[2], sk, [*serve, str(ports[2])], settings) as c,
        ):
            figures: dict[str, list[Figure]] = {}
            for _ in range(rounds):
                for server in (a, b, c, c._replace(name="salver iris-onnx", body=onnx)):
                    figures.setdefault(server.name, []).append(measure(server, count, folder))
    least = min(figure.cpu_us for figure in figures["echo asyncio"])
    for name, found in figures.items():
        best = min(figure.cpu_us for figure in found)
        wall = sorted(figure.per_second for figure in found)
        print(
            f"{name:18} {best:7.0f} us CPU a call, {1e6 / best:6.0f} calls/s a core, {least / best:.2f} of the echo;"
            f" wall {wall[len(wall) // 2]:.0f} ({wall[0]:.0f} to {wall[-1]:.0f})"
        )


if __name__ == "__main__":
    main()
