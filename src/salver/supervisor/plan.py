"""What one server is asked to do, as plain data that travels to the keeper and the follower as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from typing import Any, NoReturn

GATEWAY = (
    sys.executable, "-P", "-m", "salver.gateway", "--index", "{index}", "--listen-fd", "{listen}", "--admin-fd",
    "{admin}", "--control", "{control}", "--metrics-fds", "{metrics}", "--drain-delay", "{drain_delay}",
    "--drain-timeout", "{drain_timeout}", "--limits", "{limits}", "--access", "{access}", "--usage", "{usage}",
    "--dialect", "{dialect}", "--grpc-fd", "{grpc}", "--watch", "{watch}",
    "--json-logs", "{json_logs}",
)  # fmt: skip
FOLLOWER = (
    sys.executable, "-P", "-m", "salver.supervisor.follower", "--plan-fd", "{plan}", "--keeper-fd", "{keeper}",
    "--control-fd", "{control}", "--status-fd", "{status}", "--metrics-fd", "{metrics}", "--folder", "{folder}",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
    """One server. Times are in seconds, sizes in bytes.

    `registry` and `cache` are where releases come from and where their verified copies lie; `models` are those to
    serve, none for every routed model. A port of 0 lets the system choose; `grpc_port` -1 is no gRPC. `runtime` is the
    folder for sockets, empty for the usual one. `limits` is JSON for the gateways, `access` the terms of access and
    `watch` what is told of requests, both as JSON; `tls` and `admin_tls` say which ports speak TLS; `usage_bytes` is
    what each gateway needs to count quotas. `environment` are names of variables that workers get besides the usual
    ones. `gateway` and `follower` are the command lines of those processes, with placeholders.
    """

    registry: str
    cache: str
    models: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 8082
    grpc_port: int = -1
    dialect: str = ""
    watch: str = "{}"
    gateways: int = 1
    workers: int = 2
    drain_delay: float = 5.0
    drain_timeout: float = 30.0
    load_timeout: float = 600.0
    poll: float = 0.25
    any_environment: bool = False
    json_logs: bool = False
    metrics_bytes: int = 1 << 20
    runtime: str = ""
    limits: str = "{}"
    access: str = "{}"
    tls: bool = False
    admin_tls: bool = False
    usage_bytes: int = 0
    environment: tuple[str, ...] = ()
    gateway: tuple[str, ...] = GATEWAY
    follower: tuple[str, ...] = FOLLOWER

    def __post_init__(self) -> None:
        for name, least in (("gateways", 1), ("workers", 1), ("metrics_bytes", 1), ("poll", 0.01), ("drain_delay", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, the least is {least}")


def pack(plan: Plan) -> bytes:
    """The plan as JSON."""
    return json.dumps(dataclasses.asdict(plan)).encode()


def unpack(data: bytes) -> Plan:
    """Read what `pack` wrote."""
    fields: dict[str, Any] = json.loads(data)
    for name, value in fields.items():
        if isinstance(value, list):
            fields[name] = tuple(value)
    return Plan(**fields)


def read(descriptor: int) -> Plan:
    """Read the plan from an inherited file; its position does not move, so that every process can."""
    return unpack(os.pread(descriptor, os.fstat(descriptor).st_size, 0))


def serve(plan: Plan) -> NoReturn:
    """Become the keeper of this plan; the process is replaced and never returns.

    The plan travels in an unnamed file, so that the process list shows what is served and no settings.
    """
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(pack(plan))
        os.set_inheritable(file.fileno(), True)
        os.execv(
            sys.executable,
            [sys.executable, "-P", "-m", "salver.supervisor", "--plan-fd", str(file.fileno()), *plan.models],
        )
