"""A model defined in a notebook: its cells are the script, in the order they ran.

A cell counts as often as it ran. Of a name that was defined again only the last definition travels, unless something
in between was made with an earlier one. Cells that failed don't count, magics and shell commands stay behind.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from salver.errors import error
from salver.packaging import script
from salver.packaging.script import Statement

TIMED = ("time", "capture", "prun")
"""Magics of a whole cell that run it as it is."""
_SHELL = "get_ipython"
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def executed(shell: Any) -> tuple[str, ...]:
    """The cells of an IPython shell that ran without an error, as Python, in the order they ran; this one is last."""
    manager = shell.history_manager
    failed = getattr(manager, "exceptions", {})  # newer versions keep them
    cells = [str(cell) for count, cell in enumerate(manager.input_hist_parsed) if count not in failed]
    return tuple(_unwrapped(cell, shell.transform_cell) for cell in cells if cell.strip())


def extract(cells: Iterable[str], wanted: Iterable[str], present: Collection[str]) -> str:
    """The part of the cells that defines `wanted`, as the source of a module.

    `present` are the names that the running session knows. Raises `code-not-closed` for those of them that the model
    reaches and no cell defines.
    """
    wanted = set(wanted)
    futures, parsed = _parsed(cells)
    ran = [statement for _, own in parsed for statement in own]
    script.settle(ran)
    statements = _without_repeats(ran)
    while True:
        kept = script.reach(statements, wanted)
        outdated = _outdated([statement for statement in statements if statement in kept])
        if not outdated:
            break
        statements = [statement for statement in statements if statement not in outdated]
    _require_definitions(kept, wanted, present)
    for statement, name in kept.items():
        script.refuse_training(statement, name, "a cell")
    pieces = [f"from __future__ import {name}" for name in sorted(futures)]
    pieces += [text for cell, own in parsed for text in script.texts(cell, own, kept)]
    return "\n\n".join(pieces) + "\n"


def _unwrapped(cell: str, transform: Callable[[str], str]) -> str:
    """A cell under `%%time` as if that were not there; other cell magics make no definitions."""
    node = _only_call(cell)
    if node is None or not isinstance(node.func, ast.Attribute) or node.func.attr != "run_cell_magic":
        return cell
    values = [part.value for part in node.args if isinstance(part, ast.Constant)]
    return transform(str(values[2])) if len(values) == 3 and values[0] in TIMED else cell


def _only_call(cell: str) -> ast.Call | None:
    try:
        body = ast.parse(cell).body
    except (SyntaxError, ValueError):
        return None
    only = body[0] if len(body) == 1 else None
    return only.value if isinstance(only, ast.Expr) and isinstance(only.value, ast.Call) else None


def _parsed(cells: Iterable[str]) -> tuple[set[str], list[tuple[str, list[Statement]]]]:
    """Each cell with its statements, and the `__future__` imports, which hold for all cells after them."""
    futures: dict[str, ast.ImportFrom] = {}
    parsed = []
    for cell in cells:
        try:
            body = ast.parse(cell).body
        except (SyntaxError, ValueError):
            continue
        futures |= {alias.name: node for node in body if script.is_future(node) for alias in node.names}
        flags = script.future_flags(futures.values())
        parsed.append((cell, [each for node in body if not script.is_future(node) for each in _statement(node, flags)]))
    return set(futures), parsed


def _statement(node: ast.stmt, flags: int) -> list[Statement]:
    """A statement that may stand in a module: no magic, no `await` outside of a function."""
    try:
        statement = Statement(node, flags)
    except SyntaxError:
        return []
    return [] if _SHELL in statement.eager else [statement]


def _without_repeats(statements: Sequence[Statement]) -> list[Statement]:
    """Leave out what only says again what still holds: a cell that ran twice is the cell that ran once."""
    kept: list[Statement] = []
    said: dict[str, int] = {}
    touched: dict[str, int] = {}
    for place, statement in enumerate(statements):
        text = ast.dump(statement.node)
        names = statement.binds | statement.eager
        if _is_plain(statement) and text in said and all(touched.get(name, -1) <= said[text] for name in names):
            continue
        kept.append(statement)
        said[text] = place
        touched |= dict.fromkeys(statement.binds | statement.changes, place)
    return kept


def _is_plain(statement: Statement) -> bool:
    """Whether running the statement twice in a row is running it once."""
    calls = any(isinstance(node, ast.Call) for node in ast.walk(statement.node))
    return isinstance(statement.node, _DEFINITIONS) or (not calls and statement.binds.isdisjoint(statement.eager))


def _outdated(kept: Sequence[Statement]) -> set[Statement]:
    """The statements whose every name is defined again later, with nothing in between that could have used it."""
    binders = script.binders_of(kept)
    found = set()
    for place, statement in enumerate(kept):
        if _replaces(statement) and all(_is_replaced(name, kept[place + 1 :], binders) for name in statement.binds):
            found.add(statement)
    return found


def _is_replaced(name: str, later: Iterable[Statement], binders: Mapping[str, list[Statement]]) -> bool:
    for statement in later:
        if name in _used(statement, binders):
            return False
        if name in statement.binds and _replaces(statement):
            return True
    return False


def _used(statement: Statement, binders: Mapping[str, list[Statement]]) -> set[str]:
    """What a statement may use while it runs: what it reads, and what the functions that it calls read."""
    used: set[str] = set()
    queue = [*statement.eager, *statement.changes]
    while queue:
        name = queue.pop()
        if name not in used:
            used.add(name)
            queue += (read for binder in binders.get(name, ()) if binder is not statement for read in binder.reads)
    return used


def _replaces(statement: Statement) -> bool:
    """Whether the statement always binds its names: a definition, an import or a plain assignment."""
    node = statement.node
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) for target in node.targets)
    return isinstance(node, _DEFINITIONS) and not statement.is_star


def _require_definitions(kept: Iterable[Statement], wanted: set[str], present: Collection[str]) -> None:
    reached = wanted | {name for statement in kept for name in statement.reads}
    defined = {name for statement in kept for name in statement.binds}
    missing = sorted(name for name in reached - defined if name in present)
    if missing and not any(statement.is_star for statement in kept):
        raise error(
            "code-not-closed",
            f"the model uses {', '.join(missing)}, which no cell defines that ran to its end",
            hint="a magic, a script or a cell that failed did: define it in a cell, and run that",
        )
