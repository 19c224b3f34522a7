"""`salver rollback`"""

from __future__ import annotations

from typing import Annotated

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, WhyFlag, gather


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    to: Annotated[int | None, typer.Option(min=1, help="The number of a release that was live before.")] = None,
    why: WhyFlag = "",
    as_json: JsonFlag = False,
    registry: RegistryFlag = None,
) -> None:
    """Go back to the release that was live before; it is still warm.

    \b
    Examples:
      salver rollback churn
      salver rollback churn --to 5 --why "7 and 6 both misread the new field"
    """
    from salver import wiring
    from salver.cli import routing
    from salver.rollout import move

    settings = gather(registry=registry).settings
    store = wiring.registry(settings)
    before = store.current(model)
    route = move.rollback(store, model, routing.intent(why), to)
    routing.report(routing.follow(settings, before, route), as_json=as_json)
