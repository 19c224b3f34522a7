"""Zip archives with the same bytes for the same contents: fixed dates, sorted entries, nothing compressed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)


def rewrite(
    path: Path,
    *,
    drop: Callable[[str], bool] | None = None,
    change: Callable[[str, bytes], bytes] | None = None,
) -> None:
    """Write the archive at `path` anew, without the entries to `drop` and with what `change` makes of the others."""
    aside = path.with_name(f"{path.name}.new")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as new:
        for name in sorted(old.namelist()):
            if drop is not None and drop(name):
                continue
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            data = old.read(name)
            new.writestr(entry, data if change is None else change(name, data))
    aside.replace(path)
