"""How a command finds the servers of a registry on this machine, and asks what is live and what is in force."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from salver.errors import error
from salver.supervisor import runtime

ANSWER_TIME = 5.0


class RunningServer(NamedTuple):
    """One server of this user: its folder, its process, its addresses, and the models it serves (none named: all)."""

    folder: Path
    pid: int
    http: str
    admin: str
    models: tuple[str, ...]


def servers(registry: str, runtime_root: str = "") -> list[RunningServer]:
    """The servers that run from this registry's folder; what dead ones left behind is removed."""
    wanted = Path(registry).resolve()
    return [
        RunningServer(folder, card["pid"], card["http"], card["admin"], tuple(card["models"]))
        for folder, card in runtime.found(runtime_root)
        if Path(card["registry"]).resolve() == wanted
    ]


def nudge(running: Sequence[RunningServer]) -> int:
    """Tell servers to read the registry now; how many heard it. One that does not will notice by itself."""
    heard = 0
    for server in running:
        try:
            heard += bool(ask(server, {"op": "nudge"})["ok"])
        except (OSError, ValueError):
            continue
    return heard


def status(server: RunningServer) -> dict[str, Any]:
    """Everything a server knows of itself; raises `no-server` if it does not answer."""
    return _must(server, {"op": "status"}, ANSWER_TIME)


def wait_effective(server: RunningServer, model: str, seq: int, timeout: float) -> dict[str, Any]:
    """Wait until a route is in force on a server, and say what became of it, in `state`.

    `effective`; `refused`, with `failure`; `superseded` by a newer one, with that `route`; `not-served`; `timeout`.
    Raises `no-server` if the server goes away.
    """
    return _must(server, {"op": "wait", "model": model, "seq": seq, "timeout": timeout}, timeout + ANSWER_TIME)


def ask(server: RunningServer, question: dict[str, Any], timeout: float = ANSWER_TIME) -> dict[str, Any]:
    """Put one question; raises OSError or ValueError if there is no answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(str(server.folder / runtime.STATUS))
        connection.sendall(json.dumps(question).encode() + b"\n")
        with connection.makefile("rb") as answers:
            answer = json.loads(answers.readline())
    if not isinstance(answer, dict):
        raise ValueError("the answer is no object")
    return answer


def _must(server: RunningServer, question: dict[str, Any], timeout: float) -> dict[str, Any]:
    try:
        return ask(server, question, timeout)
    except (OSError, ValueError) as problem:
        raise error(
            "no-server",
            f"the server {server.pid} on {server.http} does not answer: {problem or type(problem).__name__}",
            hint="it may be starting again; try again, or look at its own output",
        ) from None
