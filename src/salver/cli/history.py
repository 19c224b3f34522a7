"""`salver history`"""

from __future__ import annotations

from typing import Annotated

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, gather


@app.command()
def history(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    as_json: JsonFlag = False,
    registry: RegistryFlag = None,
) -> None:
    """Show what was live when, who decided it, and why.

    \b
    Examples:
      salver history churn
    """
    from salver import wiring
    from salver.cli.overview import plain
    from salver.cli.terminal import print_json, print_table

    store = wiring.registry(gather(registry=registry).settings)
    routes = list(reversed(store.history(model)))
    if as_json:
        print_json(plain(routes))
        return
    rows = [(route.seq, route.at, route.actor, route.action, f"{model}@{route.live}", route.why) for route in routes]
    print_table(("#SEQ", "WHEN", "WHO", "ACTION", "LIVE", "WHY"), rows)
