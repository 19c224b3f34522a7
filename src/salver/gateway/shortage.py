"""What a gateway does while the server is short of memory; at any other time it costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from salver.access.decide import Access
from salver.access.principal import Principal
from salver.access.terms import Terms
from salver.errors import SalverError
from salver.gateway.front import Front
from salver.gateway.guard import Guard
from salver.gateway.table import REFUSE_ALL, Pressure
from salver.limits import Limits, scarce, short_of_memory

EVERYBODY = Principal("", frozenset())
"""A caller where nobody is asked who they are."""


class Limited(Protocol):
    """Whoever reads bodies or messages by limits that may change."""

    limits: Limits


class Shut(Access):
    """Lets only health through, and that only for whom `access` lets, where there is one."""

    def __init__(self, terms: Terms, access: Access | None) -> None:
        super().__init__(terms)
        self._access = access

    def check(
        self, credential: bytes, scope: str, model: str, now: float, names: Sequence[str] = ()
    ) -> Principal | SalverError:
        """Who asks for health; else the refusal."""
        access = self._access
        who = EVERYBODY if access is None else access.check(credential, scope, model, now, names)
        if isinstance(who, SalverError) or scope == "health":
            return who
        return short_of_memory("so only its health is told")

    def answered(self, principal: Principal, rows: int, moment: float) -> None:
        """Charge the rows of an answer to a request that was let in before."""
        if self._access is not None:
            self._access.answered(principal, rows, moment)


class Shortage:
    """Puts in place on the public port what a level of pressure asks for, and takes it away again.

    `others` read messages by limits of their own.
    """

    def __init__(self, front: Front, terms: Terms, others: Sequence[Limited] = ()) -> None:
        self._front = front
        self._terms = terms
        self._limited: Sequence[Limited] = (front, *others)
        self._usual = front.limits, front.access, front.guard

    def take(self, pressure: Pressure) -> None:
        """From now on this is how short memory is."""
        front = self._front
        limits, front.access, front.guard = self._usual
        for each in self._limited:
            each.limits = scarce(limits) if pressure.level else limits
        if pressure.level >= REFUSE_ALL:
            shut = Shut(self._terms, front.access)
            front.access, front.guard = shut, Guard(self._terms, shut)
        front.heads.clear()  # what is known of a head leads past all of this
