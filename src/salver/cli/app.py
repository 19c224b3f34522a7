"""The command `salver` itself: its verbs register here."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from salver import __version__

GROUPS = {
    "Publish and look": ("release", "accelerate", "list", "show", "diff", "verify"),
    "Serve and decide": ("serve", "promote", "rollback", "history", "key"),
    "Predict and check": ("predict", "doctor", "env", "demo"),
}


class Verbs(TyperGroup):
    """Lists the verbs in the order of a model's life."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section per group of verbs."""
        for title, names in GROUPS.items():
            commands = ((name, self.get_command(ctx, name)) for name in names)
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(120)) for name, command in commands if command])


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 ok, 1 bug, 2 usage, 3 not found, 4 refused, 5 try later. See it all at work: salver demo",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"salver {__version__}")
        raise typer.Exit


@app.callback()
def salver(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Turn a trained model into a tested, versioned, reversible production service.

    A model is a name (churn), a release is one version of it (churn@7), and what is live can always go back.
    """
    del version
