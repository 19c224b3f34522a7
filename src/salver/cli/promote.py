"""`salver promote`"""

from __future__ import annotations

from typing import Annotated

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, WhyFlag, gather
from salver.errors import error


@app.command()
def promote(
    reference: Annotated[str, typer.Argument(metavar="REF", help="The release to make live: churn@8, churn@latest.")],
    why: WhyFlag = "",
    as_json: JsonFlag = False,
    registry: RegistryFlag = None,
) -> None:
    """Make a release live.

    Servers on this machine follow at once: each loads and proves the release, then swaps without failing a request.
    Where a server refuses it, the old release serves on and the exit code is 4.

    \b
    Examples:
      salver promote churn@8
      salver promote churn@latest --why "better on the May cohort"
    """
    from salver import wiring
    from salver.cli import routing
    from salver.rollout import move

    settings = gather(registry=registry).settings
    store = wiring.registry(settings)
    if "@" not in reference and not reference.startswith("sha256:"):
        hint = f"say which: salver promote {reference}@latest"
        raise error("bad-name", f"{reference!r} names a model, not a release", hint=hint)
    release = store.find(reference)
    before = store.current(release.model)
    route = move.promote(store, release.model, release.number, routing.intent(why))
    routing.report(routing.follow(settings, before, route), as_json=as_json)
