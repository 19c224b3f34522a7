"""`salver release`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, gather

if TYPE_CHECKING:
    from salver.publish.request import Outcome


@app.command()
def release(
    path: Annotated[
        Path,
        typer.Argument(help="The project's folder, or its salver.toml; by default the nearest.", show_default=False),
    ] = Path(),
    note: Annotated[str, typer.Option(help="A sentence that stays with the release.", show_default=False)] = "",
    accelerate: Annotated[
        Literal["onnx"] | None,
        typer.Option(help="Publish it converted, if that answers the same on every example.", show_default=False),
    ] = None,
    proof: Annotated[
        bool, typer.Option("--proof/--no-proof", help="Prove it in the locked environment, or only in this one.")
    ] = True,
    as_json: JsonFlag = False,
    registry: RegistryFlag = None,
) -> None:
    """Build, prove and publish a release from a project folder.

    The first release of a model goes live by itself; later ones wait for `salver promote`.

    \b
    Examples:
      salver release
      salver release ./churn --note "trained on March"
      salver release --accelerate onnx
    """
    from msgspec.structs import replace

    from salver import wiring
    from salver.cli.acceleration import Acceleration, Remade, keep, report
    from salver.cli.overview import plain
    from salver.cli.terminal import aside, print_json, working
    from salver.publish.project import load_project
    from salver.publish.run import release_model
    from salver.settings import nearest_file

    settings = gather(registry=registry).settings
    with aside():
        project = load_project(path if path != Path() else nearest_file(Path.cwd()) or path)
    request = replace(project, note=note, proof=proof, load_timeout=settings.serve.load_timeout, cache=settings.cache)
    store = wiring.registry(settings)
    faster = Remade(request) if accelerate else None
    with aside(), working(f"build and prove {request.name}"):
        outcome = release_model(request, store, faster)
    found = None
    if faster is not None and faster.done is not None:
        keep(store, outcome.release, faster.done)
        found = Acceleration("", faster.done.evidence, faster.done.speed)
    if as_json:
        print_json(plain(outcome) | ({"acceleration": plain(found)} if found else {}))
    else:
        _print(outcome)
        if found:
            report(outcome.release.name, found)


def _print(outcome: Outcome) -> None:
    from rich.markup import escape

    from salver.cli.terminal import note, print_facts, print_line

    name = outcome.release.name
    state = "published" if outcome.created else "already published, nothing changed"
    print_line(f"[bold]{escape(name)}[/bold] {state}")
    print_facts(
        [
            ("id", outcome.release.id),
            ("framework", outcome.framework),
            ("golden rows", f"{outcome.golden_rows}, {outcome.determinism}"),
            ("files", f"{outcome.files}, {outcome.size:,} bytes"),
            ("runs code when loaded", outcome.unsafe),
        ],
        indent=2,
    )
    for remark in outcome.remarks:
        note(f"note: {escape(remark)}")
    if outcome.went_live:
        print_line(f"[bold green]{escape(name)} is live[/bold green]: it is the first release of its model")
    elif outcome.created:
        print_line(f"it is not live; make it so with: salver promote {escape(name)}")
