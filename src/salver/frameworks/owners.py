"""Whose a module is: the user's own, or of a package that is installed."""

from __future__ import annotations

import site
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Final

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})


def is_own(name: str) -> bool:
    """Whether an imported module, or what a dotted name says is in it, is the user's: files that nobody installed."""
    root = name.partition(".")[0]
    if root in sys.stdlib_module_names or root == "salver":
        return False
    found = places(root)
    return bool(found) and not any(map(is_installed, found))


def is_installed(path: Path) -> bool:
    """Whether an installer or Python itself put a file where it is."""
    return not _INSTALLED.isdisjoint(path.parts) or any(path.is_relative_to(folder) for folder in _folders())


def places(root: str) -> list[Path]:
    """The file and folders of an imported module; none where it isn't imported or has none."""
    module = sys.modules.get(root)
    found = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return [Path(place) for place in found if place]


@cache
def _folders() -> frozenset[Path]:
    paths = sysconfig.get_paths()
    folders = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib") if key in paths]
    return frozenset(Path(folder) for folder in [*folders, *site.getsitepackages(), site.getusersitepackages()])
