"""The options of a release: known to the framework, plain enough for a manifest, and what the examples add to them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from salver.errors import SalverError, error
from salver.frameworks import Columns, Framework
from salver.frameworks.arrange import categories_of
from salver.publish.request import ReleaseRequest
from salver.signature import Field

Call = Callable[[Columns], Any]


def require_options(adapter: Framework, request: ReleaseRequest) -> None:
    """Raise `bad-settings`, naming all, for options that the framework doesn't have."""
    known = getattr(adapter, "options", ())
    unknown = [name for name in request.options if name not in known]
    if not unknown:
        return
    near = {name: difflib.get_close_matches(name, known, 1) for name in unknown}
    raise error(
        "bad-settings",
        f"{request.name}: the framework {adapter.name} has no such option",
        hint=f"its options: {', '.join(known)}" if known else "it has none: leave options out",
        details=tuple(repr(name) + (f", did you mean {near[name][0]!r}?" if near[name] else "") for name in unknown),
    )


def plain(options: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The options as a manifest keeps them: numbers and arrays of numpy, pandas and torch become plain ones.

    Raises `bad-settings`, naming the option, for what a manifest can't keep.
    """
    return {str(name): _plain(value, f"{model}: options[{str(name)!r}]") for name, value in options.items()}


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {_key(name, where): _plain(each, f"{where}[{name!r}]") for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{where}[{place}]") for place, each in enumerate(value)]
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise _unkept(f"{where} is {value}")
    try:
        return msgspec.to_builtins(value, order="sorted")
    except (TypeError, ValueError):
        raise _unkept(f"{where} is a {type(value).__name__}") from None


def _key(name: Any, where: str) -> Any:
    name = name.item() if isinstance(name, np.generic) else name
    if not isinstance(name, str | int | float):
        raise _unkept(f"{where} has a {type(name).__name__} as a key")
    return name


def _unkept(what: str) -> SalverError:
    return error(
        "bad-settings",
        f"{what}, which a manifest can't keep",
        hint="options hold text, finite numbers, true, false, None, lists and mappings of them",
    )


def categories(request: ReleaseRequest, examples: Any, inputs: tuple[Field, ...]) -> dict[str, Any]:
    """The option `categories`: the pandas categoricals among the examples that aren't private; {} without any."""
    if not hasattr(examples, "dtypes") or not hasattr(examples, "columns"):
        return {}
    private = {field.name for field in inputs if field.private} | set(request.private)
    kinds = {str(name): kind for name, kind in zip(examples.columns, examples.dtypes, strict=True)}
    kept = {name: kind for name, kind in kinds.items() if hasattr(kind, "categories") and name not in private}
    found = {name: categories_of(kind) for name, kind in kept.items()}
    return {"categories": found} if found else {}


def answers_differ(plain: Call, other: Call, columns: Columns) -> bool:
    """Whether `other` answers these columns, and `plain` not, or not the same."""
    try:
        wanted = _answers(other(columns))
    except Exception:  # the user's model; what it raises on plain columns is said later
        return False
    try:
        return not _same(_answers(plain(columns)), wanted)
    except Exception:
        return True


def _answers(raw: Any) -> list[Any]:
    return [np.asarray(each) for each in (raw.values() if isinstance(raw, Mapping) else [raw])]


def _same(one: list[Any], other: list[Any]) -> bool:
    return all(
        a.shape == b.shape and bool(np.all((a == b) | ((a != a) & (b != b)))) for a, b in zip(one, other, strict=True)
    )
