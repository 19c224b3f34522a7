"""What a listener asks of a request before it is answered: its host, its origin, its caller."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from salver.access.decide import Access
from salver.access.principal import ANYONE
from salver.access.terms import Terms
from salver.errors import SalverError, error
from salver.gateway.paths import Target
from salver.gateway.request import Request

PREFLIGHT = Target("preflight")
LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))
EARLY = 64 << 10
"""A body over so many bytes is not waited for where its request is refused anyway."""
_EXPOSED = b"x-salver-release, x-salver-prediction-id, x-salver-row-errors, x-request-id, retry-after"
_ALLOWED = (
    b"access-control-allow-methods: GET, HEAD, POST\r\n"
    b"access-control-allow-headers: accept, authorization, content-type, inference-header-content-length, traceparent, "
    b"tracestate, x-api-key, x-request-id, x-request-timeout-ms, x-salver-model\r\naccess-control-max-age: 600\r\n"
)


class Guard:
    """The checks of one listener; `access` is None where everybody may ask everything."""

    def __init__(self, terms: Terms, access: Access | None) -> None:
        self._access = access
        self._hosts = None if terms.hosts is None else frozenset(host.lower() for host in terms.hosts)
        self._ambient = self._hosts is not None or bool(terms.tls.client_ca)
        self._cors = frozenset(terms.cors)

    def admit(self, request: Request, found: Target | SalverError, names: Sequence[str] = ()) -> Target | SalverError:
        """What the request may have of what it asks for; sets its principal and its headers for browsers.

        `names` are those of the client certificate.
        """
        refusal = self._foreign(request)
        if refusal is not None:
            return refusal
        if self._cors and request.origin:
            allowed = self._cors_headers(request.origin)
            request.cors = b"vary: origin\r\n" + allowed
            if allowed and request.method == b"OPTIONS":
                request.cors += _ALLOWED
                return PREFLIGHT
        if not isinstance(found, Target) or self._access is None:
            return found
        who = self._access.check(request.credential, found.scope, found.model, time.time(), names)
        if isinstance(who, SalverError):
            return who
        request.principal = who
        if who is ANYONE and found.scope == "health":
            return found._replace(models=frozenset())  # names of models are no part of health
        return found if who.models is None else found._replace(models=who.models)

    def early(self, request: Request, found: Target | SalverError, names: Sequence[str]) -> SalverError | None:
        """The refusal of a request whose large or compressed body is still to come."""
        unknown = request.length < 0 and request.method == b"POST"
        large = unknown or request.length > EARLY or request.decompressor is not None
        if not large or self._access is None or not isinstance(found, Target):
            return None
        who = self._access.check(request.credential, found.scope, found.model, time.time(), names)
        return who if isinstance(who, SalverError) else None

    def _foreign(self, request: Request) -> SalverError | None:
        """The refusal of what a browser sends for a page of somebody else.

        Without it a page could ask a server of this machine, by its own name resolved to 127.0.0.1 or directly.
        """
        host = request.host.decode("latin-1").lower()
        if self._hosts is not None and host and not self._is_ours(host):
            hint = "use localhost, or name the host in allowed_hosts"
            return error("forbidden", f"this server is not {_short(host)}", hint=hint)
        origin = request.origin.decode("latin-1").lower()
        if not origin or not self._ambient or self._allows(origin):
            return None
        authority = urlsplit(origin).netloc if _readable(origin) else ""
        if authority and (authority == host or (self._hosts is not None and self._is_local(authority))):
            return None
        return error("forbidden", f"pages of {_short(origin)} may not ask here", hint="name the origin in cors_origins")

    def _is_ours(self, host: str) -> bool:
        """An address can't be made to mean another machine by its owner; a name can."""
        name = _name(host)
        return self._is_local(host) or _is_address(name)

    def _is_local(self, authority: str) -> bool:
        name = _name(authority)
        return name in LOCAL or name.endswith(".localhost") or name in (self._hosts or ())

    def _allows(self, origin: str) -> bool:
        return "*" in self._cors or origin in self._cors

    def _cors_headers(self, origin: bytes) -> bytes:
        if not self._allows(origin.decode("latin-1").lower()):
            return b""
        named = b"*" if "*" in self._cors else origin
        return b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n" % (named, _EXPOSED)


def guard_of(terms: Terms, access: Access | None) -> Guard | None:
    """The guard of a listener, None where nothing is to be checked."""
    guard = Guard(terms, access)
    return guard if access is not None or terms.cors or terms.hosts is not None else None


def _name(authority: str) -> str:
    """The host of `host:port`, without the brackets of an IPv6 address."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _readable(origin: str) -> bool:
    try:
        urlsplit(origin)
    except ValueError:
        return False
    return True


def _short(text: str) -> str:
    return repr(text[:100])
