"""What people write to name a release, and the answers when there is no such thing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from msgspec import Struct

from salver.errors import SalverError, error
from salver.release import check_name

LATEST = "latest"
LIVE = "live"
SHOWN = 10

_NUMBER = re.compile(r"[1-9][0-9]{0,11}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{4,64}")


class Reference(Struct, frozen=True):
    """A parsed reference: `which` of the releases of `model` (of any model where that is empty).

    `which` is a number, `live`, `latest`, or the beginning of an id (`sha256:…`).
    """

    model: str
    which: int | str


def parse_reference(text: str) -> Reference:
    """Read `churn` (the live one), `churn@7`, `churn@live`, `churn@latest`, `sha256:ab12…` or `churn@sha256:ab12…`."""
    if _DIGEST.fullmatch(text):
        return Reference("", text)
    model, at, which = text.partition("@")
    check_name(model)
    if not at or which in (LIVE, LATEST):
        return Reference(model, which or LIVE)
    if _NUMBER.fullmatch(which):
        return Reference(model, int(which))
    if _DIGEST.fullmatch(which):
        return Reference(model, which)
    raise error(
        "bad-name",
        f"{text!r} does not name a release",
        hint=f"write {model}, {model}@7, {model}@{LIVE}, {model}@{LATEST} or sha256: and at least 4 digits of an id",
    )


def no_such_model(model: str, known: Sequence[str], place: str) -> SalverError:
    """The error that says which models there are, the most similar first."""
    close = difflib.get_close_matches(model.lower(), [name.lower() for name in known], n=1)
    similar = [name for name in known if name.lower() in close]
    hint = f"did you mean {similar[0]}?" if similar else f"it has {_some(known)}"
    return error("no-such-model", f"{place} has no model {model!r}", hint=hint)


def no_such_release(name: str, model: str, numbers: Sequence[int]) -> SalverError:
    """The error that says which releases there are."""
    return error("no-such-release", f"{name} does not exist", hint=f"{model} has {_some([str(n) for n in numbers])}")


def no_live_release(model: str, numbers: Sequence[int]) -> SalverError:
    """The error that says what could be promoted."""
    return error(
        "no-live-release",
        f"{model} has no live release",
        hint=f"promote one, or name it: {_some([f'{model}@{number}' for number in numbers])}",
    )


def no_such_id(text: str, models: Sequence[str], place: str) -> SalverError:
    """The error of the beginning of an id that no release has."""
    return error("no-such-release", f"{place} has no release {text}", hint=f"looked through {_some(models)}")


def ambiguous(text: str, names: Sequence[str]) -> SalverError:
    """The error of the beginning of an id that several releases share."""
    return error("no-such-release", f"{text!r} is the beginning of several ids", hint=f"they are {_some(names)}")


def _some(names: Sequence[str]) -> str:
    """The last names of a list; a long list would bury the message."""
    if len(names) <= SHOWN:
        return ", ".join(names) or "none"
    return f"{', '.join(names[-SHOWN:])} and {len(names) - SHOWN} before"
