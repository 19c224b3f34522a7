"""Where the registry is when nobody says so."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from salver.errors import error

FOLDER = ".salver"
SETTINGS = "salver.toml"
VARIABLE = "SALVER_REGISTRY"


def locate(registry: str | None, env: Mapping[str, str], cwd: Path) -> Path:
    """The folder of the registry: as said, else SALVER_REGISTRY, else as the nearest salver.toml says.

    The settings file is looked for in `cwd` and the folders above it. Its key `registry` is relative to its folder;
    without the key it is `.salver` beside the file, without a file `.salver` of `cwd`.
    """
    said = registry or env.get(VARIABLE)
    if said:
        return cwd / Path(said).expanduser()
    for folder in (cwd, *cwd.parents):
        if (folder / SETTINGS).is_file():
            return folder / Path(_said(folder / SETTINGS) or FOLDER).expanduser()
    return cwd / FOLDER


def _said(settings: Path) -> str:
    """The registry that a settings file names, or ''."""
    try:
        said = tomllib.loads(settings.read_text()).get("registry", "")
    except (OSError, ValueError) as problem:
        raise error("bad-settings", f"{settings} can't be read: {problem}") from None
    return said if isinstance(said, str) else ""
