"""`salver diff`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, gather

if TYPE_CHECKING:
    from salver.cli.comparison import Changed, Comparison


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A release (churn@7), or a model: its live one.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The release to compare with it.")],
    as_json: JsonFlag = False,
    registry: RegistryFlag = None,
) -> None:
    """Compare two releases.

    Shows what breaks clients, which golden rows get another answer, which packages and files changed, and
    what a pickle of the new release may name that the old one could not.

    \b
    Examples:
      salver diff churn churn@8
    """
    from salver import wiring
    from salver.cli import comparison
    from salver.cli.overview import plain
    from salver.cli.terminal import print_json, working

    settings = gather(registry=registry).settings
    with working("fetch both releases"):
        opened = [wiring.open_release(settings, reference) for reference in (old, new)]
        contents = [comparison.read_contents(each.folder, each.manifest) for each in opened]
    result = comparison.compare((opened[0].name, opened[1].name), contents[0], contents[1])
    if as_json:
        print_json(plain(result))
    else:
        _print(result)


def _print(result: Comparison) -> None:
    from rich.markup import escape

    from salver.cli.terminal import heading, print_line

    print_line(f"[bold]{escape(result.old)} → {escape(result.new)}[/bold]")
    if result.same:
        print_line("No difference in behaviour that the releases' own records show.")
    if result.signature:
        heading("Signature")
    for change in result.signature:
        mark = "[bold red]breaks clients[/bold red]" if change.kind == "breaking" else "[green]compatible[/green]"
        print_line(f"  {mark}  {escape(change.where)}: {escape(change.what)}, {escape(change.why)}")
    if result.golden.shared:
        heading("Golden rows")
        print_line(f"  {result.golden.differ} of {result.golden.shared} shared rows get another answer")
    for example in result.golden.examples:
        print_line(f"    {escape(example)}")
    for title, changes in (("Behaviour", result.facts), ("Packages", result.packages), ("Files", result.files)):
        _print_changes(title, changes)
    if result.globals.added or result.globals.dropped:
        heading("Globals that the pickle may name")
    for name in result.globals.added:
        print_line(f"  [bold]added[/bold]    {escape(name)}")
    for name in result.globals.dropped:
        print_line(f"  dropped  {escape(name)}")


def _print_changes(title: str, changes: list[Changed]) -> None:
    from salver.cli.terminal import heading, print_table

    if changes:
        heading(title)
        print_table((), [(c.name, c.old or "(none)", "→", c.new or "(none)") for c in changes], indent=2)
