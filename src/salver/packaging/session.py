"""What runs here and defines things in `__main__`: a script, or a notebook's cells."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from salver.packaging import cells, script
from salver.packaging.script import module_name

MAIN = "__main__"
NOTEBOOK = "notebook_cells"
"""The module that a notebook's definitions become; the notebook's own name may be one of the user's modules."""


class Script(NamedTuple):
    """A script, and the name that it has as a module."""

    module: str
    path: Path

    @property
    def folder(self) -> Path:
        """Where the script is."""
        return self.path.parent

    def extract(self, wanted: Iterable[str]) -> str:
        """The source of the module: what `wanted` reach, and nothing else."""
        return script.extract(self.path.read_text(encoding="utf-8"), wanted, self.path.name)


class Notebook(NamedTuple):
    """A notebook's executed cells, or those of an IPython shell; `path` is its file, where that can be known."""

    module: str
    path: Path | None
    executed: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the notebook runs."""
        return Path.cwd()

    def extract(self, wanted: Iterable[str]) -> str:
        """The source of the module: what `wanted` reach, and nothing else."""
        own = {name for name in vars(sys.modules[MAIN]) if not name.startswith("__") and not hasattr(builtins, name)}
        return cells.extract(self.executed, wanted, own)


def running() -> Script | Notebook | None:
    """What this process runs; None where its source can't be had (Python's own shell, `python -c`, `python -m`)."""
    main = sys.modules[MAIN]
    file = getattr(main, "__file__", None)
    if file and file.endswith(".py") and getattr(main, "__spec__", None) is None:
        path = Path(file).resolve()
        return Script(module_name(path.stem), path)
    shell = _shell()
    if shell is None or file:
        return None
    return Notebook(NOTEBOOK, _notebook_file(vars(main)), cells.executed(shell))


@contextmanager
def as_module() -> Iterator[str | None]:
    """While this holds, what the script or notebook defines says that it comes from its module, not from `__main__`.

    Yields the module's name, or None where neither runs.
    """
    found = running()
    if found is None:
        yield None
        return
    name, main = found.module, sys.modules[MAIN]
    renamed = list(_defined(vars(main).values(), set()))
    before = sys.modules.get(name)
    for thing in renamed:
        thing.__module__ = name
    sys.modules[name] = main if isinstance(found, Script) else _stand_in(found, main)
    try:
        yield name
    finally:
        for thing in renamed:
            thing.__module__ = MAIN
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


def _stand_in(notebook: Notebook, main: ModuleType) -> ModuleType:
    """A module that holds what the cells defined, and has a file as the user's modules have."""
    module = ModuleType(notebook.module)
    vars(module).update({name: value for name, value in vars(main).items() if not name.startswith("__")})
    module.__file__ = str(notebook.folder / f"{notebook.module}.py")
    return module


def _shell() -> Any:
    """The IPython shell of this process; None where there is none."""
    known = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return known() if known is not None else None


def _notebook_file(names: dict[str, Any]) -> Path | None:
    """The notebook's file, as Jupyter or VS Code say it."""
    for said in (names.get("__vsc_ipynb_file__"), os.environ.get("JPY_SESSION_NAME")):
        if isinstance(said, str) and said.endswith(".ipynb"):
            return Path(said)
    return None


def _defined(values: Iterable[Any], seen: set[int]) -> Iterator[Any]:
    """The classes and functions that `__main__` defines, with those inside its classes."""
    for value in list(values):
        inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if isinstance(inner, ModuleType) or id(inner) in seen or getattr(inner, "__module__", None) != MAIN:
            continue
        if isinstance(inner, type) or hasattr(inner, "__code__"):
            seen.add(id(inner))
            yield inner
            if isinstance(inner, type):
                yield from _defined(vars(inner).values(), seen)
