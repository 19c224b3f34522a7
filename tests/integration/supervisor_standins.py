"""Small processes that stand in for followers, gateways and workers, so that the keeper can be tested alone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from salver.worker.lifeline import STOP, die_with_parent


def follower(keeper_fd: str, relay: str) -> None:
    """Pass every byte between the keeper and the test that listens on `relay`, which may order and be gone."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keeper = socket.socket(fileno=int(keeper_fd))
    with socket.socket(socket.AF_UNIX) as test:
        test.connect(relay)
        other = {keeper: test, test: keeper}
        while True:
            for ready in select.select(list(other), [], [])[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                with contextlib.suppress(ConnectionError):  # one who hears no more may have spoken before
                    other[ready].sendall(data)


def gateway(index: str, listen: str, log: str, mode: str) -> None:
    """Note what happens; end at the first stop signal, or never (`stubborn`), or accept and answer (`open`)."""
    note = Path(log)

    def stop(number: int, _frame: object) -> None:
        with note.open("a") as lines:
            lines.write(f"gateway {index} {signal.Signals(number).name}\n")
        if mode != "stubborn":
            sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with note.open("a") as lines:
        lines.write(f"gateway {index} starts {os.getpid()}\n")
    listener = socket.socket(fileno=int(listen))
    listener.settimeout(0.05)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        except OSError:  # the port is closed
            signal.pause()
            continue
        connection.sendall(index.encode())
        connection.close()


def worker(listen: str, status: str, mode: str) -> None:
    """Be ready, fail, crash, or end only when killed; `look` tells what it has inherited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def say(**words: object) -> None:
        os.write(int(status), json.dumps(words).encode() + b"\n")

    if mode == "crash":
        sys.exit(3)
    if mode == "fail":
        say(state="failed", code="golden-mismatch", message="2 golden rows differ", hint="look", details=["row 1"])
        sys.exit(70)
    if mode == "stubborn":
        signal.signal(STOP, signal.SIG_IGN)
    if mode == "look":
        found = {int(name) for name in os.listdir("/proc/self/fd")}
        kept = sorted(fd for fd in found if os.path.exists(f"/proc/self/fd/{fd}"))
        say(state="looked", descriptors=kept, own=sorted([int(listen), int(status)]), env=dict(os.environ))
    say(state="ready", load_ms=1.0)
    if mode == "alone":
        time.sleep(0.05)
        say(state="alone")
        os.abort()
    while True:
        time.sleep(60)


if __name__ == "__main__":
    die_with_parent()
    roles: dict[str, Callable[..., None]] = {"follower": follower, "gateway": gateway, "worker": worker}
    roles[sys.argv[1]](*sys.argv[2:])
