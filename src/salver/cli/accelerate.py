"""`salver accelerate`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, gather

if TYPE_CHECKING:
    from salver.release import Manifest


@app.command()
def accelerate(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A release (churn@7), or a model: its live one.")],
    rows: Annotated[
        Path | None, typer.Option(help="Rows to compare on: .csv, .jsonl, .parquet or .npy.", show_default=False)
    ] = None,
    note: Annotated[str, typer.Option(help="A sentence that stays with the release.", show_default=False)] = "",
    as_json: JsonFlag = False,
    registry: RegistryFlag = None,
) -> None:
    """Convert a release to ONNX, prove that it answers the same, and publish it as the next one.

    Compares both on the golden rows, the rows given, and rows made to tell them apart: nulls, unseen categories, ends
    of ranges, both sides of every split. Nothing is published where an answer differs. The new release is not live.

    \b
    Examples:
      salver accelerate churn@7
      salver accelerate churn --rows holdout.csv
    """
    import tempfile
    from datetime import UTC, datetime

    from salver import wiring
    from salver.accelerate import Source
    from salver.accelerate import accelerate as convert
    from salver.cli.acceleration import Acceleration, keep, report
    from salver.cli.overview import plain
    from salver.cli.terminal import aside, print_json, working
    from salver.publish.provenance import gather as gather_provenance
    from salver.publish.request import ReleaseRequest

    settings = gather(registry=registry).settings
    opened = wiring.open_release(settings, reference)
    store, model = wiring.registry(settings), opened.manifest.model
    source = Source(
        opened.folder, opened.manifest, _rows(rows, opened.manifest), settings.serve.load_timeout, settings.cache
    )
    asked = ReleaseRequest(name=model, model=None, examples=None, note=note or f"{opened.name} accelerated with ONNX")
    with tempfile.TemporaryDirectory(prefix="salver-accelerate-") as temporary:
        with aside(), working(f"convert {opened.name} and compare"):
            done = convert(source, Path(temporary))
        provenance = gather_provenance(asked, datetime.now(UTC))
        published = store.publish(done.folder, done.manifest, provenance)
        keep(store, published.release, done)
    found = Acceleration(opened.name, done.evidence, done.speed)
    if as_json:
        print_json({"release": published.release.name, **plain(found)})
    else:
        report(published.release.name, found)


def _rows(path: Path | None, manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    from salver.publish.infer import to_rows
    from salver.publish.project import table

    if path is None:
        return {}
    return {"rows": to_rows(table(path), manifest.signature.inputs)}
