"""Decides on every request: who calls, whether they may, and whether their quota holds."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from salver.access import quota
from salver.access.keys import ADMIN_SCOPES, USUAL_SCOPES, Key, slots
from salver.access.principal import ANYONE, Meter, Principal
from salver.access.terms import Grants, Terms
from salver.access.tokens import LONGEST, Verifier
from salver.access.usage import RESOURCES, SLOTS, Usage, place
from salver.errors import SalverError, error

MAX_TOKENS = 10_000
OF_MODELS = ("predict", "metadata")
BEARER = b"bearer "


class Access:
    """The callers of one server, as one process of it sees them.

    Before the first `take` nobody is known, and whatever is not open is refused.
    """

    def __init__(self, terms: Terms, usage: Usage | None = None) -> None:
        self._terms = terms
        self._usage = usage
        self._verifier: Verifier | None = None
        self._jwks = ""
        self._known = False
        self._keys: dict[bytes, Principal | SalverError] = {}
        self._tokens: OrderedDict[bytes, Principal] = OrderedDict()
        self._open = frozenset(terms.open)

    def take(self, grants: Grants) -> None:
        """From now on these keys hold, and no others; a JWK set that can't be used leaves the last one in force."""
        placed = slots(grants.keys, SLOTS)
        self._keys = {bytes.fromhex(key.sha256): _of_key(key, placed.get(key.name)) for key in grants.keys}
        if self._terms.tokens is not None and grants.jwks and grants.jwks != self._jwks:
            self._verifier = Verifier(self._terms.tokens, grants.jwks)
            self._jwks = grants.jwks
            self._tokens.clear()
        self._known = True

    def check(
        self, credential: bytes, scope: str, model: str, now: float, names: Sequence[str] = ()
    ) -> Principal | SalverError:
        """Who calls with this credential, if they may do what the scope names; else the refusal.

        `credential` is the value of the header `authorization` or `x-api-key`, empty for none; `names` are those of
        the client certificate; `model` is empty where none is asked for; `now` is in Unix seconds.
        """
        if scope in self._open:
            return ANYONE
        if not self._known:
            return error("not-ready", "this server does not know its callers yet", hint="try again")
        found = self._who(credential, now) if credential or not names else self._by_certificate(names, scope)
        if isinstance(found, SalverError):
            return found
        if found.expires <= now:
            return _expired()
        if not found.may(scope):
            has = ", ".join(sorted(found.scopes)) or "none"
            return error("forbidden", f"this needs the scope {scope}", hint=f"this caller's scopes: {has}")
        if model and found.models is not None and model not in found.models and scope in OF_MODELS:
            return hidden(model, found)
        return found

    def use(self, principal: Principal, size: int, now: float, moment: float) -> SalverError | None:
        """Charge one request of `size` bytes; the refusal if the credential has ended or a quota is used up.

        `now` is in Unix seconds, `moment` in seconds of a monotonic clock. A refused request is not charged.
        """
        if principal.expires <= now:
            return _expired()
        if self._usage is None or not (principal.meters or principal.rows):
            return None
        usage = self._usage
        costs = {"requests": 1.0, "bytes": float(size), "rows": 1.0}
        meters = principal.meters if principal.rows is None else (*principal.meters, principal.rows)
        waits = [usage.wait(meter.place, meter.limit, costs[meter.resource], moment) for meter in meters]
        longest = max(waits)
        if longest > 0.0:
            return _used_up(principal, meters[waits.index(longest)], longest)
        for meter in principal.meters:
            usage.charge(meter.place, meter.limit, costs[meter.resource], moment)
        return None

    def answered(self, principal: Principal, rows: int, moment: float) -> None:
        """Charge the rows of an answer; `moment` is in seconds of a monotonic clock."""
        if principal.rows is not None and self._usage is not None:
            self._usage.charge(principal.rows.place, principal.rows.limit, float(rows), moment)

    def _who(self, credential: bytes, now: float) -> Principal | SalverError:
        token = credential[len(BEARER) :].strip() if credential[: len(BEARER)].lower() == BEARER else credential
        if not token:
            return error("unauthenticated", "a credential is needed", hint="send authorization: Bearer and a token")
        # Found by hash: how long the search takes says something of the hash, which tells nothing of the token.
        hashed = hashlib.sha256(token).digest()
        found = self._keys.get(hashed)
        if found is not None:
            return found
        if self._terms.tokens is not None and token.count(b".") == 2 and len(token) <= LONGEST:
            if self._verifier is None:
                return error("not-ready", "this server does not know the keys of tokens yet", hint="try again")
            return self._by_token(self._verifier, token, hashed, now)
        return error("unauthenticated", "the credential is not known here", hint="salver key list shows the keys")

    def _by_token(self, verifier: Verifier, token: bytes, hashed: bytes, now: float) -> Principal | SalverError:
        known = self._tokens.get(hashed)
        if known is not None and known.expires > now:
            self._tokens.move_to_end(hashed)
            return known
        found = verifier.verify(token.decode("latin-1"))
        if isinstance(found, Principal):
            self._tokens[hashed] = found
            if len(self._tokens) > MAX_TOKENS:
                self._tokens.popitem(last=False)
        return found

    def _by_certificate(self, names: Sequence[str], scope: str) -> Principal | SalverError:
        allowed = self._terms.client_names
        for name in names:
            if name in allowed:
                return Principal(f"certificate:{name}", frozenset(allowed[name]))
        if allowed or self._terms.keys or self._terms.tokens:
            return error("unauthenticated", "the client certificate's name is not known here", hint="send a key")
        of_listener = ADMIN_SCOPES if scope in ADMIN_SCOPES else USUAL_SCOPES  # each listener has its own authority
        return Principal(f"certificate:{names[0]}", frozenset(of_listener))


def hidden(model: str, principal: Principal) -> SalverError:
    """The answer for a model that the caller may not know, the same whether it exists or not."""
    names = ", ".join(sorted(principal.models or ())) or "no model"
    return error("no-such-model", f"no model named {model!r} is served here", hint=f"this caller has {names}")


def _of_key(key: Key, slot: int | None) -> Principal | SalverError:
    if key.revoked:
        return error("unauthenticated", "the key was revoked", hint="ask for a new one: salver key add")
    expires = key.expires.timestamp() if key.expires is not None else float("inf")
    models = frozenset(key.models) or None
    principal = Principal(key.name, frozenset(key.scopes), models, expires, key.priority)
    if slot is not None:
        meters = {}
        for resource in RESOURCES:
            rate = getattr(key.quotas, f"{resource}_per_second")
            if rate is not None:
                meters[resource] = Meter(resource, quota.limit(rate, key.quotas.burst), place(slot, resource))
        principal.rows = meters.pop("rows", None)
        principal.meters = tuple(meters.values())
    return principal


def _expired() -> SalverError:
    return error("unauthenticated", "the credential has expired", hint="ask for a new one")


def _used_up(principal: Principal, meter: Meter, seconds: float) -> SalverError:
    rate = f"{meter.limit.rate:g} {meter.resource} a second"
    problem = error("quota-exceeded", f"{principal.name} is over its quota of {rate}", hint="see Retry-After")
    problem.retry_after = seconds
    return problem
