"""The release's own code on the import path, read as it is: nothing is ever written beside it."""

from __future__ import annotations

import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path
from typing import Any


class _Reader(SourceFileLoader):
    """Loads source without leaving bytecode: a release's folder holds what its manifest lists and nothing else."""

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write nothing."""


def use(folder: Path) -> None:
    """Let modules below `folder` be imported, before any other of the same name."""
    root = str(folder)
    open_folder = FileFinder.path_hook((_Reader, SOURCE_SUFFIXES))

    def hook(path: str) -> Any:
        if path != root and not path.startswith(root + "/"):
            raise ImportError(path)
        return open_folder(path)

    sys.path_hooks.insert(0, hook)
    sys.path.insert(0, root)
