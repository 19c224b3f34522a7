"""What the follower tells every gateway: which releases are loaded, where their workers listen, and who is live.

A table is the whole state, never a change of it: a gateway that (re)connects gets the newest and needs nothing else.
Both sides send JSON lines over the control socket: a `Hello` once, then an `Ack` for each table, up; tables,
grants and how short memory is down.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from salver.access.terms import Grants
from salver.release import SideEffects
from salver.signature import Signature


class Worker(Struct, frozen=True):
    """One worker's name (`churn@7/0`) and the path of the unix socket where it is to be found."""

    name: str
    address: str


class Loaded(Struct, frozen=True):
    """One release with workers: everything a gateway has to know of it."""

    model: str
    number: int
    id: str
    framework: str
    signature: Signature
    max_batch: int
    side_effects: SideEffects
    concurrency: int
    workers: tuple[Worker, ...]
    published: str = ""

    @property
    def release(self) -> str:
        """The name people use: `churn@7`."""
        return f"{self.model}@{self.number}"


class Table(Struct, frozen=True, tag="table"):
    """The whole state at `version`: loaded releases, the live number of each routed model, and whether to drain.

    `routed` names every model this server is meant to serve; one without a live release is not ready yet.
    `slots` gives each release a fixed row in the shared metrics (see `metrics`).
    """

    version: int
    releases: tuple[Loaded, ...]
    live: dict[str, int]
    routed: tuple[str, ...]
    slots: dict[str, int]
    draining: bool = False


class Hello(Struct, frozen=True, tag="hello"):
    """A gateway's first line: its index and process id."""

    gateway: int
    pid: int


class Ack(Struct, frozen=True, tag="ack"):
    """A gateway has made `version` effective: its live pointers are swapped and what left the table has drained."""

    gateway: int
    version: int
    swap_ms: float


REFUSE_LARGE = 1
"""The level of pressure at which large bodies are refused."""
REFUSE_ALL = 2
"""That at which only health and the admin port answer."""


class Pressure(Struct, frozen=True, tag="pressure"):
    """How short of memory the server is: 0 for not at all, `REFUSE_LARGE` or `REFUSE_ALL`."""

    level: int


_DECODER = msgspec.json.Decoder(Table | Hello | Ack | Grants | Pressure)
_ENCODER = msgspec.json.Encoder()


def pack(message: Table | Hello | Ack | Grants | Pressure) -> bytes:
    """One JSON line."""
    return _ENCODER.encode(message) + b"\n"


def unpack(line: bytes) -> Any:
    """Read one JSON line."""
    return _DECODER.decode(line)
