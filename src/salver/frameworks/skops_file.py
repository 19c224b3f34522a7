"""Skops files with the same bytes for the same model: skops itself writes object addresses, random names and dates."""

from __future__ import annotations

import importlib
import io
import json
import sys
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from salver.errors import error

SCHEMA = "schema.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save(model: Any, path: Path) -> None:
    """Write `model` to `path`; raises what skops raises for what it can't keep."""
    import skops.io

    path.write_bytes(_stable(skops.io.dumps(model)))


def load(path: Path, trusted: Collection[str]) -> Any:
    """Load what `save` wrote. Nothing is built before every type is known to be allowed."""
    if "skops" not in sys.modules:
        _import_quickly()
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    unknown = skops.io.get_untrusted_types(file=path)
    allowed = {*trusted, *filter(_is_estimator, unknown)}
    try:
        return skops.io.load(path, trusted=sorted(allowed))
    except UntrustedTypesFoundException:
        beyond = sorted(set(unknown) - allowed)
        raise error(
            "untrusted-artifact",
            f"{path.name} holds types that the release doesn't allow",
            hint="release the model again from its source",
            details=tuple(beyond),
        ) from None


def untrusted(path: Path) -> list[str]:
    """The types in the file that skops doesn't trust by itself, also where it was imported quickly.

    No more than modules of scikit-learn is imported for that.
    """
    import skops.io

    return [name for name in skops.io.get_untrusted_types(file=path) if not _is_public_estimator(name)]


def modules(path: Path) -> set[str]:
    """The modules the file names."""
    with zipfile.ZipFile(path) as archive:
        schema = json.loads(archive.read(SCHEMA))
    return {node["__module__"] for node in _nodes(schema) if isinstance(node.get("__module__"), str)}


def _import_quickly() -> None:
    """Import skops without what it looks up at once for any file there may ever be: 0.7 s of a worker's start.

    The list of all estimators that it trusts imports the whole of scikit-learn; instead `_is_estimator` looks at the
    few that a file names. And it asks each module in turn which ufuncs are its own, so those that have some go first.
    """
    utils: Any = importlib.import_module("sklearn.utils")
    for name in [name for name in sys.modules if not name.startswith(("numpy", "scipy.special"))]:
        sys.modules[name] = sys.modules.pop(name)
    everything = utils.all_estimators
    utils.all_estimators = list
    try:
        importlib.import_module("skops.io")
    finally:
        utils.all_estimators = everything


def _is_estimator(name: str) -> bool:
    """Whether a name is one of scikit-learn's own estimators; imports nothing but modules of scikit-learn."""
    module, _, kind = name.rpartition(".")
    if not module.startswith("sklearn."):
        return False
    try:
        found = getattr(importlib.import_module(module), kind, None)
    except ImportError:
        return False
    base = importlib.import_module("sklearn.base").BaseEstimator
    return isinstance(found, type) and issubclass(found, base)


def _is_public_estimator(name: str) -> bool:
    """Whether a name is one of those that skops looks up where it is imported as a whole."""
    return not name.rpartition(".")[2].startswith("_") and _is_estimator(name)


def _stable(data: bytes) -> bytes:
    """The same archive with ids and names by first use, sets in order, fixed dates, sorted entries."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read(SCHEMA))
        for node in _nodes(schema):
            if node.get("__loader__") == "SetNode":
                node["content"].sort(key=_spelling)
        names = _renumber(schema)
        entries = {names[name]: archive.read(name) for name in archive.namelist() if name in names}
    entries[SCHEMA] = json.dumps(schema, sort_keys=False, separators=(",", ":")).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(entries):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, entries[name])
    return out.getvalue()


def _renumber(schema: dict[str, Any]) -> dict[str, str]:
    """Number objects and files by their first use, in place; returns each file's new name.

    A plain value (`JsonNode`) always gets a number of its own: whether Python shared two equal ones is chance.
    """
    ids: dict[int, int] = {}
    files: dict[str, str] = {}
    count = 0
    for node in _nodes(schema):
        if "__id__" in node:
            plain = node.get("__loader__") == "JsonNode"
            if plain or node["__id__"] not in ids:
                count += 1
            node["__id__"] = count if plain else ids.setdefault(node["__id__"], count)
        file = node.get("file")
        if isinstance(file, str):
            suffix = Path(file).suffix
            node["file"] = files.setdefault(file, f"{len(files) + 1:06}{suffix}")
    return files


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every node of the tree, parents first, in the order of the file; an own stack, for deep trees."""
    stack = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if isinstance(item.get("__loader__"), str):
                yield item
            stack.extend(reversed(item.values()))
        elif isinstance(item, list):
            stack.extend(reversed(item))


def _spelling(node: Any) -> str:
    """The node as text without its ids."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(value) for key, value in item.items() if key not in ("__id__", "file")}
        return [plain(value) for value in item] if isinstance(item, list) else item

    return json.dumps(plain(node), sort_keys=True)
