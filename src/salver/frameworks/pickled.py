"""Pickles that may name only the globals their release lists: recorded when they are written, enforced when read.

A global is written `module:name`. Python announces each one that any unpickler looks up, before it is imported or
built, whichever class reads the file (`joblib`'s own, one nested in an object array, one that an object's own state
calls). Listening there sees, and stops, what a `find_class` of ours would miss.
"""

from __future__ import annotations

import copyreg
import importlib
import pickle
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from salver.errors import SalverError, error
from salver.frameworks.owners import is_installed, places

JOBLIB = ".joblib"
"""Files with this suffix are written and read by joblib; all others are plain pickles."""

OPTION = "globals"
"""The option of a release's manifest that lists the globals."""

Reducers = Mapping[type, Callable[[Any], Any]]
"""How to reduce objects of a type whose own class refuses to be pickled."""

_STALE = re.compile(r"not the same object as (?:__main__\.)?(\S+)")
_BY_NAME = "lambdas and local functions can't be saved: define them by name in a module"
_UNPICKLABLE = (pickle.PicklingError, AttributeError, TypeError, RecursionError)


def save(model: Any, path: Path, reducers: Reducers | None = None) -> set[str]:
    """Write `model` to `path` and read it back once; returns every global that reading it looks up.

    Raises `unsupported-model` for what can't be pickled. `reducers` are for plain pickles only.
    """
    try:
        with path.open("wb") as file:
            if path.suffix == JOBLIB:
                importlib.import_module("joblib").dump(model, file, protocol=5)
            else:
                pickler = pickle.Pickler(file, protocol=5)
                pickler.dispatch_table = {**copyreg.dispatch_table, **(reducers or {})}
                pickler.dump(model)
        with recording() as seen:
            _read(path)
    except _UNPICKLABLE as problem:
        path.unlink(missing_ok=True)
        raise unsavable(type(model).__name__, problem, _BY_NAME) from None
    return seen


def unsavable(what: str, problem: Exception, hint: str) -> SalverError:
    """The error for a model that can't be pickled: with `hint`, unless it holds what was defined again since."""
    stale = _STALE.search(str(problem))
    why = f"{stale[1]} was defined again after the model was made" if stale else str(problem)
    hint = "make the model again: run the cell or the lines that fit it" if stale else hint
    return error("unsupported-model", f"{what} can't be saved: {why}", hint=hint)


def load(path: Path, allowed: Iterable[str] | None) -> Any:
    """Read what `save` wrote; raises `untrusted-artifact` before any global that is not among `allowed` is built.

    `allowed` is the option `globals` of the release, or None where it has none, which is refused.
    """
    if allowed is None:
        raise error(
            "untrusted-artifact",
            f"{path.name} is a pickle, and the release doesn't list the globals that it may name",
            hint="the release was made before they were recorded: release the model again",
        )
    names = frozenset(allowed)
    for module in sorted({name.partition(":")[0] for name in names}):
        with suppress(ImportError):  # here, so that what an import itself unpickles isn't taken for the artifact's
            importlib.import_module(module)
    with only(names, path.name):
        return _read(path)


@contextmanager
def recording() -> Iterator[set[str]]:
    """Collect the globals that this thread unpickles within the block, with any library."""
    seen: set[str] = set()
    with _watching(seen.add):
        yield seen


@contextmanager
def only(allowed: Collection[str], what: str) -> Iterator[None]:
    """Within the block, this thread unpickles no global but those allowed, with any library; `what` is named else."""

    def check(name: str) -> None:
        if name not in allowed:
            raise error(
                "untrusted-artifact",
                f"{what} names {name}, which is not among the globals that the release lists",
                hint="release the model again from its source",
                details=(name,),
            )

    with _watching(check):
        yield


def module(name: str) -> ModuleType:
    """The module of this name, for pickles, which releases name it in: listed and enforced as the global `name:`."""
    sys.audit(_FOUND, name, "")
    return importlib.import_module(name)


def needed(names: Iterable[str]) -> list[str]:
    """What globals need importable, for the option `imports`: the user's own things as `module:name`, else packages."""
    wanted = set()
    for name in names:
        root = name.partition(":")[0].partition(".")[0]
        if root != "salver" and root not in sys.stdlib_module_names:
            wanted.add(root if any(map(is_installed, places(root))) else name.removesuffix(":"))
    return sorted(wanted)


def by_package(names: Iterable[str]) -> dict[str, list[str]]:
    """Globals by the package that they are from, both sorted."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(name.partition(":")[0].partition(".")[0], []).append(name)
    return dict(sorted(groups.items()))


def listed(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The globals in a release's options, sorted; () where it holds no pickle."""
    found = options.get(OPTION)
    return tuple(sorted(map(str, found))) if isinstance(found, list | tuple) else ()


def _read(path: Path) -> Any:
    if path.suffix == JOBLIB:
        return importlib.import_module("joblib").load(path)
    with path.open("rb") as file:
        return pickle.load(file)


class _Watchers(threading.local):
    """Those who want to know, innermost last; a thread has its own."""

    def __init__(self) -> None:
        self.all: list[Callable[[str], None]] = []
        self.heard = False


_watchers = _Watchers()
_FOUND = "pickle.find_class"
_PROBE = "salver.pickled.probe"


@contextmanager
def _watching(look: Callable[[str], None]) -> Iterator[None]:
    _listen()
    # What an extension code stands for is looked up only once in a process, unless its cache is empty.
    copyreg.clear_extension_cache()
    _watchers.all.append(look)
    try:
        yield
    finally:
        _watchers.all.pop()


@cache
def _listen() -> None:
    """Add the hook, which stays as long as the process; a hook of somebody else may forbid it."""

    def hook(event: str, args: tuple[Any, ...], watchers: _Watchers = _watchers) -> None:
        if event == _FOUND:
            for look in watchers.all:
                look(f"{args[0]}:{args[1]}")
        elif event == _PROBE:
            watchers.heard = True

    sys.addaudithook(hook)
    sys.audit(_PROBE)
    if not _watchers.heard:
        raise error("load-failed", "another audit hook of this process keeps pickles from being watched")
