"""`salver doctor`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, gather

if TYPE_CHECKING:
    from salver.cli.checks import Check
    from salver.settings import Loaded

FAILED = 4


@app.command()
def doctor(
    reference: Annotated[
        str | None, typer.Argument(metavar="REF", help="Also prove this release.", show_default=False)
    ] = None,
    limits: Annotated[bool, typer.Option("--limits", help="Show every limit of a server, and nothing else.")] = False,
    as_json: JsonFlag = False,
    registry: RegistryFlag = None,
) -> None:
    """Check this machine, the registry and, if asked, a release.

    Looks at settings, registry, digests, cache, threads, servers and ports; of a release also at its environment and
    whether a clean worker reproduces its golden rows. Exits with 4 if anything is wrong.

    \b
    Examples:
      salver doctor
      salver doctor churn@7
      salver doctor --limits
    """
    from itertools import chain

    from salver.cli import checks
    from salver.cli.terminal import print_json, working

    loaded = gather(registry=registry)
    if limits:
        _show_limits(loaded, as_json=as_json)
        return
    release = checks.of_release(loaded.settings, reference) if reference else ()
    results = []
    for check in chain(checks.general(loaded), release):
        with working("check"):
            result = check()
        results.append(result)
        if not as_json:
            _print(result)
    if as_json:
        print_json(results)
    if not all(result.ok for result in results):
        raise typer.Exit(FAILED)


def _show_limits(loaded: Loaded, *, as_json: bool) -> None:
    """Every limit: its value, what it is of, and where it was set."""
    from msgspec.structs import asdict

    from salver.cli.terminal import print_json, print_table
    from salver.limits import JSON_DEPTH
    from salver.settings import describe
    from salver.supervisor.cgroup import groups

    own, origins = asdict(loaded.settings.limits), dict(loaded.origins)
    allowed = groups()
    if not own["memory"] and allowed is not None and (held := allowed.read()) is not None:
        own["memory"], origins["limits.memory"] = held.limit, "the control group"
    if as_json:
        print_json({**own, "json_depth": JSON_DEPTH})
        return
    rows = [
        (f"limits.{name}", f"{value:,}", describe(f"limits.{name}"), origins.get(f"limits.{name}", "default"))
        for name, value in own.items()
    ]
    depth = ("json_depth", str(JSON_DEPTH), "Levels of nested JSON that are read.", "fixed")
    print_table(("LIMIT", "VALUE", "OF WHAT", "FROM"), [*rows, depth])


def _print(check: Check) -> None:
    from rich.markup import escape

    from salver.cli.terminal import print_line

    mark = "[green]ok  [/green]" if check.ok else "[bold red]fail[/bold red]"
    advice = f" · hint: {check.advice}" if check.advice and not check.ok else ""
    print_line(f"{mark}  {check.name:<12}  {escape(check.found + advice)}")
