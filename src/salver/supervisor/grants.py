"""Watches who may do what: reads the keys file and the JWK set again when they change, and passes on what is good."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from salver.access import file
from salver.access.keys import Key, slots
from salver.access.terms import Grants, Terms
from salver.access.tokens import read_jwks
from salver.access.usage import SLOTS
from salver.errors import SalverError, error

FETCH_EVERY = 300.0
FETCH_AGAIN = 5.0
FETCH_TIME = 5.0
LARGEST_SET = 1 << 20


class Say(Protocol):
    """Whoever says things to people."""

    def __call__(self, event: str, text: str, **fields: Any) -> None:
        """Say one thing."""
        ...


class GrantsWatch:
    """The newest good keys and JWK set; `publish` gets them whenever they change.

    What can't be read or used is said once, and leaves in force what was.
    """

    def __init__(self, terms: Terms, publish: Callable[[Grants], None], say: Say) -> None:
        self._terms = terms
        self._publish = publish
        self._say = say
        self._keys: tuple[Key, ...] | None = None if terms.keys else ()
        self._jwks = ""
        self._published: Grants | None = None
        self._stamps: dict[str, file.Stamp | None] = {}
        self._fetch_at = 0.0
        self._problems: dict[str, str] = {}

    @property
    def facts(self) -> dict[str, Any]:
        """What `status` shows."""
        active = sum(not key.revoked for key in self._keys or ())
        return {"keys": active, "tokens": bool(self._jwks), "problems": list(self._problems.values())}

    async def run(self, poll: float) -> None:
        """Look every `poll` seconds; never returns."""
        while True:
            await self.look()
            await asyncio.sleep(poll)

    async def look(self) -> None:
        """Read what has changed, and pass it on."""
        terms = self._terms
        if terms.keys and self._moved(terms.keys):
            await self._try("the keys file", self._read_keys)
        if terms.tokens is not None:
            source = terms.tokens.keys
            if "://" in source and time.monotonic() >= self._fetch_at:
                self._fetch_at = time.monotonic() + FETCH_AGAIN
                if await self._try("the JWK set", self._fetch_set):
                    self._fetch_at = time.monotonic() + FETCH_EVERY
            elif "://" not in source and self._moved(source):
                await self._try("the JWK set", self._read_set)
        if self._keys is not None:
            grants = Grants(self._keys, self._jwks)
            if grants != self._published:
                self._published = grants
                self._publish(grants)

    def _moved(self, name: str) -> bool:
        stamp = file.stamp(Path(name))
        before = self._stamps.get(name, ())
        self._stamps[name] = stamp
        return stamp != before

    async def _try(self, what: str, read: Callable[[], None]) -> bool:
        """Read in a thread; a problem is said when it is new."""
        try:
            await asyncio.to_thread(read)
        except SalverError as problem:
            text = f"{what} can't be used, what was in force stays: {problem}"
            if self._problems.get(what) != text:
                self._say("access-problem", text, code=problem.code)
            self._problems[what] = text
            return False
        if self._problems.pop(what, None):
            self._say("access-restored", f"{what} can be used again")
        return True

    def _read_keys(self) -> None:
        keys = file.load(Path(self._terms.keys))
        slots(keys, SLOTS)
        self._keys = keys

    def _read_set(self) -> None:
        assert self._terms.tokens is not None
        self._take_set(file.read(Path(self._terms.tokens.keys), LARGEST_SET))

    def _fetch_set(self) -> None:
        assert self._terms.tokens is not None
        self._take_set(fetch(self._terms.tokens.keys))

    def _take_set(self, text: bytes) -> None:
        assert self._terms.tokens is not None
        found = text.decode("utf-8", "replace")
        read_jwks(found, self._terms.tokens.algorithms)
        self._jwks = found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another address than the one that was configured is not asked."""

    def redirect_request(self, *_: Any) -> None:
        """No request follows."""


def fetch(address: str) -> bytes:
    """The body at an https address; raises `bad-keys` if it is not there in time or too large."""
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(address, timeout=FETCH_TIME) as answer:
            body: bytes = answer.read(LARGEST_SET + 1)
    except (OSError, ValueError) as problem:
        raise error("bad-keys", f"{address} can't be read: {problem}") from None
    if len(body) > LARGEST_SET:
        raise error("bad-keys", f"{address} is over {LARGEST_SET} bytes")
    return body
