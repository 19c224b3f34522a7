"""Ports for the servers of tests, which no other test takes, and no connection either."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

POOL = range(20_000, 32_000)
"""Below the ports that the system gives to connections: one of those may be taken before a server has it."""
_INDEX = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_OURS = POOL[_INDEX :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
_NEXT = itertools.cycle(random.sample(_OURS, len(_OURS)))


def free_port() -> int:
    """A loopback port that nobody has now."""
    for port in itertools.islice(_NEXT, len(_OURS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"each of {len(_OURS)} ports is taken")
