"""Which names' values the statements of a script change in place, read from their text, also through functions.

What changes something evidently is found; what only reads is not taken for a change. What can't be seen here, such as
a change through another name, is found by comparing values (`salver.packaging.state`).
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_AT_ONCE = frozenset({"__init__", "__new__", "__post_init__"})
"""What runs when a class is called; when it is inherited from, `__init_subclass__` does."""
_MUTATORS = frozenset({
    "add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "fill", "insert", "pop", "popitem",
    "popleft", "remove", "reverse", "setdefault", "sort", "subtract", "update",
})  # fmt: skip
"""Methods that change their object wherever they are called; others may, where nobody reads what they return."""
_READERS = frozenset({
    "all", "any", "close", "copy", "count", "critical", "debug", "describe", "display", "error", "exception", "flush",
    "get", "head", "hist", "index", "info", "items", "join", "keys", "log", "max", "mean", "min", "plot", "print",
    "score", "show", "std", "sum", "summary", "tail", "transform", "values", "warning", "write",
})  # fmt: skip
_READS = ("dump", "predict", "save", "to_", "write_")
"""What the names of methods begin with that only read."""
_CHANGERS = frozenset({
    "at", "copyto", "delattr", "fill_diagonal", "heapify", "heappop", "heappush", "insort", "insort_left",
    "insort_right", "place", "put", "put_along_axis", "putmask", "setattr", "setitem", "shuffle",
})  # fmt: skip
"""Functions that change an argument; besides, those whose name ends with _, as torch's do."""


class _Definition(NamedTuple):
    """A function, or what a class runs: which globals and whether arguments change, what it calls, if it releases."""

    changes: frozenset[str]
    arguments: bool
    calls: frozenset[str]
    releases: bool


class Effects:
    """What calling the functions and classes of a script changes."""

    def __init__(self, nodes: Collection[ast.stmt]) -> None:
        self._imported = {name for node in nodes if isinstance(node, _IMPORTS) for name in _aliases(node)}
        self._classes: dict[str, list[ast.ClassDef]] = {}
        self._definitions: dict[str, list[_Definition]] = {}
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                self._classes.setdefault(node.name, []).append(node)
                parts: list[ast.AST] = [part for part in node.body if getattr(part, "name", "") in _AT_ONCE]
                self._define(node.name, parts)
            elif isinstance(node, _FUNCTIONS):
                self._define(node.name, [node])
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
                for target in node.targets:
                    self._define(getattr(target, "id", ""), [node.value])

    def changed(self, node: ast.stmt) -> set[str]:
        """The names whose value a statement changes in place; nothing where it publishes, which no worker may."""
        if isinstance(node, _IMPORTS):
            return set()
        parts = list(_eager(node))
        called = self._reached(_called(node, parts))
        definitions = [each for name in called for each in self._definitions.get(name, ())]
        definitions += [each for base in _bases(parts) for each in self._on_inheriting(base)]
        if any(_releases(part) for part in parts) or any(each.releases for each in definitions):
            return set()
        found = _stored(parts) | self._by_methods(parts) | self._by_arguments(parts)
        return found.union(*(each.changes for each in definitions))

    def _define(self, name: str, parts: Iterable[ast.AST]) -> None:
        self._definitions.setdefault(name, []).extend(_definition(part) for part in parts)

    def _reached(self, names: Iterable[str]) -> set[str]:
        """The names of what is called, and of what those call."""
        seen: set[str] = set()
        queue = [*names]
        while queue:
            name = queue.pop()
            if name not in seen:
                seen.add(name)
                queue += (call for each in self._definitions.get(name, ()) for call in each.calls)
        return seen

    def _on_inheriting(self, name: str) -> Iterator[_Definition]:
        for node in self._classes.get(name, ()):
            hooks = [part for part in node.body if getattr(part, "name", "") == "__init_subclass__"]
            yield from map(_definition, hooks)
            for base in () if hooks else _bases([node]):
                yield from self._on_inheriting(base)

    def _by_methods(self, parts: Iterable[ast.AST]) -> set[str]:
        """What methods change: never a module by others than `_MUTATORS`, nor a class by its own methods."""
        found = set()
        for call, alone in _method_calls(parts):
            name, depth = _root(call.func)
            method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            fixed = name in self._imported or (depth < 2 and name in self._classes) or name in self._definitions
            if method in _MUTATORS or (alone and not fixed and not _only_reads(method)):
                found.add(name)
        return found - {""}

    def _by_arguments(self, parts: Iterable[ast.AST]) -> set[str]:
        found = set()
        for call in parts:
            if not isinstance(call, ast.Call):
                continue
            function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            own = self._definitions.get(function, ()) if isinstance(call.func, ast.Name) else ()
            if any(each.arguments for each in own) or (not own and _changes_arguments(function)):
                given = [*call.args, *(word.value for word in call.keywords)]
                found |= {_root(part.value if isinstance(part, ast.Starred) else part)[0] for part in given}
        return found - {""}


def changed_by_functions(tree: ast.AST) -> set[str]:
    """Each name and attribute that some function below `tree` changes when it is called, such as a cache."""
    found: set[str] = set()
    for function in ast.walk(tree):
        if isinstance(function, (*_FUNCTIONS, ast.Lambda)):
            parts = list(ast.walk(function))
            for target in _changed_parts(parts):
                found |= {part.attr for part in ast.walk(target) if isinstance(part, ast.Attribute)}
                found.add(_root(target)[0])
            found |= {name for part in parts if isinstance(part, ast.Global) for name in part.names}
    return found


def _definition(node: ast.AST) -> _Definition:
    parts = list(ast.walk(node))
    parameters = {part.arg for part in parts if isinstance(part, ast.arg)}
    declared = {name for part in parts if isinstance(part, ast.Global) for name in part.names}
    stored = {part.id for part in parts if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load)}
    changed = {_root(target)[0] for target in _changed_parts(parts)}
    local = (parameters | stored) - declared
    calls = {part.func.id for part in parts if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)}
    releases = any(_releases(part) for part in parts)
    return _Definition(
        frozenset(changed - local | declared & stored), bool(changed & parameters), frozenset(calls), releases
    )


def _changed_parts(parts: Collection[ast.AST]) -> Iterator[ast.expr]:
    """What a function's statements change, as they write it."""
    for part in parts:
        if isinstance(part, ast.Subscript | ast.Attribute) and not isinstance(part.ctx, ast.Load):
            yield part
        elif isinstance(part, ast.AugAssign):
            yield part.target
    for call, alone in _method_calls(parts):
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if isinstance(call.func, ast.Attribute) and (method in _MUTATORS or (alone and not _only_reads(method))):
            yield call.func.value
    for part in parts:
        if isinstance(part, ast.Call) and _changes_arguments(getattr(part.func, "attr", getattr(part.func, "id", ""))):
            yield from part.args


def _eager(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and all parts of it that run with it: of functions only decorators and defaults."""
    yield node
    if isinstance(node, _FUNCTIONS):
        inner: Iterable[ast.AST] = (*node.decorator_list, node.args)
    elif isinstance(node, ast.Lambda):
        inner = (node.args,)
    else:
        inner = ast.iter_child_nodes(node)
    for part in inner:
        yield from _eager(part)


def _called(node: ast.stmt, parts: Iterable[ast.AST]) -> set[str]:
    """The names that a statement calls, also as decorators."""
    called = {part.func.id for part in parts if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)}
    return called | {part.id for part in getattr(node, "decorator_list", ()) if isinstance(part, ast.Name)}


def _method_calls(parts: Iterable[ast.AST]) -> Iterator[tuple[ast.Call, bool]]:
    """The calls of methods, each with whether it stands alone, so that nobody reads what it returns."""
    alone: set[ast.AST] = set()
    for part in parts:
        if isinstance(part, ast.Expr):
            alone |= {part.value, getattr(part.value, "elt", part.value)}
        if isinstance(part, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            alone |= set(part.decorator_list)
            for decorator in part.decorator_list:
                if isinstance(decorator, ast.Attribute):
                    yield ast.Call(decorator, [], []), True
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            yield part, part in alone


def _stored(parts: Iterable[ast.AST]) -> set[str]:
    """The names below which something is stored or deleted: `X["a"] = 1`, `X.b += 1`, `del X[0]`."""
    targets = [part for part in parts if isinstance(part, ast.Subscript | ast.Attribute)]
    return {_root(part)[0] for part in targets if not isinstance(part.ctx, ast.Load)} - {""}


def _root(node: ast.expr) -> tuple[str, int]:
    """The name that a chain of attributes, subscripts and methods starts with, and the length of the chain."""
    depth = 0
    while True:
        if isinstance(node, ast.Subscript | ast.Attribute):
            node, depth = node.value, depth + 1
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node = node.func
        else:
            return (node.id, depth) if isinstance(node, ast.Name) else ("", depth)


def _bases(parts: Iterable[ast.AST]) -> set[str]:
    nodes = [part for part in parts if isinstance(part, ast.ClassDef)]
    return {base.id for node in nodes for base in node.bases if isinstance(base, ast.Name) and base.id != node.name}


def _aliases(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)


def _only_reads(method: str) -> bool:
    return method in _READERS or method.startswith(_READS)


def _changes_arguments(function: str) -> bool:
    return function in _CHANGERS or (function.endswith("_") and not function.startswith("_"))


def _releases(node: ast.AST) -> bool:
    """Whether a node calls `salver.release`, by that name or as `release`."""
    if not isinstance(node, ast.Call):
        return False
    return ast.unparse(node.func) in ("salver.release", "release")


def training_call(node: ast.AST) -> str:
    """The method of `.fit(…)` and its like; empty for all else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("fit"):
        return node.func.attr
    return ""


def is_main_guard(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__": …`."""
    if not isinstance(node, ast.If):
        return False
    names = {part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)}
    values = {part.value for part in ast.walk(node.test) if isinstance(part, ast.Constant)}
    return "__name__" in names and "__main__" in values
