"""Options that several verbs share, and the settings they lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from salver.settings import Loaded, Source, describe, load_settings

RegistryFlag = Annotated[
    str | None, typer.Option("--registry", metavar="FOLDER", help=describe("registry"), show_default=False)
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
WhyFlag = Annotated[str, typer.Option("--why", help="Why, for the history.", show_default=False)]


def gather(**flags: Any) -> Loaded:
    """The settings under these flags, named with `__` for a dot; None where a flag was not given."""
    named = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(Source(named, os.environ, Path.cwd()))
