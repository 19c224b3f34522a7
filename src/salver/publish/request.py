"""What a release is made from, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from salver.dispatch.local import LOAD_TIMEOUT
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
