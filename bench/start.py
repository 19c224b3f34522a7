"""From start to the first prediction, and memory, beside what the model's own imports take in a bare process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import processes
from bench.fixtures import Fixture
from bench.processes import Memory
from bench.servers import Server, Setting, free_port, running

REPEATS = 5

BARE = {
    "bare process, scikit-learn": (
        "import sys, joblib, numpy; model = joblib.load(sys.argv[1] + '.joblib');"
        "print(model.predict(numpy.ones((1, 4))), flush=True); sys.stdin.read()"
    ),
    "bare process, scikit-learn from skops": (
        "import sys, skops.io, numpy; model = skops.io.load(sys.argv[1] + '.skops');"
        "print(model.predict(numpy.ones((1, 4))), flush=True); sys.stdin.read()"
    ),
    "bare process, ONNX": (
        "import sys, onnxruntime, numpy; s = onnxruntime.InferenceSession(sys.argv[1] + '.onnx');"
        "print(s.run(['label'], {'X': numpy.ones((1, 4), 'float32')}), flush=True); sys.stdin.read()"
    ),
}


class Start(NamedTuple):
    """The least seconds from start to the first answer, and what its processes then held."""

    what: str
    seconds: float
    memory: list[Memory]


def measure(servers: Sequence[Server], fixture: Fixture, work: Path) -> list[Start]:
    """Each bare process and each server, started a few times on all cores, in turns."""
    found: dict[str, Start] = {}
    for _ in range(REPEATS):
        starts = [_bare(what, code, work / "models" / fixture.name) for what, code in BARE.items()]
        starts += [_served(server, fixture, work) for server in servers if server.predicts]
        for one in starts:
            found[one.what] = min(found.get(one.what, one), one, key=lambda start: start.seconds)
    return list(found.values())


def _bare(what: str, code: str, model: Path) -> Start:
    begin = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.monotonic() - begin
        held = [one._replace(command="all of it") for one in processes.memory([process.pid])]
        process.communicate()
    return Start(what, seconds, held)


def _served(server: Server, fixture: Fixture, work: Path) -> Start:
    setting = Setting(fixture.name, free_port(), work / "models", work)
    with running(server, setting, fixture.body(1), fixture.expected(1), pin=False) as live:
        processes.settle(live.pid)
        held = [one._replace(command=_short(one.command)) for one in processes.memory(processes.tree(live.pid))]
    return Start(server.what, live.first_answer, held)


def _short(command: str) -> str:
    """The telling part of a command line: `salver.worker iris@1/0`, `uvicorn`."""
    words = command.split()
    module = words[words.index("-m") + 1] if "-m" in words else words[0].rpartition("/")[2]
    release = next((f" {word}" for word in words if "@" in word), "")
    return module + release
