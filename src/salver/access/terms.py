"""What a server asks of its callers: the part that is fixed while it runs, and the part that may change any moment."""

from __future__ import annotations

import ipaddress

import msgspec
from msgspec import Struct

from salver.access.keys import SCOPES, Key
from salver.errors import error

MAY_BE_OPEN = ("health", "docs", "metadata", "metrics")
ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
SYMMETRIC = ("HS256", "HS384", "HS512")
LEAST_HMAC = 32


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """The files of one listener's TLS; with `client_ca` a caller needs a certificate that it signed."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""

    def __bool__(self) -> bool:
        return bool(self.cert)


class TokenTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """Which JSON Web Tokens are taken: issued by `issuer` for `audience`, signed by one of `algorithms`.

    `keys` is a file or an https address of a JWK set; `models_claim` names the claim that lists a caller's models.
    """

    issuer: str
    audience: str
    keys: str
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    models_claim: str = "models"


class Terms(Struct, frozen=True, forbid_unknown_fields=True):
    """What stays as it is while a server runs. `keys` is the path of the keys file, empty for none.

    `open` are scopes that need no credential. `client_names` says what the bearer of a certificate may do, by its
    name; without them, and where nothing else is asked for, a certificate lets its bearer do what its listener is for:
    predict and read metadata, or read the pages of the admin port.
    `hosts` are names that requests may be addressed to besides addresses and localhost, None for any.
    """

    keys: str = ""
    tokens: TokenTerms | None = None
    open: tuple[str, ...] = ("health",)
    tls: Tls = Tls()
    admin_tls: Tls = Tls()
    client_names: dict[str, tuple[str, ...]] = {}
    cors: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None

    @property
    def authenticates(self) -> bool:
        """Whether callers have to say who they are."""
        return bool(self.keys or self.tokens or self.tls.client_ca)

    @property
    def keyed(self) -> frozenset[str]:
        """The scopes for which callers need a token."""
        return frozenset(SCOPES).difference(self.open) if self.keys or self.tokens else frozenset()

    def of_admin(self) -> Terms:
        """The same terms for the admin port, which has its own certificates, and no callers in browsers."""
        return msgspec.structs.replace(self, tls=self.admin_tls, cors=())


class Grants(Struct, frozen=True, tag="grants"):
    """What may change any moment: the keys, and the JWK set as text. The follower pushes it to every gateway."""

    keys: tuple[Key, ...] = ()
    jwks: str = ""


def read_terms(text: str) -> Terms:
    """Read what `write_terms` wrote."""
    return msgspec.json.decode(text, type=Terms)


def write_terms(terms: Terms) -> str:
    """The terms as JSON."""
    return msgspec.json.encode(terms).decode()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_terms(terms: Terms) -> None:
    """Raise `bad-settings` with everything that can't be meant."""
    problems = [f"scope {scope!r} can't be open" for scope in terms.open if scope not in MAY_BE_OPEN]
    for name, tls in (("tls", terms.tls), ("admin_tls", terms.admin_tls)):
        if bool(tls.cert) != bool(tls.key):
            problems.append(f"{name}_cert and {name}_key belong together")
        if tls.client_ca and not tls.cert:
            problems.append(f"{name}_client_ca needs {name}_cert and {name}_key")
    if terms.client_names and not (terms.tls.client_ca or terms.admin_tls.client_ca):
        problems.append("tls_client_names needs tls_client_ca or admin_tls_client_ca")
    for name, scopes in terms.client_names.items():
        problems += [f"tls_client_names: {name} has unknown scope {s!r}" for s in scopes if s not in SCOPES]
    if terms.tokens is not None:
        problems += _token_problems(terms.tokens)
    if problems:
        raise error("bad-settings", "access can't be set up like this", details=tuple(problems))


def _token_problems(tokens: TokenTerms) -> list[str]:
    problems = []
    if not (tokens.issuer and tokens.audience and tokens.keys):
        problems.append("jwt_issuer, jwt_audience and jwt_keys belong together")
    if not tokens.algorithms:
        problems.append("jwt_algorithms is empty")
    for algorithm in tokens.algorithms:
        if algorithm in SYMMETRIC:
            if "://" in tokens.keys:
                problems.append(f"jwt_algorithms: {algorithm} needs a key file, its key is a secret")
        elif algorithm not in ASYMMETRIC:
            problems.append(f"jwt_algorithms: {algorithm!r} is not accepted")
    if "://" in tokens.keys and not tokens.keys.startswith("https://"):
        problems.append("jwt_keys must be a file or an https address")
    return problems
