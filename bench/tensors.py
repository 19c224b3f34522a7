"""A tensor of 3x64x64 float32 in, its first value out: `python -m bench.tensors [SECONDS ROUNDS]`, CPU a request.

V2 with binary data beside V2 in JSON, over HTTP with 1 and with 16 connections; the whole tree of the server is pinned
to core 0 and wrk to core 1. `bench.grpc` measures gRPC.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import salver
from bench import load, processes
from bench.pixel_model import Pixel
from salver.signature import Column, Signature, Tensor

SHAPE = (3, 64, 64)
PATH = "/v2/models/pixel/infer"
CONNECTIONS = (1, 16)
START_TIME = 120.0


class Body(NamedTuple):
    """One way to send the tensor: its name, the bytes, and the headers it needs."""

    name: str
    data: bytes
    headers: dict[str, str]


def bodies() -> list[Body]:
    """The same tensor in bytes (49 kB) and in JSON (97 kB)."""
    tensor = np.random.default_rng(1).random((1, *SHAPE), np.float32).round(5)
    head: dict[str, Any] = {"name": "x", "shape": list(tensor.shape), "datatype": "FP32"}
    told = json.dumps({"inputs": [head | {"parameters": {"binary_data_size": tensor.nbytes}}]}).encode()
    plain = json.dumps({"inputs": [head | {"data": [float(f"{value:.5f}") for value in tensor.ravel()]}]}).encode()
    binary = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(told))}
    return [
        Body("V2 binary", told + tensor.tobytes(), binary),
        Body("V2 JSON", plain, {"content-type": "application/json"}),
    ]


def publish(registry: Path) -> None:
    """Publish the model."""
    signature = Signature((Tensor("x", "float32", (-1, *SHAPE)),), (Column("prediction", "float"),))
    salver.release(
        "pixel", Pixel, examples=[{"x": np.zeros(SHAPE, np.float32)}], signature=signature, registry=str(registry)
    )


def script(folder: Path, body: Body) -> Path:
    """What wrk has to know of a body."""
    file = folder / f"{body.name.replace(' ', '-')}.lua"
    file.with_suffix(".body").write_bytes(body.data)
    lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in body.headers.items()]
    read = f"local f = io.open({json.dumps(str(file.with_suffix('.body')))}, 'rb'); wrk.body = f:read('*a'); f:close()"
    file.write_text("\n".join(['wrk.method = "POST"', read, *lines]))
    return file


def measure(pids: list[int], url: str, lua: Path, connections: int, seconds: int) -> float:
    """CPU microseconds of the whole server per request; every answer has to be a 200."""
    before = processes.cpu_seconds(pids)
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(lua), url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    done = re.search(r"(\d+) requests in", said)
    assert done is not None, said
    assert "Non-2xx" not in said, said
    return (processes.cpu_seconds(pids) - before) * 1e6 / int(done[1])


def main() -> None:
    """Measure both bodies in turns, and print one line for each."""
    seconds, rounds = (int(word) for word in (*sys.argv[1:], "5", "3")[:2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        publish(folder / "registry")
        settings = {"SALVER_REGISTRY": str(folder / "registry"), "SALVER_SERVE_DRAIN_DELAY": "0"}
        port = 18_977
        command = ["serve", "--port", str(port), "--admin-port", "0", "--grpc-port", "0", "--workers", "1"]
        argv = ["taskset", "-c", "0", sys.executable, "-m", "salver", *command]
        server = subprocess.Popen(argv, env={**os.environ, "OMP_NUM_THREADS": "1", **settings})
        url = f"http://127.0.0.1:{port}"
        try:
            ends = time.monotonic() + START_TIME
            while not _ready(url):
                assert time.monotonic() < ends, "the server does not come up"
                time.sleep(0.1)
            processes.settle(server.pid)
            pids = processes.tree(server.pid)
            scripts = {body.name: script(folder, body) for body in bodies()}
            found: dict[tuple[int, str], list[float]] = {}
            cells = [(connections, way) for connections in CONNECTIONS for way in scripts]
            with load.awake(1):
                for connections, way in cells * rounds:
                    used = measure(pids, url + PATH, scripts[way], connections, seconds)
                    found.setdefault((connections, way), []).append(used)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
    for (connections, way), each in sorted(found.items()):
        json_us = min(found[connections, "V2 JSON"])
        print(
            f"{connections:3} connections  {way:10} {min(each):7.0f} us CPU, JSON takes {json_us / min(each):.1f} times"
        )


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz/ready") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    main()
