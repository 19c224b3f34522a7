"""What `salver.release` does: read the examples, find the signature, build the release, prove it and put it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, TypedDict, Unpack

from salver.packaging import session
from salver.publish.project import load_project
from salver.publish.request import Outcome, ReleaseRequest
from salver.publish.run import release_model
from salver.registry import Registry, locate
from salver.release import Serving, SideEffects
from salver.signature import Signature
from salver.storage.folder import FolderStorage

__all__ = ["Outcome", "ReleaseRequest", "Said", "load_project", "release", "release_model"]

log = logging.getLogger("salver")


class Said(TypedDict, total=False):
    """What else may be said of a release, by keyword; `ReleaseRequest` explains each."""

    expected: Any
    signature: Signature | None
    framework: str
    options: dict[str, Any]
    files: str | Path | None
    include: tuple[str, ...]
    private: tuple[str, ...]
    serving: Serving
    side_effects: SideEffects
    actor: str
    note: str
    load_timeout: float
    constraints: str | Path | None
    packages: tuple[str, ...]
    proof: bool


def release(
    name: str, model: Any, *, examples: Any, registry: Registry | str | Path | None = None, **said: Unpack[Said]
) -> Outcome:
    """Publish `model` as the next release of `name`, once clean processes have proven that it answers as it does here.

    `model` is an object that a framework saves, or a class with `load` and `predict`. `examples` are rows as clients
    send them: a DataFrame, a list of mappings, a mapping of columns or an array. Further, by keyword: `expected`, the
    answers that the examples must get; `signature`, where inferring it isn't enough; `files`, a file or folder that the
    model reads; `options` of the framework (`{"method": "predict_proba"}`); `include`, patterns of data files beside
    the code; `private`, names of fields whose values must not be kept; `serving`, `side_effects`, `note`;
    `load_timeout`, the seconds that a worker gets to load it; `constraints`, a requirements.txt, pyproject.toml or
    uv.lock that the locked packages must obey, and `packages` that no import shows; `proof`, False to prove it here
    instead of in the locked environment.
    `registry` is a folder; by default SALVER_REGISTRY, else `.salver` beside the nearest salver.toml.

    The same content is the same release: releasing it again changes nothing. The first release of a model goes live
    by itself, later ones wait for `salver promote`.
    """
    if unknown := said.keys() - Said.__annotations__.keys():
        known = ", ".join(Said.__annotations__)
        raise TypeError(
            f"release() has no argument {', '.join(map(repr, sorted(unknown)))}; by keyword it takes {known}"
        )
    running = session.running()
    request = ReleaseRequest(
        name=name,
        model=model,
        examples=examples,
        project=running.folder if running else Path.cwd(),
        **said,
    )
    outcome = release_model(request, _registry(registry))
    log.warning("%s %s", outcome.release.name, _what_came_of_it(outcome))
    for remark in outcome.remarks:
        log.warning("%s: %s", outcome.release.name, remark)
    return outcome


def _what_came_of_it(outcome: Outcome) -> str:
    if outcome.went_live:
        return "is live: the first release of a model goes live by itself"
    if outcome.created:
        return f"is published, not live; make it so with: salver promote {outcome.release.name}"
    return "was published before: nothing has changed"


def _registry(given: Registry | str | Path | None) -> Registry:
    if isinstance(given, Registry):
        return given
    return Registry(FolderStorage(locate(str(given) if given else None, os.environ, Path.cwd())))
