"""What the registry keeps beside a release's id: its number, where it came from, and what a release must pass."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Provenance(Struct, frozen=True, omit_defaults=True):
    """Who published a release, when (UTC, ISO 8601) and from what code. None of it changes behaviour.

    `unproven` is whether its golden rows were not reproduced in the locked environment.
    """

    actor: str
    at: str
    host: str = ""
    salver: str = ""
    git_commit: str = ""
    git_dirty: bool = False
    script: str = ""
    note: str = ""
    unproven: bool = False


class Release(Struct, frozen=True):
    """One published release: model, number, id (`sha256:…` of the canonical manifest) and provenance."""

    model: str
    number: int
    id: str
    provenance: Provenance

    @property
    def name(self) -> str:
        """The name people use: `churn@7`."""
        return f"{self.model}@{self.number}"


class Policy(Struct, frozen=True, omit_defaults=True):
    """Entry `seq` of a model's policy list: what a release must pass to go live, who wrote it, when and why."""

    model: str
    seq: int
    rules: dict[str, Any]
    actor: str
    at: str
    why: str = ""
