"""A model defined in the script that runs: its definitions become a module of their own, the rest stays behind.

`python train.py` defines `Churn` in `__main__`; the release gets a `train.py` with the imports, definitions and
assignments that `Churn` reaches, and nothing that trains, prints or reads.
"""

from __future__ import annotations
import __future__

import ast
import dis
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from salver.errors import error

MAIN = "__main__"
_LOADS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
_STORES = ("STORE_NAME", "STORE_GLOBAL")


def main_script() -> tuple[str, Path] | None:
    """The module name and file of the script this process runs; None where there is none (a shell, `python -m`)."""
    main = sys.modules[MAIN]
    file = getattr(main, "__file__", None)
    if not file or getattr(main, "__spec__", None) is not None or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    return module_name(path.stem), path


def module_name(stem: str) -> str:
    """A script's name as the name of a module: `01-train` → `_01_train`, and never one of the standard library's."""
    name = re.sub(r"\W", "_", stem)
    if not name.isidentifier():
        name = f"_{name}"
    return f"{name}_script" if name in sys.stdlib_module_names else name


@contextmanager
def as_module() -> Iterator[str | None]:
    """While this holds, what the running script defines says that it comes from the script's module, not `__main__`.

    Yields the module's name, or None where no script runs.
    """
    script = main_script()
    if script is None:
        yield None
        return
    name, main = script[0], sys.modules[MAIN]
    renamed = list(_defined(vars(main).values(), set()))
    before = sys.modules.get(name)
    for thing in renamed:
        thing.__module__ = name
    sys.modules[name] = main
    try:
        yield name
    finally:
        for thing in renamed:
            thing.__module__ = MAIN
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


def extract(source: str, wanted: Iterable[str], where: str) -> str:
    """The part of a script that defines `wanted`: what those reach, in the script's order, and nothing else."""
    tree = ast.parse(source, where)
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    flags = _flags(futures)
    statements = [_Statement(node, flags) for node in tree.body if node not in futures and not _is_main_guard(node)]
    kept = _reach(statements, set(wanted), where)
    pieces = [ast.unparse(node) for node in futures]
    pieces += _texts(source, statements, kept)
    return "\n\n".join(pieces) + "\n"


def _texts(source: str, statements: list[_Statement], kept: set[_Statement]) -> Iterator[str]:
    """The kept statements as they were written; those that share a line with another are written anew."""
    lines = source.splitlines()
    shared = Counter(line for one in statements for line in {one.first, one.last})
    for one in statements:
        if one not in kept:
            continue
        if shared[one.first] > 1 or shared[one.last] > 1:
            yield ast.unparse(one.node)
        else:
            yield "\n".join(lines[one.first - 1 : one.last])


class _Statement:
    """A top-level statement: what it binds, what it reads from the module, and where it stands."""

    def __init__(self, node: ast.stmt, flags: int) -> None:
        code = compile(ast.Module([node], []), "<script>", "exec", flags, dont_inherit=True)
        self.node = node
        self.reads = set(_names(code, _LOADS, deep=True))
        self.binds = set(_names(code, _STORES, deep=False))
        decorators = getattr(node, "decorator_list", [])
        self.first = min([node.lineno, *(item.lineno for item in decorators)])
        self.last = node.end_lineno or node.lineno
        self.is_star = isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
        self.changes = _changed(node)


def _reach(statements: list[_Statement], wanted: set[str], where: str) -> set[_Statement]:
    binders: dict[str, list[_Statement]] = {}
    for statement in statements:
        for name in statement.binds | statement.changes:
            binders.setdefault(name, []).append(statement)
    kept = {statement for statement in statements if statement.is_star}
    queue = sorted(wanted | {name for statement in kept for name in statement.reads})
    seen = set(queue)
    while queue:
        name = queue.pop()
        for statement in binders.get(name, ()):
            if statement in kept:
                continue
            kept.add(statement)
            _refuse_training(statement, name, where)
            fresh = (statement.reads | statement.binds) - seen
            seen |= fresh
            queue += sorted(fresh)
    return kept


def _refuse_training(statement: _Statement, name: str, where: str) -> None:
    """A global that is trained at the top of the script would be trained again in each worker."""
    if isinstance(statement.node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    for node in ast.walk(statement.node):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("fit"):
            raise error(
                "code-not-closed",
                f"the model uses {name!r}, which {where}, line {node.lineno} trains with .{node.func.attr}(…)",
                hint="save it, release it with files=…, and read it in load(self, files)",
            )


def _changed(node: ast.stmt) -> set[str]:
    """The names whose value a statement changes in place: `X["a"] = 1`, `X.append(1)`; never those of an import."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        function = node.value.func
        if isinstance(function, ast.Attribute) and function.attr in _MUTATORS:
            targets = [function]
    changed = set()
    for target in targets:
        root: ast.expr = target
        while isinstance(root, ast.Subscript | ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root is not target:
            changed.add(root.id)
    return changed


_MUTATORS = frozenset(
    {"add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "setdefault", "update"}
)


def _names(code: CodeType, operations: tuple[str, ...], *, deep: bool) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in operations:
            yield str(instruction.argval)
    if deep:
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from _names(constant, operations, deep=True)


def _flags(futures: list[ast.ImportFrom]) -> int:
    flags = 0
    for node in futures:
        for alias in node.names:
            flags |= getattr(__future__, alias.name).compiler_flag
    return flags


def _is_main_guard(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If):
        return False
    names = {part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)}
    values = {part.value for part in ast.walk(node.test) if isinstance(part, ast.Constant)}
    return "__name__" in names and MAIN in values


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
