"""`salver show`"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, gather

if TYPE_CHECKING:
    from salver.cli.overview import ReleaseDetails

FILES_SHOWN = 20
GLOBALS_SHOWN = 3
ACCELERATED = "onnx"
"""The framework of what was accelerated; releases of others are shown without looking for evidence."""


@app.command()
def show(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A release (churn@7), or a model: its live one.")],
    as_json: JsonFlag = False,
    registry: RegistryFlag = None,
) -> None:
    """Show what a release is and where it came from.

    \b
    Examples:
      salver show churn@7
    """
    from salver import wiring
    from salver.cli import overview
    from salver.cli.terminal import print_json

    store = wiring.registry(gather(registry=registry).settings)
    release = store.find(reference)
    state = overview.state_of(release, store.history(release.model))
    manifest = store.manifest(release)
    details = overview.ReleaseDetails(release.name, release.id, state, release.provenance, manifest)
    found = None
    if manifest.framework == ACCELERATED:
        from salver.cli import acceleration

        found = acceleration.read(store, release, manifest)
    if as_json:
        print_json({**overview.plain(details), "acceleration": overview.plain(found)})
    else:
        _print(details)
        if found:
            original = found.original or f"a model that was not published itself ({found.evidence.original[:19]})"
            acceleration.print_acceleration(f"Accelerated from {original}", found)


def _print(details: ReleaseDetails) -> None:
    from rich.markup import escape

    from salver.cli.overview import provenance_facts
    from salver.cli.terminal import heading, print_facts, print_line, print_table
    from salver.frameworks.pickled import OPTION
    from salver.signature import describe_field

    manifest = details.manifest
    print_line(f"[bold]{escape(details.name)}[/bold]  {details.state}")
    print_facts([("id", details.id), *provenance_facts(details.provenance)])
    for title, fields in (("Inputs", manifest.signature.inputs), ("Outputs", manifest.signature.outputs)):
        heading(title)
        print_table((), [(field.name, describe_field(field)) for field in fields], indent=2)
    heading("Behaviour")
    serving = manifest.serving
    print_facts(
        [
            ("framework", f"{manifest.framework}, {manifest.entry}"),
            ("options", ", ".join(f"{name} = {value}" for name, value in manifest.options.items() if name != OPTION)),
            ("runs code when loaded", manifest.unsafe),
            ("golden rows", f"{manifest.golden_rows}, reproduced {_how(details)}"),
            ("side effects", manifest.side_effects),
            (
                "serving",
                f"up to {serving.rows_per_call} rows a call"
                + (f", {serving.workers} workers" if serving.workers else ""),
            ),
            ("environment", f"Python {manifest.python}, lock {manifest.lock[:19]}"),
        ],
        indent=2,
    )
    _print_globals(manifest.options)
    heading(f"Files ({sum(file.size for file in manifest.files):,} bytes)")
    rows = [(file.path, f"{file.size:,}", file.sha256[:12]) for file in manifest.files]
    print_table((), rows[:FILES_SHOWN], indent=2)
    if len(rows) > FILES_SHOWN:
        print_line(f"  and {len(rows) - FILES_SHOWN} more; --json lists them all")


def _print_globals(options: Mapping[str, Any]) -> None:
    """What the release's pickle may name, by package: how many, and the first of them."""
    from salver.cli.terminal import heading, print_line, print_table
    from salver.frameworks import pickled

    names = pickled.listed(options)
    if not names:
        return
    heading(f"Globals that its pickle may name ({len(names)})")
    rows = []
    for package, own in pickled.by_package(names).items():
        more = ", …" if len(own) > GLOBALS_SHOWN else ""
        rows.append((package, len(own), ", ".join(own[:GLOBALS_SHOWN]) + more))
    print_table(("package", "#count", "names"), rows, indent=2)
    if any(row[2].endswith("…") for row in rows):
        print_line("  --json lists them all")


def _how(details: ReleaseDetails) -> str:
    manifest = details.manifest
    if manifest.determinism != "tolerance":
        return {"exact": "exactly", "schema-only": "in shape and type only"}[manifest.determinism]
    within = ", ".join(f"{name} within {t.rtol:g} of its value + {t.atol:g}" for name, t in manifest.tolerances.items())
    return f"with a tolerance: {within}"
