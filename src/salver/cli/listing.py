"""`salver list`"""

from __future__ import annotations

from typing import Annotated

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, gather


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Argument(help="Show the releases of this model.", show_default=False)] = None,
    as_json: JsonFlag = False,
    registry: RegistryFlag = None,
) -> None:
    """List the models of the registry, or the releases of one.

    \b
    Examples:
      salver list
      salver list churn
    """
    from salver import wiring
    from salver.cli import overview
    from salver.cli.terminal import print_json, print_table

    store = wiring.registry(gather(registry=registry).settings)
    if model is not None:
        releases = overview.release_facts(store, model)
        if as_json:
            print_json(releases)
        else:
            rows = [(r.name, r.state, r.published, r.by, r.commit, r.id[:19], r.note) for r in releases]
            print_table(("RELEASE", "STATE", "PUBLISHED", "BY", "COMMIT", "ID", "NOTE"), rows)
        return
    models = [overview.model_facts(store, name) for name in store.models()]
    if as_json:
        print_json(models)
    else:
        print_table(
            ("MODEL", "LIVE", "#RELEASES", "LAST PUBLISHED", "BY"),
            [(m.name, m.live or "nothing", m.releases, m.published, m.by) for m in models],
        )
