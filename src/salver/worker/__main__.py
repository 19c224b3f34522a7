"""`python -m salver.worker churn@7 FOLDER --listen-fd N --status-fd N`: load, prove, warm, serve."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import site
import socket
import sys
import time
from pathlib import Path
from typing import Any

from salver import lock
from salver.errors import SalverError, error
from salver.frames import Hello
from salver.release import LOCK, MANIFEST, parse_manifest, release_id
from salver.worker import traces
from salver.worker.lifeline import STOP, die_with_parent, go_on_unheard, ignore_stops
from salver.worker.loop import Loop
from salver.worker.predictor import Predictor

FAILED = 70


def main() -> int:
    """Run one worker; returns its exit code: 0 after a stop, 70 where the release can't be served."""
    options = _options()
    die_with_parent()
    ignore_stops()
    go_on_unheard()
    gc.disable()  # imports make hundreds of thousands of objects that stay: looking through them costs 0.2 s
    told = logging.StreamHandler(sys.stderr)
    told.setFormatter(traces.Format("%(levelname)s %(name)s %(message)s"))
    if options.json_logs:
        told.setFormatter(traces.JsonFormat(options.name))
        sys.stdout = sys.stderr = traces.JsonPrints(options.name, sys.stderr)
    logging.basicConfig(handlers=[told])
    traces.mark_records()
    try:
        began = time.monotonic()
        predictor = _ready(options)
        load_ms = (time.monotonic() - began) * 1e3
    except SalverError as problem:
        _tell(options.status_fd, state="failed", **_plain(problem))
        return FAILED
    except Exception as raised:  # the process boundary: loading runs the user's code
        logging.getLogger("salver.worker").exception("%s can't be loaded", options.name)
        failure = error("load-failed", f"{options.name} can't be loaded: {type(raised).__name__}: {raised}")
        _tell(options.status_fd, state="failed", **_plain(failure))
        return FAILED
    manifest = predictor.manifest
    hello = Hello(
        options.name, release_id(manifest), os.getpid(), manifest.serving.rows_per_call, load_ms, options.golden
    )
    with socket.socket(fileno=options.listen_fd) as listener:
        loop = Loop(
            predictor, listener, hello, lambda alone: _tell(options.status_fd, state="alone" if alone else "ready")
        )
        signal.signal(STOP, lambda *_: loop.stop())
        gc.enable()
        gc.collect()
        gc.freeze()
        _tell(options.status_fd, state="ready", load_ms=round(load_ms, 1))
        loop.run()
    return 0


def _ready(options: argparse.Namespace) -> Predictor:
    """Load the release and prove it: same environment, golden rows reproduced, every batch size warmed."""
    for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if sys.flags.no_site else ():
        site.addsitedir(folder)  # without its start-up, Python reads no .pth file
    manifest = parse_manifest((options.folder / MANIFEST).read_bytes(), where=options.name)
    if options.environment:
        lock.require_same((options.folder / LOCK).read_text(), manifest.python, what=options.name)
    predictor = Predictor.open(options.folder, options.name)
    if options.golden:
        problems = predictor.prove()
        if problems:
            raise error(
                "golden-mismatch",
                f"{options.name} does not reproduce its golden rows",
                hint="it behaves differently here than where it was released; `salver doctor` compares the two",
                details=tuple(problems[:20]),
            )
        predictor.warm()
    return predictor


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="salver.worker", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--status-fd", type=int, required=True)
    parser.add_argument("--no-golden", dest="golden", action="store_false")
    parser.add_argument("--any-environment", dest="environment", action="store_false")
    parser.add_argument("--json-logs", action="store_true")
    return parser.parse_args()


def _tell(descriptor: int, **status: Any) -> None:
    os.write(descriptor, json.dumps(status).encode() + b"\n")


def _plain(problem: SalverError) -> dict[str, Any]:
    return {
        "code": problem.code,
        "message": problem.message,
        "hint": problem.hint,
        "details": list(problem.details),
    }


if __name__ == "__main__":
    sys.exit(main())
