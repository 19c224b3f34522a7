"""Watches who may do what: reads the keys file and the JWK set again when they change, and passes on what is good."""

from __future__ import annotations

import asyncio
import http.client
import re
import ssl
import time
import urllib.error
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
"""Seconds between two fetches; fewer where the answer's max-age says so."""
FETCH_AGAIN = 5.0
"""Seconds after which a fetch that failed is tried again, and the least between any two."""
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
        self._stamps: dict[str, file.Stamp | None] = {}  # of what was read and is in use
        self._seen: dict[str, file.Stamp | None] = {}  # at the last look
        self._lasts = FETCH_EVERY
        self._problems: dict[str, str] = {}

    @property
    def facts(self) -> dict[str, Any]:
        """What `status` shows."""
        active = sum(not key.revoked for key in self._keys or ())
        return {"keys": active, "tokens": bool(self._jwks), "problems": list(self._problems.values())}

    async def run(self, poll: float) -> None:
        """Look at files every `poll` seconds, and beside that at an address; never returns."""
        tokens = self._terms.tokens
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_files(poll))
            if tokens is not None and "://" in tokens.keys:
                group.create_task(self._follow_address())

    async def _follow_files(self, poll: float) -> None:
        terms = self._terms
        source = terms.tokens.keys if terms.tokens is not None else ""
        while True:
            if terms.keys:
                await self._look(terms.keys, "the keys file", self._read_keys)
            if source and "://" not in source:
                await self._look(source, "the JWK set", self._read_set)
            self._pass_on()
            await asyncio.sleep(poll)

    async def _follow_address(self) -> None:
        while True:
            fetched = await self._try("the JWK set", self._fetch_set)
            self._pass_on()
            await asyncio.sleep(self._lasts if fetched else FETCH_AGAIN)

    def _pass_on(self) -> None:
        """Publish what is known, where that is new."""
        if self._keys is not None:
            grants = Grants(self._keys, self._jwks)
            if grants != self._published:
                self._published = grants
                self._publish(grants)

    async def _look(self, name: str, what: str, read: Callable[[], None]) -> None:
        """Read a file that has changed, or could not be used: what kept it from that may leave no trace in the file.

        One that was not replaced but written to is read when it stays as it was at the last look: it may be half done.
        """
        stamp, used, seen = file.stamp(Path(name)), self._stamps.get(name), self._seen.get(name)
        self._seen[name] = stamp
        if stamp is not None and used is not None and (stamp == used or (stamp != seen and stamp.inode == used.inode)):
            return
        if await self._try(what, read):
            self._stamps[name] = stamp

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
        body, self._lasts = fetch(self._terms.tokens.keys)
        self._take_set(body)

    def _take_set(self, text: bytes) -> None:
        assert self._terms.tokens is not None
        found = text.decode("utf-8", "replace")
        read_jwks(found, self._terms.tokens.algorithms)
        self._jwks = found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another address than the one that was configured is not asked."""

    def redirect_request(self, *_: Any) -> None:
        """No request follows."""


def fetch(address: str) -> tuple[bytes, float]:
    """The body at an https address and how many seconds it lasts; raises `bad-keys` where there is none in time."""
    opener = urllib.request.build_opener(_NoRedirect)
    ends = time.monotonic() + FETCH_TIME
    body = b""
    try:
        with opener.open(address, timeout=FETCH_TIME) as answer:
            while len(body) <= LARGEST_SET and (part := answer.read1(1 << 16)):
                body += part
                if time.monotonic() > ends:
                    raise TimeoutError
            lasts = _lasts(answer.headers.get("cache-control", ""))
    except (OSError, ValueError, http.client.HTTPException) as problem:
        raise _unfetched(address, problem) from None
    if len(body) > LARGEST_SET:
        raise error("bad-keys", f"{address} is over {LARGEST_SET} bytes")
    return body, lasts


def _lasts(control: str) -> float:
    """The seconds that an answer lasts by its cache-control; one that lasts no time is asked for as usual."""
    found = re.search(r"\bmax-age=(\d{1,9})\b", control.lower())
    return max(FETCH_AGAIN, min(FETCH_EVERY, float(found[1]) if found else 0.0) or FETCH_EVERY)


def _unfetched(address: str, problem: Exception) -> SalverError:
    """Why nothing came from an address, and what to do."""
    reason = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    if isinstance(problem, urllib.error.HTTPError):
        problem.close()
        where = problem.headers.get("location")
        hint = f"it points to {where[:200]}, which is not asked" if where else ""
        return error("bad-keys", f"{address} answers {problem.code}", hint=hint)
    if isinstance(reason, ssl.SSLCertVerificationError):
        message = f"the certificate of {address} is not accepted: {reason.verify_message}"
        return error("bad-keys", message, hint="SSL_CERT_FILE names the authorities to trust")
    if isinstance(reason, TimeoutError):
        return error("bad-keys", f"{address} does not answer within {FETCH_TIME:g} s")
    words = getattr(reason, "strerror", None) or reason
    return error("bad-keys", f"{address} can't be read: {words}")
