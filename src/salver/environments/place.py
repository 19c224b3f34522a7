"""Where a release's worker runs: an interpreter, and the folders from which it imports."""

from __future__ import annotations

import os
import sys
import sysconfig

from msgspec import Struct


class Place(Struct, frozen=True):
    """An interpreter and the folders on its path besides its standard library; none: its own packages as they are."""

    python: str = sys.executable
    path: tuple[str, ...] = ()


def base_interpreter() -> str:
    """The interpreter behind a virtual environment: this Python without any of its packages."""
    return getattr(sys, "_base_executable", sys.executable) or sys.executable


def version() -> str:
    """This interpreter's version as a lock names it (`3.11`)."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def tag(python: str) -> str:
    """What built packages fit: the interpreter's version and the platform (`cp311-linux_x86_64`)."""
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"cp{python.replace('.', '')}-{platform}"


def default_cache() -> str:
    """The folder of this user for what can always be made again: SALVER_CACHE, else ~/.cache/salver."""
    return os.environ.get("SALVER_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "salver")
