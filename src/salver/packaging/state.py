"""What a module's plain globals hold, as short texts that two processes can compare."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterator, Mapping
from types import FunctionType, SimpleNamespace
from typing import Any

MAX_PARTS = 200_000
"""A value with more parts than this is compared by its size."""
MAX_BYTES = 1 << 28
_DEPTH = 20
_OPAQUE = "…"


def snapshot(watched: Mapping[str, Collection[str]], same: Mapping[str, str]) -> dict[str, str]:
    """By `module:name`, what those of the watched modules that are imported hold below these names.

    Also the attributes of classes and functions, as `module:Class.name`. In texts, each key of `same` is replaced by
    its value first: they are what differs by the place where a module runs.
    """
    found: dict[str, str] = {}
    for module, names in watched.items():
        held = vars(sys.modules[module]) if module in sys.modules else {}
        for name in names:
            if name in held:
                for below, value in _values(name, held[name], module):
                    found[f"{module}:{below}"] = describe(value, same, watched)
    return found


def describe(value: Any, same: Mapping[str, str], own: Collection[str] = ()) -> str:
    """A text that is equal for equal plain values: their kind, their size and a digest; empty for all others.

    Objects of classes of the modules `own` are what their attributes are.
    """
    writer = _Writer(same, own)
    written = writer.write(value, 0)
    if written == _OPAQUE:
        return ""
    size = f" of {len(value)}" if hasattr(value, "__len__") and not isinstance(value, str | bytes) else ""
    digest = hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest() if writer.left > 0 else ""
    return f"{type(value).__name__}{size} {digest}"


def _values(name: str, value: Any, module: str) -> Iterator[tuple[str, Any]]:
    """A global, or the attributes of a class or function that the module itself defines."""
    if not isinstance(value, type | FunctionType):
        yield name, value
    elif value.__module__ == module:
        for key, inner in vars(value).items():
            if not key.startswith("__"):
                yield f"{name}.{key}", inner


class _Writer:
    """Writes plain values so that equal ones are equal texts; `left` falls to 0 where there is too much of it."""

    def __init__(self, same: Mapping[str, str], own: Collection[str]) -> None:
        self.left = MAX_PARTS
        self._same = same
        self._own = own

    def write(self, value: Any, depth: int) -> str:
        self.left -= 1
        if self.left <= 0 or depth > _DEPTH:
            return _OPAQUE
        if isinstance(value, str):
            return "s" + repr(self._placed(str.__str__(value)))
        if value is None or isinstance(value, bool | int | float | complex | bytes | bytearray):
            return f"{'b' if isinstance(value, bool) else ''}{_plain(value)!r}"
        if isinstance(value, SimpleNamespace):
            return f"n{self.write(vars(value), depth + 1)}"
        if isinstance(value, dict):
            return self._joined(
                "{", (f"{self.write(k, depth + 1)}:{self.write(v, depth + 1)}" for k, v in _items(value))
            )
        if isinstance(value, set | frozenset):
            return self._joined("<", (self.write(each, depth + 1) for each in tuple(value)))
        if isinstance(value, list | tuple) or (type(value).__module__, type(value).__name__) == (
            "collections",
            "deque",
        ):
            return f"[{','.join(self.write(each, depth + 1) for each in tuple(value))}"
        if type(value).__module__ in self._own and hasattr(value, "__dict__"):
            return f"o{type(value).__qualname__}{self.write(vars(value), depth + 1)}"
        return self._array(value, depth)

    def _joined(self, kind: str, parts: Iterator[str]) -> str:
        return kind + ",".join(sorted(parts))

    def _placed(self, text: str) -> str:
        for before, after in self._same.items():
            text = text.replace(before, after)
        return text

    def _array(self, value: Any, depth: int) -> str:
        """An array or number of numpy, known by its type's home so that numpy need not be there."""
        if type(value).__module__ != "numpy" or not hasattr(value, "dtype"):
            return _OPAQUE
        head = f"a{value.dtype}{value.shape}"
        if value.dtype.hasobject:
            return head + self.write(value.tolist(), depth + 1)
        return head + (hashlib.sha256(value.tobytes()).hexdigest() if value.nbytes <= MAX_BYTES else "")


def _items(value: dict[Any, Any]) -> tuple[tuple[Any, Any], ...]:
    return tuple(dict.items(value))


def _plain(value: Any) -> Any:
    """The value without what a subclass adds, such as an enumeration's name."""
    kinds: tuple[type[Any], ...] = (bool, int, float, complex, bytes, bytearray)
    return next((kind(value) for kind in kinds if isinstance(value, kind)), value)
