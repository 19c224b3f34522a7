"""The reference in docs/reference, from the code: `python -m tools.reference` writes it, a test compares it."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import typer.main

import salver
from salver import limits, metrics
from salver.cli.app import GROUPS, app
from salver.cli.boundary import register
from salver.errors import CODES
from salver.gateway import openapi, paths
from salver.release import Serving
from salver.settings import PREFIX, Settings, sentences
from salver.signature import Column, Tensor

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Written by `make docs` from the code. Change the code, not this page. -->"

EXITS = {
    0: "it worked",
    1: "a bug, or the model failed",
    2: "the command, a setting or a file is wrong",
    3: "the thing named does not exist",
    4: "refused: doing it would break something",
    5: "nobody's fault: try again later",
}
TURNS = {
    "user": ("Your turn", "The request, the release or the command has to change."),
    "busy": ("Nobody's fault", "The same request may succeed later; an answer of HTTP 503 has `Retry-After`."),
    "broken": ("Our turn, or the model author's", "Something that should work did not."),
}
PAGES_SERVED = {
    "predict": "predict one row or a list",
    "models": "the models served here",
    "model": "live release and signature of a model",
    "live": "200 while the server runs",
    "ready": "200 when each model has a proven worker, else 503",
    "v2-server": "server metadata",
    "v2-model": "model metadata",
    "v2-models": "the names of the models served here",
    "v2-config": "shapes, types and batch size in the words of Triton",
    "v2-index": "the releases that are loaded, and whether each is ready",
    "v2-load": "501: this port changes nothing, `salver promote` does",
    "model-ready": "200 when this model has a proven worker, else 503",
    "v1-models": "the models served here",
    "v1-model": "whether the model is ready",
    "v1-metadata": "inputs and outputs in the words of TF Serving",
    "ping": "200 while the one model is ready, as SageMaker asks (MLflow: with a line break)",
    "mlflow-health": "the same, with `--dialect mlflow`",
    "mlflow-version": "the version of Salver, with `--dialect mlflow`",
    "execution-parameters": "what SageMaker's batch transform asks first",
    "openapi": "the OpenAPI document of what is live",
    "docs": "the same as a page to read and try",
    "asset": "what that page needs",
    "home": "leads to /docs",
    "metrics": "Prometheus metrics",
    "status": "processes, releases and counts as JSON",
}


def main() -> int:
    """Write every page."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render(), "utf-8")
        print(f"wrote docs/reference/{name}")
    return 0


def errors_page() -> str:
    """Every error code, by whose turn it is."""
    lines = [
        "# Error codes",
        NOTE,
        "",
        "A code is stable. The text beside it names the thing and the place, and a hint says what to do.",
    ]
    for turn, (title, meaning) in TURNS.items():
        lines += ["", f"## {title}", "", meaning, ""]
        rows = [(f"`{code}`", m.http, m.grpc, m.exit) for code, m in CODES.items() if m.turn == turn]
        lines += table(("code", "HTTP", "gRPC", "exit"), rows)
    lines += ["", "## Exit codes of the command", "", *table(("exit", "meaning"), list(EXITS.items()))]
    return page(lines)


def settings_page() -> str:
    """Every setting with its flag, variable, default and sentence."""
    lines = [
        "# Settings",
        NOTE,
        "",
        "A flag wins over the environment, the environment over `salver.toml`. The file is looked for in the current "
        "folder and its parents; `serve.port` in it is the key `port` of the table `[serve]`. "
        "A list in the environment is written as here, or with commas between: `health,metrics`.",
        "",
    ]
    rows = [
        (f"`{name}`", f"`{PREFIX}{name.replace('.', '_').upper()}`", f"`{msgspec.json.encode(default).decode()}`", said)
        for name, default, said in fields(Settings)
    ]
    lines += table(("setting", "environment", "default", "meaning"), rows)
    return page(lines)


def http_page() -> str:
    """Paths, headers, statuses and limits of a server."""
    lines = ["# HTTP", NOTE, "", "Each server shows its own models with their schemas at `/docs` and `/openapi.json`."]
    for title, served in (("Predictions", paths.PUBLIC), ("Admin port", paths.ADMIN)):
        rows = [(f"`{p.method} {readable(p.pattern.pattern)}`", PAGES_SERVED[p.kind]) for p in served]
        lines += ["", f"## {title}", "", *table(("request", "answer"), rows)]
    given = [(f"`{p['name']}`", p["in"], p["description"]) for p in openapi.PARAMETERS.values()]
    lines += ["", "## Parameters of a prediction", "", *table(("name", "where", "meaning"), given)]
    lines += ["", "## Statuses of a prediction", ""]
    answered = {"200": "Answered; single rows of a list may hold an error."}
    lines += table(("status", "meaning"), sorted((answered | openapi.STATUSES | openapi.KEYED).items()))
    lines += ["", "## Limits", "", inspect.getdoc(limits.Limits) or "", ""]
    said = sentences(limits.Limits)
    defaults = msgspec.to_builtins(limits.Limits())
    lines += table(("limit", "default", ""), [(f"`{n}`", f"{value:,}", said[n]) for n, value in defaults.items()])
    lines += ["", f"JSON may be nested {limits.JSON_DEPTH} deep; absurd nesting gets status 400.", ""]
    names = ", ".join(f"`{name}`" for name in metrics.LIMITS)
    lines += [f"`salver_limit_hits_total` counts what runs into a limit, by these names: {names}.", ""]
    return page(lines)


def python_page() -> str:
    """Everything that `import salver` offers, and the structs one meets on the way."""
    lines = ["# Python", NOTE, "", "What `import salver` offers."]
    for name in sorted(salver.__all__):
        lines += ["", *python_entry(f"salver.{name}", getattr(salver, name))]
    for kind in (Column, Tensor, Serving):
        rows = [(f"`{name}`", f"`{default!r}`" if default is not None else "") for name, default in struct_fields(kind)]
        lines += ["", f"## Fields of {kind.__name__}", "", inspect.getdoc(kind) or "", ""]
        lines += table(("field", "default"), rows)
    return page(lines)


def python_entry(name: str, thing: Any) -> Iterator[str]:
    """One function or class: signature, docstring, and its public methods."""
    if inspect.isfunction(thing):
        yield from (
            f"## `{name}`",
            "",
            "```python",
            f"{name}{signature(thing)}",
            "```",
            "",
            inspect.getdoc(thing) or "",
        )
        return
    yield from (f"## `{name}`", "", inspect.getdoc(thing) or "")
    if hasattr(thing, "__struct_fields__") or issubclass(thing, Exception):
        return
    members = {"__init__": thing.__init__} | {k: v for k, v in vars(thing).items() if not k.startswith("_")}
    for method, value in members.items():
        value = value.__func__ if isinstance(value, staticmethod) else value
        if inspect.isfunction(value):
            shown = name if method == "__init__" else f"{name}.{method}"
            said = "" if method == "__init__" else inspect.getdoc(value) or ""
            yield from ("", "```python", f"{shown}{signature(value)}", "```", "", said)


def signature(function: Callable[..., Any]) -> str:
    """A signature as one reads it: no self, no module names, one parameter a line where it is long."""
    found = inspect.signature(function)
    shown = found.replace(parameters=[p for name, p in found.parameters.items() if name != "self"])
    text = re.sub(r"'([^']*)'(?=[,)=\]]| =|$)", r"\1", str(shown))
    return text if len(text) <= 90 else text.replace("(", "(\n    ", 1).replace(", ", ",\n    ")


def cli_page() -> str:
    """Every command with its arguments and options."""
    lines = ["# Command line", NOTE, ""]
    register()
    root = typer.main.get_command(app)
    lines.append(plain(root.help or ""))
    order = [verb for verbs in GROUPS.values() for verb in verbs]
    found = dict(sorted(commands(root), key=lambda pair: order.index(pair[0].split()[0])))
    lines += [
        "",
        *table(("command", "does"), [(f"`salver {n}`", plain(c.help or "").split("\n")[0]) for n, c in found.items()]),
    ]
    for name, command in found.items():
        context = command.make_context(f"salver {name}", [], resilient_parsing=True)
        usage = " ".join([f"salver {name}", *command.collect_usage_pieces(context)])
        lines += ["", f"## salver {name}", "", plain(command.help or ""), "", "```sh", usage, "```"]
        rows = [row for parameter in command.params if (row := parameter_row(parameter, context))]
        if rows:
            lines += ["", *table(("option", "default", "meaning"), rows)]
    return page(lines)


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command below a group that is not hidden, with its full name."""
    for name, command in getattr(group, "commands", {}).items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def parameter_row(parameter: Any, context: Any) -> tuple[str, str, str] | None:
    """Name, default and help of an argument or option."""
    if getattr(parameter, "hidden", False):
        return None
    option = parameter.param_type_name == "option"
    names = parameter.opts + parameter.secondary_opts if option else [parameter.metavar or parameter.name.upper()]
    default = parameter.get_default(context)
    said = plain(getattr(parameter, "help", "") or "")
    return f"`{', '.join(names)}`", "" if default in (None, False, (), "") else f"`{default}`", said


def fields(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Name, default and sentence of every field, nested structs opened."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, default in struct_fields(kind):
        if isinstance(hints[name], type) and issubclass(hints[name], msgspec.Struct):
            yield from fields(hints[name], f"{prefix}{name}.")
        else:
            metas = typing.get_args(hints[name])[1:]
            yield f"{prefix}{name}", default, next((m.description for m in metas if m.description), "")


def struct_fields(kind: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    """Name and default of each field of a struct; None where it has none."""
    return [(field.name, None if field.required else field.default) for field in msgspec.structs.fields(kind)]


def readable(pattern: str) -> str:
    """A route's pattern as a path: `/models/{model}/predict`."""
    text = re.sub(r"\(\?P<(\w+)>[^()]*\)", r"{\1}", pattern)
    text = re.sub(r"\(([^()]*)\)\?", r"[\1]", text).replace(r"\.", ".")
    return " or ".join(part.removesuffix("/?") or "/" for part in text.split("|"))


def plain(text: str) -> str:
    """Help text without markup; a block of examples becomes a fenced one."""
    bare = re.sub(r"\[/?(?:bold|dim|italic|cyan|green|red|yellow)[^\]]*\]", "", inspect.cleandoc(text))
    paragraphs = []
    for paragraph in bare.split("\n\n"):
        if paragraph.startswith("\b"):
            title, *lines = paragraph.lstrip("\b\n").splitlines()
            paragraphs.append("\n".join([title, "", "```sh", *map(str.strip, lines), "```"]))
        else:
            paragraphs.append(" ".join(paragraph.split()))
    return "\n\n".join(paragraphs)


def table(head: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> list[str]:
    """A Markdown table."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *cells]]


def page(lines: list[str]) -> str:
    """Lines as a page."""
    return "\n".join(lines).rstrip() + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "errors.md": errors_page,
    "http.md": http_page,
    "python.md": python_page,
    "settings.md": settings_page,
}

if __name__ == "__main__":
    sys.exit(main())
