"""What a release is made from, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from salver.dispatch.local import LOAD_TIMEOUT
from salver.errors import error
from salver.record import Release
from salver.release import Determinism, Serving, SideEffects
from salver.signature import Signature


class ReleaseRequest(Struct, frozen=True, kw_only=True):
    """A model object and everything said about it.

    `examples` are rows as a DataFrame, a list of mappings, a mapping of columns or an array; `expected` are the
    answers they must get, aligned with them. `files` go to model/; `include` are patterns of data files below
    `project` that go to code/. Of `module`, as of a running script, code/ gets only what the model reaches. `options`
    belong to the framework; `private` names fields whose values must not be stored or shown. Each worker that proves
    the release gets `load_timeout` seconds to load it. The lock pins what is installed here, unless `constraints` (a
    requirements.txt, pyproject.toml or uv.lock) demands other versions; `packages` adds what no import shows. Without
    `proof` the golden rows are made here, and not in the locked environment. `cache` is a folder for what is looked up
    and built on the way (default: the user's).
    """

    name: str
    model: Any
    examples: Any
    expected: Any = None
    signature: Signature | None = None
    framework: str = ""
    options: dict[str, Any] = {}
    files: str | Path | None = None
    include: tuple[str, ...] = ()
    project: Path | None = None
    module: str = ""
    private: tuple[str, ...] = ()
    serving: Serving = Serving()
    side_effects: SideEffects = "none"
    actor: str = ""
    note: str = ""
    load_timeout: float = LOAD_TIMEOUT
    constraints: str | Path | None = None
    packages: tuple[str, ...] = ()
    proof: bool = True
    cache: str = ""


def require_usable(request: ReleaseRequest) -> None:
    """Raise `bad-settings`, naming all, for what was said by keyword and is of another kind than is read."""
    problems = tuple(_misfits(request))
    if problems:
        raise error("bad-settings", f"{request.name}: what was said of the release can't be used", details=problems)


def _misfits(request: ReleaseRequest) -> Iterator[str]:
    def kind(name: str) -> str:
        return type(getattr(request, name)).__qualname__

    for name, takes in _PATHS.items():
        value = getattr(request, name)
        if value is not None and not isinstance(value, str | os.PathLike):
            yield f"{name}= takes {takes}, not a {kind(name)}"
    for name in ("include", "private", "packages"):
        value = getattr(request, name)
        if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(each, str) for each in value):
            yield f"{name}= takes a list of texts, not a {kind(name)}" + (f": [{value!r}]" * isinstance(value, str))
    if not isinstance(request.options, Mapping):
        yield f"options= takes a mapping from name to value, not a {kind('options')}"
    if not isinstance(request.signature, Signature | None):
        yield f"signature= takes a salver.Signature or what salver.declare returns, not a {kind('signature')}"


_PATHS = {
    "files": "the path of one file or folder that the model reads (put several into a folder)",
    "constraints": "the path of a requirements.txt, pyproject.toml or uv.lock",
}


class Outcome(Struct, frozen=True, kw_only=True):
    """What publishing did: the release, whether it is new, and whether it went live by itself.

    `remarks` are sentences for the person who published.
    """

    release: Release
    created: bool
    went_live: bool
    framework: str
    determinism: Determinism
    golden_rows: int
    files: int
    size: int
    unsafe: str = ""
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        state = "new" if self.created else "already published, nothing changed"
        live = ", live: it is the first release of its model" if self.went_live else ""
        return (
            f"<{self.release.name} {self.release.id[:19]}… ({state}{live}); {self.framework}, "
            f"{self.golden_rows} golden rows {self.determinism}, {self.files} files, {self.size:,} bytes>"
        )
