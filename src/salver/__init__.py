"""Salver turns a trained model into a tested, versioned, reversible production service."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salver.client.blocking import Client as Client
    from salver.client.concurrent import AsyncClient as AsyncClient
    from salver.errors import Broken as Broken
    from salver.errors import Busy as Busy
    from salver.errors import SalverError as SalverError
    from salver.errors import UserError as UserError
    from salver.lookup import Table as Table
    from salver.model import Model as Model
    from salver.publish import release as release
    from salver.publish.declare import Range as Range
    from salver.publish.declare import declare as declare
    from salver.signature import Column as Column
    from salver.signature import Signature as Signature
    from salver.signature import Tensor as Tensor
    from salver.signature import explain_break as explain_break

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "salver.client.concurrent",
    "Broken": "salver.errors",
    "Busy": "salver.errors",
    "Client": "salver.client.blocking",
    "Column": "salver.signature",
    "Model": "salver.model",
    "Range": "salver.publish.declare",
    "SalverError": "salver.errors",
    "Signature": "salver.signature",
    "Table": "salver.lookup",
    "Tensor": "salver.signature",
    "UserError": "salver.errors",
    "declare": "salver.publish.declare",
    "explain_break": "salver.signature",
    "release": "salver.publish",
}

__all__ = [*_HOMES]


class _Facade(ModuleType):
    """Keeps `salver.release` the function: importing the module of the same name would put itself in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that a worker pays for none it doesn't use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'salver' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as problem:
        if not (problem.name or "").startswith("salver."):
            raise
        value = _absent(name)
    globals()[name] = value
    return value


def _absent(name: str) -> Any:
    """Stands in a worker for what only exists beside it, so that a module of the user's that imports it can load."""

    def absent(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"salver.{name} is not there in a worker: it serves a release and makes none")

    return absent


def __dir__() -> list[str]:
    return sorted(__all__)
