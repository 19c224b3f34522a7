"""`salver demo`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag

if TYPE_CHECKING:
    from salver.demo.story import Report


@app.command()
def demo(
    folder: Annotated[Path | None, typer.Option(help="Where to work; a new temporary folder by default.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running at the end.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """See it all in a minute, on real data.

    Two releases, load, a promotion, a killed worker, a rollback: every answer is checked.
    Needs no network and leaves your registry alone.

    \b
    Examples:
      salver demo --keep
    """
    import tempfile
    import time

    from salver.cli.terminal import note, print_json, working
    from salver.demo import story

    began = time.monotonic()
    story.check_extra()
    place = story.prepare(folder) if folder else Path(tempfile.mkdtemp(prefix="salver-demo-"))
    note(f"[dim]working in {place}[/dim]")

    def say(what: str) -> None:
        note(f"[dim]{time.monotonic() - began:5.1f} s[/dim]  {what}")

    with working("salver demo"):
        report = story.run(place, say, keep=keep)
    if as_json:
        print_json(report)
    else:
        _print(report, time.monotonic() - began, keep=keep)
    if report.problems:
        raise typer.Exit(1)


def _print(report: Report, seconds: float, *, keep: bool) -> None:
    from salver.cli.terminal import heading, print_facts, print_line

    answers = " · ".join(f"{release} {count:,}" for release, count in report.answers.items())
    heading(f"What happened in {seconds:.0f} s")
    print_facts(
        [
            ("requests", f"{report.requests:,} real rows, {report.per_second:,.0f} a second"),
            ("failed", f"{sum(report.failures.values())}"),
            ("answers", f"{answers} · every one checked against the model's own"),
            ("time to answer", f"median {report.median * 1e3:.1f} ms, 99 % within {report.p99 * 1e3:.1f} ms"),
            ("promotion under load", f"live after {report.promoted:.2f} s"),
            ("kill -9 of a worker", f"replaced, new process after {report.replaced:.2f} s"),
            ("rollback under load", f"live after {report.rolled_back:.2f} s"),
        ]
    )
    for problem in report.problems:
        print_line(f"[bold red]failed[/bold red]: {problem}")
    heading("Go on by hand")
    print_line(f"  cd {report.folder} && export SALVER_REGISTRY=$PWD/registry SALVER_CACHE=$PWD/cache")
    if keep:
        print_line(f"  open {report.url}/docs (stop the server with: kill {report.pid})")
    else:
        print_line("  salver serve")
    print_line("  salver history credit · salver diff credit@1 credit@2 · salver promote credit@2")
