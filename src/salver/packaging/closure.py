"""The code closure: every module of the user's own that a model needs, found by reading imports, never by running."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from salver.errors import error
from salver.frameworks.owners import is_installed
from salver.packaging import effects, script, session
from salver.packaging.session import Notebook, Script


class Closure(NamedTuple):
    """The files of code/ by relative path, and the modules of installed packages that are wanted or imported.

    `watched` are, by module, the globals that the code reads when it predicts; `changing` are names and attributes that
    it changes then, so that their values say nothing about the code.
    """

    files: dict[str, bytes]
    imports: frozenset[str]
    watched: Mapping[str, frozenset[str]] = MappingProxyType({})
    changing: frozenset[str] = frozenset()


class _Import(NamedTuple):
    """What an import statement names; `attribute` where it may be a name inside a module as well as a module."""

    module: str
    line: int = 0
    required: bool = True
    attribute: bool = False


def close(wanted: Iterable[str], script_module: str = "") -> Closure:
    """Collect the user's own modules among `wanted` and all they import, transitively.

    Each entry is `module` or `module:name`. Of the running script or notebook and of `script_module` only what the
    named things reach is taken, so that nothing is trained again where the code is imported. Standard library and
    installed packages stay out; the packages are in `imports`. Raises `code-not-closed` with every import that leads
    nowhere.
    """
    pairs = [entry.partition(":")[::2] for entry in wanted]
    scripts = _scripts(script_module)
    names = {module: {name.partition(".")[0] for at, name in pairs if at == module and name} for module in scripts}
    _refuse_main(sorted(name for module, name in set(pairs) if module == session.MAIN), scripts)
    walk = _Walk(scripts, names)
    for module in sorted({module for module, _ in pairs}):
        walk.reach(module, _Import(module), "the model")
    if walk.problems:
        raise error(
            "code-not-closed",
            "the model's code needs modules that can't travel with it",
            hint="install them, or put them beside the model's module",
            details=tuple(walk.problems),
        )
    return _watching(Closure(walk.files, frozenset(walk.packages)), names)


def modules(closure: Closure) -> list[str]:
    """The names of the modules in a closure."""
    return sorted(map(_module, closure.files))


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _watching(closure: Closure, names: Mapping[str, set[str]]) -> Closure:
    """The closure with what is to be compared; `names` are what the model needs of the modules that are cut."""
    trees = {_module(path): ast.parse(source, path) for path, source in closure.files.items()}
    across = {name for tree in trees.values() for name in _named(tree)}
    watched = {module: frozenset(across | script.read_later(tree)) for module, tree in trees.items()}
    used = [script.reached(tree, names[module]) if module in names else tree for module, tree in trees.items()]
    changing = frozenset(name for tree in used for name in effects.changed_by_functions(tree))
    return closure._replace(watched=watched, changing=changing)


def _named(tree: ast.Module) -> Iterator[str]:
    """The names by which a module may read what others or its own classes and functions hold."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name


def is_own(spec: ModuleSpec) -> bool:
    """Whether a module is the user's: a source file (or namespace folder) that no installer put where it is."""
    if spec.name.partition(".")[0] in sys.stdlib_module_names or spec.name.partition(".")[0] == "salver":
        return False
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    return bool(places) and not any(is_installed(Path(place)) for place in places)


def can_travel(module: str) -> bool:
    """Whether a module is the user's own, a running script's or a notebook's."""
    running = session.running()
    if running is not None and module == running.module:
        return True
    spec = find(module)
    return spec is not None and is_own(spec)


def _scripts(module: str) -> dict[str, Script | Notebook]:
    """The modules of which only a part travels."""
    running = session.running()
    scripts: dict[str, Script | Notebook] = {running.module: running} if running else {}
    spec = find(module) if module else None
    if spec is not None and spec.origin and spec.submodule_search_locations is None and is_own(spec):
        scripts[module] = Script(module, Path(spec.origin))
    return scripts


def _refuse_main(names: list[str], scripts: Mapping[str, Script | Notebook]) -> None:
    """Raise `code-not-closed` for things of `__main__`, which is no module elsewhere, and say what to do."""
    if not names:
        return
    if any(isinstance(running, Notebook) for running in scripts.values()):
        why, hint = "of an earlier definition", "run the cells that make the model again"
    elif getattr(sys.modules[session.MAIN], "__spec__", None) is not None:
        why, hint = "in a module that python -m runs", "run its file, or import it from another"
    elif session.running() is not None:
        why, hint = "defined inside a function of the script or no longer there", "move it to the top of the script"
    else:
        why, hint = "typed into a session that keeps no source", "put it in a file and import it, or use a notebook"
    raise error("code-not-closed", f"the model needs {', '.join(names)}, {why}", hint=hint)


class _Walk:
    def __init__(self, scripts: Mapping[str, Script | Notebook], names: Mapping[str, set[str]]) -> None:
        self.files: dict[str, bytes] = {}
        self.packages: set[str] = set()
        self.problems: list[str] = []
        self._seen: set[str] = set()
        self._scripts = scripts
        self._names = names

    def reach(self, module: str, wanted: _Import, importer: str) -> None:
        """Take in a module with its parent packages; `importer` is who asks for it."""
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if name in self._seen:
                continue
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top == "salver":
                return
            if name in self._scripts:
                self._seen.add(name)
                self._take_script(name, self._scripts[name])
                continue
            spec = find(name)
            if spec is None:
                if wanted.required:
                    self.problems.append(f"{importer}{_at(wanted.line)} imports {module}, which is not installed")
                return
            if not is_own(spec):
                if not wanted.attribute:
                    self.packages.add(module)
                return
            self._seen.add(name)
            self._take(name, spec)

    def _take(self, name: str, spec: ModuleSpec) -> None:
        if not spec.has_location or spec.origin is None:
            return  # a namespace package has no file of its own
        path = Path(spec.origin)
        if path.suffix != ".py":
            self.problems.append(f"{name} is compiled ({path.name}); build it as a package and install it")
            return
        is_package = spec.submodule_search_locations is not None
        self._add(name, path.read_bytes(), is_package)

    def _take_script(self, name: str, running: Script | Notebook) -> None:
        self._add(name, running.extract(self._names[name]).encode(), False)

    def _add(self, name: str, source: bytes, is_package: bool) -> None:
        relative = name.replace(".", "/") + ("/__init__.py" if is_package else ".py")
        self.files[relative] = source
        package = name if is_package else name.rpartition(".")[0]
        for wanted in _imports(ast.parse(source, relative), package):
            self.reach(wanted.module, wanted, relative)


def find(name: str) -> ModuleSpec | None:
    """Where a module is, without importing it or its parents."""
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None)
    if isinstance(spec, ModuleSpec):
        return spec
    parent = name.rpartition(".")[0]
    locations: Any = None
    if parent:
        above = find(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        locations = above.submodule_search_locations
    for finder in sys.meta_path:
        found = finder.find_spec(name, locations) if hasattr(finder, "find_spec") else None
        if found is not None:
            return found
    return None


def _imports(tree: ast.Module, package: str) -> Iterator[_Import]:
    """Every import of a module, also inside functions; those that may fail by design are not required."""
    stack: list[tuple[ast.AST, bool]] = [(tree, True)]
    while stack:
        node, required = stack.pop()
        if isinstance(node, ast.Import):
            yield from (_Import(alias.name, node.lineno, required) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            yield _Import(base, node.lineno, required)
            yield from (_Import(f"{base}.{a.name}", node.lineno, False, True) for a in node.names if a.name != "*")
        elif isinstance(node, ast.Call):
            yield from _dynamic(node)
        if isinstance(node, ast.Try):
            guarded = any(_catches_import(clause) for clause in node.handlers)
            stack += [(child, required and not guarded) for child in node.body]
            stack += [(child, required) for child in (*node.handlers, *node.orelse, *node.finalbody)]
        elif isinstance(node, ast.If) and _is_typing_only(node.test):
            stack += [(child, required) for child in node.orelse]
        else:
            stack += [(child, required) for child in ast.iter_child_nodes(node)]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")
    base = base[: len(base) - (node.level - 1)]
    return ".".join([*base, *([node.module] if node.module else [])])


def _dynamic(node: ast.Call) -> Iterator[_Import]:
    """`importlib.import_module("name")` and `__import__("name")` with the name written out."""
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name in ("import_module", "__import__") and len(node.args) == 1 and isinstance(node.args[0], ast.Constant):
        value = node.args[0].value
        if isinstance(value, str) and not value.startswith("."):
            yield _Import(value, node.lineno, False)


def _catches_import(clause: ast.ExceptHandler) -> bool:
    kinds = clause.type.elts if isinstance(clause.type, ast.Tuple) else [clause.type]
    names = {getattr(kind, "id", getattr(kind, "attr", "")) for kind in kinds if kind is not None}
    return clause.type is None or bool(names & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


def _is_typing_only(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def installed_folders() -> list[str]:
    """The folders of this interpreter that hold installed packages, as they stand on the path."""
    return [entry for entry in sys.path if is_installed(Path(entry))]


def _at(line: int) -> str:
    return f", line {line}," if line else ""
