"""A keeper whose follower is the test itself."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from salver.supervisor import runtime

STANDINS = str(Path(__file__).with_name("supervisor_standins.py"))
PATIENCE = 30.0
SERVE = "import sys; from salver.supervisor import plan; plan.serve(plan.unpack(sys.stdin.buffer.read()))"


class Keeping:
    """A keeper whose follower is the test itself."""

    def __init__(self, tmp_path: Path, **plan: Any) -> None:
        self.log = tmp_path / "gateways.log"
        self.log.touch()
        self.errors = tmp_path / "stderr"
        self.root = Path(tempfile.mkdtemp(prefix="r", dir=tmp_path.parent.parent))  # own, and short enough for sockets
        runtime.create(str(self.root))
        self._relay = socket.socket(socket.AF_UNIX)
        self._relay.bind(str(tmp_path / "relay"))
        self._relay.listen()
        self._relay.settimeout(PATIENCE)
        mode = plan.pop("mode", "open")
        run = [sys.executable, "-P", STANDINS]
        self.plan = {
            "registry": "/nowhere", "cache": "/nowhere", "port": 0, "admin_port": 0, "runtime": str(self.root),
            "drain_delay": 0.0, "drain_timeout": 5.0,
            "follower": [*run, "follower", "{keeper}", str(tmp_path / "relay")],
            "gateway": [*run, "gateway", "{index}", "{listen}", str(self.log), mode], **plan,
        }  # fmt: skip
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stderr=errors)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(self.plan).encode())
        self.process.stdin.close()

    def follow(self) -> dict[str, Any]:
        """Become the follower (again); returns the keeper's first word."""
        self.link, _ = self._relay.accept()
        self.link.settimeout(PATIENCE)
        self.events = self.link.makefile("r")
        first = self.event("children")
        self.card = first["card"]
        return first

    def event(self, kind: str, name: str = "") -> dict[str, Any]:
        """The next event of this kind (and child); what comes before it is passed over."""
        while line := self.events.readline():
            event: dict[str, Any] = json.loads(line)
            if event["event"] == kind and name in ("", event.get("name"), event.get("group")):
                return event
        raise AssertionError(f"the keeper is gone before {kind} {name}: {self.errors.read_text()}")

    def order(self, **order: Any) -> None:
        self.link.sendall(json.dumps(order).encode() + b"\n")

    def start_worker(self, mode: str, name: str = "churn@7/0") -> None:
        argv = [sys.executable, "-P", STANDINS, "worker", "{listen}", "{status}", mode]
        self.order(op="start", name=name, group=name.partition("/")[0], argv=argv, env={"TOLD": "yes"})

    def wait(self, true: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < ends, f"{what} did not happen: {self.errors.read_text()}"
            time.sleep(0.01)

    def heard(self, text: str) -> bool:
        return text in self.log.read_text()

    def gateway_pids(self) -> list[int]:
        return [int(line.split()[3]) for line in self.log.read_text().splitlines() if "starts" in line]

    def ask(self) -> bytes:
        """One connection to the public port."""
        port = int(self.card["http"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            return connection.recv(10)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for name in ("events", "link"):
            if hasattr(self, name):
                getattr(self, name).close()
        self._relay.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
