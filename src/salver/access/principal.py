"""Who calls: what a credential stands for once it is checked."""

from __future__ import annotations

import math
from typing import NamedTuple

from salver.access.keys import ADMIN_SCOPES
from salver.access.quota import Limit


class Meter(NamedTuple):
    """One quota of a principal: what it limits, and where its bucket lies in the shared memory."""

    resource: str
    limit: Limit
    place: int


class Principal:
    """A caller: name, scopes, models (None: all), when its credential ends (Unix seconds), priority and quotas."""

    __slots__ = ("expires", "meters", "models", "name", "priority", "rows", "scopes")

    def __init__(
        self,
        name: str,
        scopes: frozenset[str],
        models: frozenset[str] | None = None,
        expires: float = math.inf,
        priority: int = 0,
    ) -> None:
        self.name = name
        self.scopes = scopes
        self.models = models
        self.expires = expires
        self.priority = priority
        self.meters: tuple[Meter, ...] = ()  # of what is known when a request comes
        self.rows: Meter | None = None  # of what is known when it was answered

    @property
    def free(self) -> bool:
        """Whether it has no end and no quota: nothing is to be asked or charged for its requests."""
        return self.expires == math.inf and not self.meters and self.rows is None

    def may(self, scope: str) -> bool:
        """Whether it has a scope; `admin` holds those of the admin port."""
        return scope in self.scopes or (scope in ADMIN_SCOPES and "admin" in self.scopes)


ANYONE = Principal("anyone", frozenset())
