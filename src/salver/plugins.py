"""Finds plugins by name through entry points; what ships with Salver comes in by the same door.

salver.frameworks   adapters of model kinds, see `salver.frameworks.Framework`
salver.protocols    wire formats, see `salver.protocols.WireFormat`
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from typing import Any

from salver.errors import SalverError, error

FRAMEWORKS = "salver.frameworks"
PROTOCOLS = "salver.protocols"
EXTRAS = {
    "sklearn": "sklearn", "skops": "sklearn", "joblib": "sklearn", "pandas": "sklearn", "onnxruntime": "onnx",
    "xgboost": "xgboost", "lightgbm": "lightgbm", "catboost": "catboost", "torch": "torch", "safetensors": "torch",
    "keras": "keras", "statsmodels": "statsmodels", "spacy": "spacy", "transformers": "transformers",
    "sentence_transformers": "sentence-transformers", "mlflow": "mlflow", "skl2onnx": "accelerate",
    "onnxmltools": "accelerate", "onnx": "accelerate", "onnxscript": "accelerate",
}  # fmt: skip
"""The extra of `salver` that installs each optional package of its own plugins."""


def framework(name: str) -> Any:
    """The framework adapter of this name; raises `unsupported-model` where no installed package has it."""
    return _load(FRAMEWORKS, name)


def protocol(name: str) -> Any:
    """The wire format of this name; raises `not-implemented` where no installed package has it."""
    return _load(PROTOCOLS, name)


def names(group: str) -> tuple[str, ...]:
    """The names of all installed plugins of a group, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def missing_extra(package: str, *, needed_for: str) -> SalverError:
    """The error for an optional package that isn't installed: it says what to type."""
    extra = EXTRAS.get(package)
    what = f"salver[{extra}]" if extra else package
    return error("missing-extra", f"{needed_for} needs {package}, which isn't installed", hint=f"pip install '{what}'")


@cache
def _load(group: str, name: str) -> Any:
    entry = _find(group, name)
    try:
        return entry.load()
    except ImportError as problem:
        package = (problem.name or "").partition(".")[0]
        if package in EXTRAS:
            raise missing_extra(package, needed_for=f"{_kind(group)} {name!r}") from problem
        raise _broken(entry, problem) from problem
    except Exception as problem:  # a plugin's module is somebody else's code, run for the first time here
        raise _broken(entry, problem) from problem


def _find(group: str, name: str) -> EntryPoint:
    # Ours first: one file is read instead of the metadata of every installed package (0.5 ms against 10).
    for entry in _own():
        if entry.group == group and entry.name == name:
            return entry
    for entry in entry_points(group=group, name=name):
        return entry
    code = "unsupported-model" if group == FRAMEWORKS else "not-implemented"
    raise error(
        code,
        f"no installed package has {_kind(group)} {name!r}",
        hint=f"installed: {', '.join(names(group)) or 'none'}",
    )


def _own() -> Iterable[EntryPoint]:
    try:
        return distribution("salver").entry_points
    except PackageNotFoundError:
        return ()


def _kind(group: str) -> str:
    return "framework" if group == FRAMEWORKS else "protocol"


def _broken(entry: EntryPoint, problem: BaseException) -> SalverError:
    package = entry.dist.name if entry.dist else "an unknown package"
    return error(
        "load-failed",
        f"{_kind(entry.group)} {entry.name!r} ({entry.value} of {package}) can't be imported: "
        f"{type(problem).__name__}: {problem}",
        hint=f"repair or remove {package}",
    )
