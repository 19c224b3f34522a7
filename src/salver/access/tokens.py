"""JSON Web Tokens: verified with the keys of a JWK set, by PyJWT, which is loaded only where tokens are configured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from salver.access.keys import SCOPES
from salver.access.principal import Principal
from salver.access.terms import LEAST_HMAC, TokenTerms
from salver.errors import SalverError, error

LEEWAY = 30
LONGEST = 8 << 10
FAMILIES = {"RSA": ("RS", "PS"), "EC": ("ES",), "OKP": ("Ed",), "oct": ("HS",)}

_WRONG = {
    "DecodeError": "it is no token",
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidAudienceError": "it is for another audience",
    "InvalidIssuerError": "it is of another issuer",
    "InvalidSignatureError": "its signature is wrong",
    "MissingRequiredClaimError": "it lacks one of exp, iss and aud",
}
"""What PyJWT finds, in words."""

_Keys = dict[tuple[str, str], Any]  # PyJWK by key id and algorithm


class Verifier:
    """Verifies tokens by one JWK set."""

    def __init__(self, terms: TokenTerms, jwks: str) -> None:
        self._terms = terms
        self._jwt = library()
        self._keys = read_jwks(jwks, terms.algorithms)

    def verify(self, token: str) -> Principal | SalverError:
        """Who the token speaks for, or why it is refused; nothing of the token stands in the refusal."""
        jwt = self._jwt
        try:
            header = jwt.get_unverified_header(token)
            if "crit" in header:
                return _refused("it has critical headers that are not known here")
            key = self._key(header)
            if key is None:
                return _refused("no key that is known here signed it, or with an algorithm that is not accepted")
            claims = jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                audience=self._terms.audience,
                issuer=self._terms.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud"]},
            )
            return self._principal(claims)
        except jwt.PyJWTError as problem:
            kinds = [kind.__name__ for kind in type(problem).__mro__]
            return _refused(next((_WRONG[kind] for kind in kinds if kind in _WRONG), "it can't be verified"))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            return _refused("its claims can't be read")

    def _key(self, header: Mapping[str, Any]) -> Any:
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._terms.algorithms:
            return None
        if kid is not None:
            return self._keys.get((str(kid), algorithm))
        fitting = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        return Principal(
            name=f"jwt:{claims.get('sub') or claims.get('client_id') or 'nobody'}"[:128],
            scopes=frozenset(_words(claims.get("scope")) | _words(claims.get("scp"))) & frozenset(SCOPES),
            models=self._models(claims),
            expires=float(claims["exp"]) + LEEWAY,
        )

    def _models(self, claims: Mapping[str, Any]) -> frozenset[str] | None:
        claim = claims.get(self._terms.models_claim)
        return None if claim is None else frozenset(_words(claim))


def library() -> Any:
    """PyJWT with cryptography; raises `missing-extra` where they are not installed."""
    try:
        import cryptography
        import jwt
    except ImportError:
        raise error("missing-extra", "tokens need PyJWT", hint="pip install 'salver[jwt]'") from None
    del cryptography
    return jwt


def read_jwks(text: str, algorithms: tuple[str, ...]) -> _Keys:
    """The usable keys of a JWK set, by key id and algorithm; raises `bad-keys` where none is."""
    try:
        entries = json.loads(text)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise error("bad-keys", f"the JWK set can't be read: {type(problem).__name__}") from None
    jwt = library()
    keys: _Keys = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        for algorithm in algorithms:
            if not _fits(entry, algorithm):
                continue
            try:
                keys[str(entry.get("kid", "")), algorithm] = jwt.PyJWK(entry, algorithm)
            except (jwt.PyJWTError, ValueError, TypeError):
                continue  # one key of another kind, as an unknown curve, takes nothing from the rest
    if not keys:
        raise error("bad-keys", f"the JWK set has no key for {', '.join(algorithms)}")
    return keys


def _fits(entry: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key may sign with an algorithm: of its own kind, the one it names, and long enough for HMAC."""
    if entry.get("alg", algorithm) != algorithm or algorithm[:2] not in FAMILIES.get(str(entry.get("kty")), ()):
        return False
    return entry.get("kty") != "oct" or len(str(entry.get("k", ""))) * 6 // 8 >= LEAST_HMAC


def _words(claim: object) -> set[str]:
    """A claim that lists words: text with spaces, or a list."""
    if isinstance(claim, str):
        return set(claim.split())
    return {word for word in claim if isinstance(word, str)} if isinstance(claim, list) else set()


def _refused(why: str) -> SalverError:
    return error("unauthenticated", f"the token is not accepted: {why}", hint="get a new one from its issuer")
