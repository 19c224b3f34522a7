"""`salver verify`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, gather
from salver.errors import error

if TYPE_CHECKING:
    from salver.registry import Report

ORPHANS_SHOWN = 10


@app.command()
def verify(
    model: Annotated[str | None, typer.Argument(help="Check this model only.", show_default=False)] = None,
    as_json: JsonFlag = False,
    registry: RegistryFlag = None,
) -> None:
    """Read the whole registry again and check every digest.

    Exits with 4 if anything is damaged or missing.

    \b
    Examples:
      salver verify
      salver verify churn
    """
    from salver import wiring
    from salver.cli.overview import plain
    from salver.cli.terminal import print_json, working

    store = wiring.registry(gather(registry=registry).settings)
    with working(f"read {store.place}"):
        report = store.verify(model)
    if as_json:
        print_json({"clean": report.clean, **plain(report)})
    else:
        _print(report)
    if not report.clean:
        count = len(report.problems)
        raise error(
            "corrupt",
            f"{store.place} has {count} problem{'s' * (count > 1)}",
            hint="restore what is damaged or missing from a backup, or publish the same content again",
        )


def _print(report: Report) -> None:
    from salver.cli.terminal import print_line, print_table

    print_line(f"read {report.objects:,} objects, {report.size:,} bytes")
    if report.problems:
        print_table(("PROBLEM", "OBJECT", "WHAT"), [(p.kind, p.key, p.message) for p in report.problems])
    if report.orphans:
        print_line(f"{len(report.orphans)} objects belong to nothing (harmless):")
        print_table((), [(key,) for key in report.orphans[:ORPHANS_SHOWN]], indent=2)
    if report.clean:
        print_line("everything is there and intact")
