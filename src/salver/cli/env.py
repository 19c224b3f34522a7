"""`salver env`: the environments that releases run in where this one is not theirs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, RegistryFlag, gather

DAY = 86_400.0

env = typer.Typer(no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(env, name="env", help="List, build and remove the environments of releases.")


@env.command("list")
def list_environments(as_json: JsonFlag = False) -> None:
    """Show every environment that was built on this machine, and when it was last used.

    \b
    Examples:
      salver env list
    """
    from msgspec import to_builtins

    from salver.cli.terminal import note, print_json, print_table
    from salver.environments import build

    found = build.built(Path(gather().settings.cache))
    if as_json:
        print_json(to_builtins(found, enc_hook=str))
        return
    now = time.time()
    rows = [
        (
            each.lock[:19],
            each.python,
            len(each.packages),
            f"{(now - each.used_at) / DAY:.0f} days ago",
            str(each.folder),
        )
        for each in found
    ]
    if rows:
        print_table(("LOCK", "PYTHON", "#PACKAGES", "USED", "FOLDER"), rows)
    else:
        note("none was built: every release so far ran in the environment that it was released from")


@env.command("build")
def build_environment(
    release: Annotated[str, typer.Argument(metavar="MODEL[@N]", help="The release.")], registry: RegistryFlag = None
) -> None:
    """Build the environment of a release now, so that serving it needs neither time nor a network.

    \b
    Examples:
      salver env build churn@7
    """
    from rich.markup import escape

    from salver import lock, wiring
    from salver.cli.terminal import note, print_line, working
    from salver.environments import build
    from salver.release import LOCK

    settings = gather(registry=registry).settings
    opened = wiring.open_release(settings, release)
    text = (opened.folder / LOCK).read_text("utf-8")
    if not lock.check(text, opened.manifest.python):
        print_line(f"{opened.name} runs in this environment: it is the locked one")
        return
    with working(f"build the environment of {opened.name}"):
        place = build.build(text, opened.manifest.python, Path(settings.cache), what=opened.name)
    print_line(f"the environment of {opened.name} is built: {Path(place.path[0]).parent}")
    for each in build.yanked(place):
        note(f"withdrawn (yanked) from the package index: {escape(each)}; release the model again with another version")


@env.command("prune")
def prune(
    older_than: Annotated[float, typer.Option(metavar="DAYS", help="Only what nobody used for so long.", min=0)] = 30.0,
) -> None:
    """Remove environments that nobody has used for a while; those of running servers stay.

    \b
    Examples:
      salver env prune
      salver env prune --older-than 0
    """
    from salver.cli.terminal import print_line
    from salver.environments import build

    cache = Path(gather().settings.cache)
    before = time.time() - older_than * DAY
    old = [each for each in build.built(cache) if each.used_at <= before]
    gone = [each for each in old if build.remove(each)]
    build.sweep(cache)
    print_line(f"removed {len(gone)}" + (f"; {len(old) - len(gone)} in use stay" if len(gone) < len(old) else ""))
