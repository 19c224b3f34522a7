"""The size and shape budget: `python -m tools.budget` prints every breach and fails when there is one.

Each rule is a function from source text (or the imports of all modules) to problems, so that a test can feed it a
small bad sample. The limits stand once, here; there is no list of exceptions.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tools import locks

MODULE_LINES = 400
FUNCTION_LINES = 40
FUNCTION_SHARE = 0.95
FUNCTION_MOST = 80
PARAMETERS = 6
OPTIONS = 14
PORT_METHODS = 5
BROAD_EXCEPTS = 2

EMPTY_NAMES = {"base", "common", "core", "handler", "handlers", "helper", "helpers", "manager", "misc", "util", "utils"}
CODE = ("src", "tools", "bench", "tests")
SKIPPED = {"__pycache__", "dist", "build", "node_modules"}

# Where an import may stand inside a function; the second list for packages of an extra only.
LOCKED: dict[str, set[str]] = {
    "run": {"demo", "sklearn", "onnx", "client"},
    "test": {"demo", "sklearn", "onnx", "client", "parquet", "jwt", "otel"},
    "frameworks": {
        "lightgbm", "catboost", "keras", "statsmodels", "spacy", "transformers", "sentence-transformers", "mlflow",
        "accelerate",
    },
}  # fmt: skip
"""The extras that each lock has to fulfil; torch has no lock, and xgboost is tested as its build for processors."""
LATE_IMPORTS = ("salver/__init__", "salver/__main__", "salver/cli", "salver/plugins", "salver/wiring")
LATE_EXTRAS = (
    "salver/accelerate",
    "salver/access/tokens",
    "salver/frameworks",
    "salver/gateway/tracing",
    "salver/protocols/arrow",
    "salver/tables",
    "salver/batch/parquet",
    "salver/client/transport",
    "salver/publish/project",
    "salver/publish/snapshot",
)

# What the light part and the keeper may import besides the standard library and Salver itself.
LIGHT = (
    "errors", "frames", "frameworks", "golden", "limits", "lock", "lookup", "model", "plugins", "protocols", "record",
    "release", "route", "signature", "tables", "worker",
)  # fmt: skip
LIGHT_PACKAGES = {"numpy", "msgspec"}
KEEPER = "salver/supervisor/keeper"
ADAPTERS = re.compile(r"salver/frameworks/(?!__init__)|salver/protocols/arrow|salver/tables")

FOREIGN = {
    "a path of one machine": re.compile(r"/work[/]|/root[/]"),
    "the host of a package registry": re.compile(r"pypi[.]org|pythonhosted[.]org|registry[.]npmjs|deb[.]debian[.]org"),
}
TEXTS = {".py", ".md", ".toml", ".txt", ".in", ".sh", ".cfg", ".yml", ".yaml", ".html", ".svg", ".conf", ".json", ""}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> int:
    """Check the whole project; the exit code says whether it keeps its budget."""
    problems = list(check_project(Path()))
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"budget: {len(problems)} problem{'' if len(problems) == 1 else 's'}")
    return 1 if problems else 0


def check_project(root: Path) -> Iterator[str]:
    """Every breach of the budget below `root`."""
    lengths: list[int] = []
    sources: dict[str, ast.Module] = {}
    pyproject = (root / "pyproject.toml").read_text()
    extras = extra_packages(pyproject)
    for lock, chosen in LOCKED.items():
        path = root / "requirements" / f"{lock}.txt"
        yield from locks.check(path.relative_to(root).as_posix(), path.read_text(), locks.wanted(pyproject, chosen))
    for path in project_files(root):
        relative = path.relative_to(root).as_posix()
        if path.suffix not in TEXTS:
            continue
        text = path.read_text(errors="replace")
        yield from check_text(relative, text)
        if path.suffix == ".py" and relative.startswith(CODE):
            tree = ast.parse(text, relative)
            yield from check_module(relative, text, tree)
            if relative.startswith("src/"):
                module = relative.removeprefix("src/").removesuffix(".py")
                sources[module] = tree
                lengths += [length(function) for function in functions(tree)]
                yield from check_imports(module, tree, extras)
    layers = layer_numbers(pyproject)
    for module, tree in sources.items():
        yield from check_layers(module, tree, layers)
    yield from check_share(lengths)
    yield from check_cycles(import_graph(sources))


def project_files(root: Path) -> Iterator[Path]:
    """Every file of the project, in order; no hidden folder but .ci, and nothing that a tool made."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if n not in SKIPPED and (not n.startswith(".") or n == ".ci"))
        yield from (Path(folder) / name for name in sorted(files))


def check_text(path: str, text: str) -> Iterator[str]:
    """Words that belong to one machine or one network have no place in a project."""
    for what, pattern in FOREIGN.items():
        for found in pattern.finditer(text):
            yield f"{path}:{line_of(text, found)}: names {what}: {found.group()!r}"


def line_of(text: str, match: re.Match[str]) -> int:
    """The number of the line on which `match` begins."""
    return text.count("\n", 0, match.start()) + 1


def check_module(path: str, text: str, tree: ast.Module) -> Iterator[str]:
    """Size, names, parameters, ports and broad excepts of one module."""
    lines = text.count("\n")
    if lines > MODULE_LINES:
        yield f"{path}: {lines} lines, the limit is {MODULE_LINES}"
    words = {part for name in Path(path).with_suffix("").parts for part in name.split("_")}
    if path.startswith("src/") and (empty := words & EMPTY_NAMES):
        yield f"{path}: a module named {sorted(empty)[0]!r} says nothing of what is in it"
    for function in functions(tree):
        where = f"{path}:{function.lineno}: {function.name}"
        if (size := length(function)) > FUNCTION_MOST:
            yield f"{where} has {size} lines, the limit is {FUNCTION_MOST}"
        allowed = OPTIONS if is_command(function) else PARAMETERS
        if (count := parameters(function)) > allowed:
            yield f"{where} has {count} parameters, the limit is {allowed}: pass a struct"
    for port in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and is_port(node)):
        methods = [node for node in port.body if isinstance(node, Function)]
        if len(methods) > PORT_METHODS:
            yield f"{path}:{port.lineno}: port {port.name} has {len(methods)} methods, the limit is {PORT_METHODS}"
    broad = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and is_broad(node)]
    if len(broad) > BROAD_EXCEPTS and path.startswith("src/"):
        yield f"{path}: catches everything {len(broad)} times (lines {broad}), the limit is {BROAD_EXCEPTS}"


def functions(tree: ast.AST) -> list[Function]:
    """Every function and method, nested ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def length(function: Function) -> int:
    """Lines from `def` to the last statement."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """How many parameters a caller can give; self and cls don't count."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    return len(names) - (names[:1] in (["self"], ["cls"])) + len(arguments.kwonlyargs)


def is_command(function: Function) -> bool:
    """Whether this is a command of the CLI, whose parameters are its options and flags."""
    named = (node.func if isinstance(node, ast.Call) else node for node in function.decorator_list)
    return any(isinstance(node, ast.Attribute) and node.attr in ("command", "callback") for node in named)


def is_port(node: ast.ClassDef) -> bool:
    """Whether a class is a typing.Protocol (asyncio's transport protocols are something else)."""
    named = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
    return any(ast.unparse(base) in ("Protocol", "typing.Protocol") for base in named)


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether an except clause catches everything."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in caught)


def check_share(lengths: list[int]) -> Iterator[str]:
    """Nearly all functions are short."""
    short = sum(size < FUNCTION_LINES for size in lengths)
    if lengths and short < FUNCTION_SHARE * len(lengths):
        yield f"src: {short} of {len(lengths)} functions are under {FUNCTION_LINES} lines, {FUNCTION_SHARE:.0%} must be"


def imports(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Each import of a tree: line, dotted name of what is imported, and whether it stands inside a function."""
    inside = {id(inner) for function in functions(tree) for inner in ast.walk(function)}
    for node in ast.walk(tree):
        late = id(node) in inside
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}", late) for alias in node.names)


def check_imports(module: str, tree: ast.Module, extras: set[str]) -> Iterator[str]:
    """Where imports stand, and what the light part and the keeper are allowed; `module` is like salver/worker/loop."""
    allowed: set[str] | None = None
    if module.split("/")[1] in LIGHT:
        allowed = LIGHT_PACKAGES | (extras if ADAPTERS.match(module) else set())
    elif module.startswith(KEEPER):
        allowed = set()
    for line, name, late in imports(tree):
        where = f"src/{module}.py:{line}"
        top = name.split(".")[0]
        if late and not (module.startswith(LATE_IMPORTS) or (module.startswith(LATE_EXTRAS) and top in extras)):
            yield f"{where}: {name} is imported inside a function"
        if allowed is not None and top not in {*sys.stdlib_module_names, "salver", *allowed}:
            yield f"{where}: imports {top}; here only the standard library and {sorted(allowed) or 'nothing else'}"


def layer_numbers(pyproject: str) -> dict[str, int]:
    """How far from the top each module of the package stands, as the layers contract says."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return {name: number for number, row in enumerate(layers) for name in re.findall(r"\w+", row)}


def check_layers(module: str, tree: ast.Module, layers: Mapping[str, int]) -> Iterator[str]:
    """Imports point down, those for types too, which import-linter leaves out."""
    own = module.split("/")[1]
    for line, name, _late in imports(tree) if own != "__init__" else ():
        top, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if top == "salver" and target != own and layers.get(target, len(layers)) <= layers.get(own, -1):
            yield f"src/{module}.py:{line}: {own} may not import {target}"


def extra_packages(pyproject: str) -> set[str]:
    """The import names of what the extras bring."""
    spelled = {
        "scikit_learn": "sklearn", "mlflow_skinny": "mlflow", "pyjwt": "jwt",
        "opentelemetry_sdk": "opentelemetry",
    }  # fmt: skip
    wanted = [w for extra in tomllib.loads(pyproject)["project"]["optional-dependencies"].values() for w in extra]
    names = {re.split(r"[^A-Za-z0-9_.-]", want)[0].replace("-", "_").lower() for want in wanted}
    return {spelled.get(name, name) for name in names} | {"joblib", "scipy"}


def import_graph(sources: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Which of our modules imports which, typing and late imports included; the lazy facade imports nothing."""
    names = {path.replace("/", ".").removesuffix(".__init__"): tree for path, tree in sources.items()}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name, tree in names.items():
        for _, target, _late in imports(tree) if name != "salver" else ():
            found = target if target in names else target.rpartition(".")[0]
            if found in names and found not in (name, "salver"):
                graph[name].add(found)
    return graph


def check_cycles(graph: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """No module may come back to itself along its imports."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> Iterator[str]:
        if name in trail:
            yield "import cycle: " + " -> ".join([*trail[trail.index(name) :], name])
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                yield from visit(target, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, [])


if __name__ == "__main__":
    sys.exit(main())
