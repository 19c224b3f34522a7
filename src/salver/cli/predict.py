"""`salver predict`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from salver.cli.app import app
from salver.cli.options import RegistryFlag, gather
from salver.errors import error

if TYPE_CHECKING:
    from salver.batch.file import Task
    from salver.batch.score import Summary
    from salver.dispatch.local import LocalRelease
    from salver.errors import SalverError
    from salver.wiring import Opened

SHOWN = 10


@app.command()
def predict(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A release (churn@7), or a model: its live one.")],
    file: Annotated[str, typer.Argument(help="Rows as CSV, TSV, JSON lines, a JSON list or Parquet; - for stdin.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Where to; - for stdout.")] = "-",
    file_format: Annotated[str, typer.Option("--format", help="The input's format, if its suffix doesn't say.")] = "",
    output_format: Annotated[str, typer.Option(help="The output's format; by default the input's.")] = "",
    workers: Annotated[int, typer.Option(min=1, max=256, help="How many processes predict.")] = 1,
    any_environment: Annotated[
        bool, typer.Option("--any-environment", help="Even if these packages are not the release's.")
    ] = False,
    registry: RegistryFlag = None,
) -> None:
    """Predict every row of a file; the answers become columns.

    CSV cells are typed by the model's signature, an empty one is a missing value. Rows that can't be predicted keep
    their place and are listed in OUTPUT.errors.jsonl; the exit code is then 2.

    \b
    Examples:
      salver predict churn rows.csv -o scored.csv
      salver predict churn@7 - --format jsonl < rows.jsonl
    """
    import asyncio

    from salver import wiring
    from salver.batch.file import Task, formats
    from salver.cli.terminal import working
    from salver.dispatch.local import LocalRelease

    task = Task(file, output, file_format, output_format)
    formats(task)
    with working(f"open {reference}"):
        settings = gather(registry=registry).settings
        opened = wiring.open_release(settings, reference)
    options = ("--any-environment",) if any_environment else ()
    local = LocalRelease(
        opened.folder, opened.name, workers=workers, options=options,
        load_timeout=settings.serve.load_timeout, cache=settings.cache,
    )  # fmt: skip
    summary = asyncio.run(_score(task, opened, local))
    _conclude(task, summary, opened.name)


async def _score(task: Task, opened: Opened, release: LocalRelease) -> Summary:
    from salver.batch.file import score_file
    from salver.cli.terminal import print_failure, progress

    shown = 0
    with progress(f"score {task.source}") as bar:
        item = bar.add_task("starting", total=1.0)

        def on_failure(line: int, problem: SalverError) -> None:
            nonlocal shown
            shown += 1
            if shown <= SHOWN:
                print_failure(bar.console, f"line {line}", problem)

        def on_progress(rows: int, fraction: float) -> None:
            bar.update(item, completed=fraction, description=f"{rows:,} rows")

        async with release as local:
            return await score_file(
                task, opened.manifest.signature, local, on_failure=on_failure, on_progress=on_progress
            )


def _conclude(task: Task, summary: Summary, name: str) -> None:
    """Say how it went on stderr; rows without a prediction are an error, after everything is written."""
    from salver.batch.file import STANDARD, errors_path
    from salver.cli.terminal import note

    rate = summary.rows / max(summary.seconds, 1e-9)
    where = "" if task.target == STANDARD else f" → {task.target}"
    note(f"{name}: {summary.rows:,} rows in {summary.seconds:.1f} s ({rate:,.0f} a second){where}")
    if summary.failed:
        where = "see above" if task.target == STANDARD else f"see {errors_path(task)}"
        raise error("invalid-row", f"{summary.failed:,} of {summary.rows:,} rows have no prediction", hint=where)
