"""Which installed packages a model object needs, read off its classes and whatever it holds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

MAX_OBJECTS = 100_000
"""How many objects of a model are looked at; a model with more repeats the classes of those."""

_PLAIN = (str, bytes, bytearray, int, float, complex, bool, type(None))


def modules_of(model: object) -> set[str]:
    """The top-level names of all third-party modules behind a model: its classes, bases, parts and functions.

    Only what an installed distribution provides is named; the user's own modules travel as code, see `own_of`. A model
    that was fitted with column names gets `pandas` too, where it is installed, since its frames carry those names.
    """
    owners = packages_distributions()
    tops: set[str] = set()
    for part in _parts(model):
        tops.update(name.partition(".")[0] for name in _homes(part))
        if hasattr(part, "__dict__") and "feature_names_in_" in vars(part):
            tops.add("pandas")
    tops -= {"salver", *sys.stdlib_module_names}
    return {top for top in tops if _installed(top, owners.get(top, ()))}


def own_of(model: object) -> set[str]:
    """The user's own classes and functions behind a model, as `module:name`: whatever no distribution provides."""
    owners = packages_distributions()
    found: set[str] = set()
    for part in _parts(model):
        kinds = type(part).__mro__
        for each in (part, *kinds) if isinstance(part, type | FunctionType) else kinds:
            found.add(f"{each.__module__}:{each.__qualname__.partition('.')[0]}")
    tops = {name.partition(":")[0].partition(".")[0] for name in found} - {"salver", *sys.stdlib_module_names}
    own = {top for top in tops if not _installed(top, owners.get(top, ()))}
    return {name for name in found if name.partition(":")[0].partition(".")[0] in own}


def _installed(top: str, names: Sequence[str]) -> bool:
    """Whether the imported module is the one of a distribution; some bring a `tests` that hides the user's own."""
    module = sys.modules.get(top)
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    roots = [str(distribution(name).locate_file("")) for name in names]
    known = [Path(place) for place in places if place]
    return bool(names) and (not known or any(place.is_relative_to(root) for place in known for root in roots))


def _parts(model: object) -> Iterator[object]:
    """The model and everything it holds, each once."""
    stack: list[object] = [model]
    seen: set[int] = set()
    kept: list[object] = []  # keeps what was made on the way alive, so that no id is given twice
    while stack and len(seen) < MAX_OBJECTS:
        part = stack.pop()
        if isinstance(part, _PLAIN) or id(part) in seen:
            continue
        seen.add(id(part))
        kept.append(part)
        yield part
        stack.extend(_held(part))


def _held(part: Any) -> Iterator[object]:
    if isinstance(part, dict):
        yield from part.keys()
        yield from part.values()
    elif isinstance(part, list | tuple | set | frozenset):
        yield from part
    elif isinstance(part, np.ndarray):
        if part.dtype == object:
            yield from part.ravel()
    elif isinstance(part, partial):
        yield from (part.func, part.args, part.keywords)
    elif isinstance(part, MethodType):
        yield from (part.__self__, part.__func__)
    elif isinstance(part, FunctionType):
        yield from _closure(part)
    elif not isinstance(part, type | ModuleType):
        yield from getattr(part, "__dict__", {}).values()
        for slot in _slots(type(part)):
            yield getattr(part, slot, None)


def _closure(function: FunctionType) -> Iterator[object]:
    """What a function refers to outside of itself: closed-over values and the globals that its code names."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue  # a name that was never bound
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield function.__globals__[name]


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        yield from (
            (slots,) if isinstance(slots, str) else (slot for slot in slots if slot not in ("__dict__", "__weakref__"))
        )


def _homes(part: object) -> Iterator[str]:
    """The modules that define a part: of the function, of the class or of every class it inherits from."""
    if isinstance(part, ModuleType):
        yield part.__name__
        return
    if not isinstance(part, type):
        module = getattr(part, "__module__", None)
        if isinstance(module, str):
            yield module
    for kind in (part if isinstance(part, type) else type(part)).__mro__:
        yield kind.__module__
