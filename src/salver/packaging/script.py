"""What a script defines, cut down to what a model reaches: the definitions become a module, the rest stays behind.

`python train.py` defines `Churn` in `__main__`; the release gets a `train.py` with the imports, definitions and
assignments that `Churn` reaches, and nothing that trains, prints or reads.
"""

from __future__ import annotations
import __future__

import ast
import dis
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import CodeType
from typing import TypeGuard

from salver.errors import error
from salver.packaging import effects

MAIN = "__main__"
_LOADS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
_STORES = ("STORE_NAME", "STORE_GLOBAL")


def module_name(stem: str) -> str:
    """A script's name as the name of a module: `01-train` → `_01_train`, and never one of the standard library's."""
    name = re.sub(r"\W", "_", stem)
    if not name.isidentifier():
        name = f"_{name}"
    return f"{name}_script" if name in sys.stdlib_module_names else name


def extract(source: str, wanted: Iterable[str], where: str) -> str:
    """The part of a script that defines `wanted`: what those reach, in the script's order, and nothing else."""
    tree = ast.parse(source, where)
    futures = [node for node in tree.body if is_future(node)]
    flags = future_flags(futures)
    guards = [node for node in tree.body if effects.is_main_guard(node)]
    statements = [Statement(node, flags) for node in tree.body if node not in futures and node not in guards]
    settle(statements)
    wanted = set(wanted)
    _refuse_guarded(wanted - binders_of(statements).keys(), [Statement(node, flags) for node in guards], where)
    kept = reach(statements, wanted)
    for statement, name in kept.items():
        refuse_training(statement, name, f"{where}, line {statement.first},")
    pieces = [ast.unparse(node) for node in futures]
    pieces += texts(source, statements, kept)
    return "\n\n".join(pieces) + "\n"


def _refuse_guarded(names: Collection[str], guards: Iterable[Statement], where: str) -> None:
    """What only a script that runs defines is in no module: raises `code-not-closed`."""
    found = sorted({name for guard in guards for name in guard.binds & set(names)})
    if found:
        raise error(
            "code-not-closed",
            f"{where} defines {', '.join(found)} under if __name__ == {MAIN!r}, where no worker can import it from",
            hint="move the class to the top of its module",
        )


def texts(source: str, statements: Collection[Statement], kept: Collection[Statement]) -> Iterator[str]:
    """The kept of a source's statements as they were written; those that share a line with another are written anew."""
    lines = source.splitlines()
    shared = Counter(line for one in statements for line in {one.first, one.last})
    for one in statements:
        if one not in kept:
            continue
        if shared[one.first] > 1 or shared[one.last] > 1:
            yield ast.unparse(one.node)
        else:
            yield "\n".join(lines[one.first - 1 : one.last])


class Statement:
    """A top-level statement: what it binds, what it reads from the module, and where it stands.

    `eager` is what it reads while it runs, so without the bodies of functions; `asks` is what other statements have to
    define for it; `changes`, which `settle` finds, is what it changes in place. Raises SyntaxError for what can't stand
    at the top of a module.
    """

    def __init__(self, node: ast.stmt, flags: int = 0) -> None:
        code = compile(ast.Module([node], []), "<script>", "exec", flags, dont_inherit=True)
        self.node = node
        self.reads = set(_names(code, _LOADS, _everything))
        self.eager = set(_names(code, _LOADS, _runs_at_once))
        self.binds = set(_names(code, _STORES, _nothing))
        decorators = getattr(node, "decorator_list", [])
        self.first = min([node.lineno, *(item.lineno for item in decorators)])
        self.last = node.end_lineno or node.lineno
        self.is_star = isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
        self.asks = self._asks(code)
        self.changes: set[str] = set()

    def _asks(self, code: CodeType) -> set[str]:
        """What it reads and, where it binds several names to one value, those; not a loop's own variables."""
        if not isinstance(self.node, ast.For | ast.With):
            return self.reads | self.binds
        order: dict[str, str] = {}
        for instruction in dis.get_instructions(code):
            if instruction.opname in (*_LOADS, *_STORES):
                order.setdefault(str(instruction.argval), instruction.opname)
        stored = {name for name in _bound_at_once(self.node) if order.get(name) in _STORES}
        return self.reads - (stored - _late(code))


def reach(statements: Collection[Statement], wanted: Iterable[str]) -> dict[Statement, str]:
    """The statements that `wanted` need, transitively, each with the name that asked for it."""
    binders = binders_of(statements)
    kept = {statement: "*" for statement in statements if statement.is_star}
    queue = sorted({*wanted, *(name for statement in kept for name in statement.reads)})
    seen = set(queue)
    while queue:
        name = queue.pop()
        for statement in binders.get(name, ()):
            if statement in kept:
                continue
            kept[statement] = name
            fresh = statement.asks - seen
            seen |= fresh
            queue += sorted(fresh)
    return kept


def binders_of(statements: Iterable[Statement]) -> Mapping[str, list[Statement]]:
    """By name: the statements that bind it or change its value."""
    binders: dict[str, list[Statement]] = {}
    for statement in statements:
        for name in statement.binds | statement.changes:
            binders.setdefault(name, []).append(statement)
    return binders


def settle(statements: Collection[Statement]) -> None:
    """Find what each statement changes in place, also through the functions that it calls."""
    found = effects.Effects([statement.node for statement in statements])
    for statement in statements:
        statement.changes = found.changed(statement.node)


def refuse_training(statement: Statement, name: str, where: str) -> None:
    """A global that is trained at the top would be trained again in each worker: raises `code-not-closed`."""
    if isinstance(statement.node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    for node in ast.walk(statement.node):
        if method := effects.training_call(node):
            raise error(
                "code-not-closed",
                f"the model uses {name!r}, which {where} trains with .{method}(…)",
                hint="save it, release it with files=…, and read it in load(self, files)",
            )


_Enters = Callable[[CodeType], bool]


def _names(code: CodeType, operations: tuple[str, ...], enters: _Enters) -> Iterator[str]:
    """The names that a code object and those of its inner ones that `enters` accepts load or store."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in operations:
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and enters(constant):
            yield from _names(constant, operations, enters)


def _bound_at_once(node: ast.For | ast.With) -> set[str]:
    """The names that a loop or a `with` binds whenever its body runs: its variables, and plain assignments there."""
    targets = [node.target] if isinstance(node, ast.For) else [item.optional_vars for item in node.items]
    targets += [target for part in node.body if isinstance(part, ast.Assign) for target in part.targets]
    parts = [part for target in targets if target is not None for part in ast.walk(target)]
    return {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


def _late(code: CodeType) -> set[str]:
    """The names that the functions inside a code object read, whenever they are called."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    found: set[str] = set()
    for each in inner:
        found |= _late(each) if _runs_at_once(each) else set(_names(each, _LOADS, _everything))
    return found


def read_later(tree: ast.Module) -> set[str]:
    """The names of a module that its functions read."""
    return _late(compile(tree, "<module>", "exec", dont_inherit=True))


def reached(tree: ast.Module, wanted: Iterable[str]) -> ast.Module:
    """The functions and classes of a module that `wanted` read, transitively, and nothing that runs beside them."""
    flags = future_flags(filter(is_future, tree.body))
    definitions = [Statement(node, flags) for node in tree.body if _defines(node)]
    return ast.Module([statement.node for statement in reach(definitions, wanted)], [])


def _defines(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _everything(code: CodeType) -> bool:
    del code
    return True


def _nothing(code: CodeType) -> bool:
    del code
    return False


def _runs_at_once(code: CodeType) -> bool:
    """Whether an inner code object runs with the statement: a class body or a comprehension."""
    return not code.co_flags & inspect.CO_OPTIMIZED or code.co_name in (
        "<listcomp>",
        "<setcomp>",
        "<dictcomp>",
        "<genexpr>",
    )


def is_future(node: ast.stmt) -> TypeGuard[ast.ImportFrom]:
    """Whether a statement is `from __future__ import …`."""
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def future_flags(futures: Iterable[ast.ImportFrom]) -> int:
    """The compiler's flags for these imports."""
    flags = 0
    for node in futures:
        for alias in node.names:
            flags |= getattr(__future__, alias.name).compiler_flag
    return flags
