"""The servers that are compared: how each is started, and where it answers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.load import pinned

START_LIMIT = 120.0


class Setting(NamedTuple):
    """Where one run of a server happens: its model, port, the folder of models, and its scratch folder."""

    model: str
    port: int
    models: Path
    scratch: Path


class Server(NamedTuple):
    """One way to serve a model. `what` says it in a few words; `models` are those it can serve."""

    name: str
    what: str
    command: Callable[[Setting], list[str]]
    path: str = "/{model}"
    models: tuple[str, ...] = ("iris", "cancer")
    predicts: bool = True


class Running(NamedTuple):
    """A started server: the id of its root process, its URL, and seconds from start to the first right answer."""

    pid: int
    url: str
    first_answer: float


def _nginx(setting: Setting) -> list[str]:
    scratch = setting.scratch / "nginx"
    scratch.mkdir(parents=True, exist_ok=True)
    temporary = "\n".join(
        f"  {kind}_temp_path {scratch}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (scratch / "nginx.conf").write_text(
        f"worker_processes 1;\ndaemon off;\npid {scratch}/pid;\nerror_log stderr crit;\n"
        "events { worker_connections 1024; }\n"
        f"http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  client_max_body_size 64m;\n{temporary}\n"
        f"  server {{\n    listen 127.0.0.1:{setting.port};\n    default_type application/json;\n"
        "    location / { return 200 '{\"prediction\":0}'; }\n  }\n}\n"
    )
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    return [program, "-c", str(scratch / "nginx.conf"), "-p", str(scratch)]


def _uvicorn(module: str) -> Callable[[Setting], list[str]]:
    def command(setting: Setting) -> list[str]:
        options = ["--no-access-log", "--log-level", "warning", "--port", str(setting.port)]
        return [sys.executable, "-m", "uvicorn", f"bench.by_hand.{module}:app", *options]

    return command


def _salver(suffix: str = "") -> Callable[[Setting], list[str]]:
    def command(setting: Setting) -> list[str]:
        ports = ["--port", str(setting.port), "--admin-port", "0", "--grpc-port", "0"]
        return [sys.executable, "-m", "salver", "serve", setting.model + suffix, *ports]

    return command


SERVERS = (
    Server("nginx", "nginx, a constant answer", _nginx, models=("iris",), predicts=False),
    Server("fastapi", "FastAPI by hand, scikit-learn on a matrix", _uvicorn("sklearn_service")),
    Server("fastapi-frame", "FastAPI by hand, scikit-learn on a DataFrame", _uvicorn("frame_service")),
    Server("fastapi-onnx", "FastAPI by hand, ONNX", _uvicorn("onnx_service")),
    Server("salver", "Salver, scikit-learn on a matrix", _salver(), path="/models/{model}/predict"),
    Server("salver-frame", "Salver, scikit-learn on a DataFrame", _salver("-frame"), "/models/{model}-frame/predict"),
    Server("salver-onnx", "Salver, ONNX in a function", _salver("-onnx"), "/models/{model}-onnx/predict"),
)


@contextlib.contextmanager
def running(server: Server, setting: Setting, body: bytes, expected: list[int], *, pin: bool) -> Iterator[Running]:
    """Start a server, wait until it gives the right answer, and stop its whole process group at the end."""
    setting.scratch.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "BENCH_MODELS": str(setting.models),
        "SALVER_REGISTRY": str(setting.scratch / "registry"),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    url = f"http://127.0.0.1:{setting.port}{server.path.format(model=setting.model)}"
    log = setting.scratch / f"{server.name}.log"
    with log.open("wb") as output:
        begin = time.monotonic()
        command = [*(pinned(0) if pin else ()), *server.command(setting)]
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            answer = _first_answer(process, url, body, log)
            first = time.monotonic() - begin
            if server.predicts and predictions(answer) != expected:
                raise SystemExit(f"{server.name} gives wrong answers: {str(answer)[:300]}")
            yield Running(process.pid, url, first)
        finally:
            _stop(process)


def predictions(answer: Any) -> list[int]:
    """The predictions of an answer: one object, or a list of them."""
    return [int(row["prediction"]) for row in (answer if isinstance(answer, list) else [answer])]


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _first_answer(process: subprocess.Popen[bytes], url: str, body: bytes, log: Path) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + START_LIMIT
    problem: Exception | None = None
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.load(response)
        except OSError as error:
            problem = error
            time.sleep(0.01)
    raise SystemExit(f"no answer from {url} ({problem}); its output:\n{log.read_text(errors='replace')[-3000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
