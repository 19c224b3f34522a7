"""Keys, tokens and the decisions on them, without a server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from salver.access.decide import Access
from salver.access.keys import SCOPES, Key, Quotas, digest, mint, read_keys, slots, well_formed, write_keys
from salver.access.principal import ANYONE, Principal
from salver.access.terms import Grants, Terms, Tls, TokenTerms, check_terms
from salver.access.usage import BLOCK_BYTES, Usage
from salver.errors import SalverError
from salver.gateway.paths import PUBLIC

NOW = 1_800_000_000.0
ISSUER, AUDIENCE = "https://issuer.example", "salver"
PRIVATE = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


def key(name: str = "shop", **facts: Any) -> tuple[bytes, Key]:
    token = mint(name)
    return token.encode(), Key(name, digest(token.encode()), **facts)


def access(*keys: Key, terms: Terms | None = None, usage: Usage | None = None) -> Access:
    made = Access(terms or Terms(keys="keys"), usage)
    made.take(Grants(keys))
    return made


def code(answer: Principal | SalverError | None) -> str:
    assert isinstance(answer, SalverError)
    return answer.code


def jwks(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


def public(private: Any, algorithm: str, kid: str, **more: Any) -> dict[str, Any]:
    kind = jwt.get_algorithm_by_name(algorithm)
    return {**json.loads(kind.to_jwk(private.public_key())), "kid": kid, **more}


def token(private: Any = PRIVATE, algorithm: str = "RS256", kid: str | None = "one", **claims: Any) -> bytes:
    facts = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "sub": "alice", "scope": "predict", **claims}
    headers = {"kid": kid} if kid else None
    return jwt.encode({k: v for k, v in facts.items() if v is not None}, private, algorithm, headers).encode()


@pytest.fixture(scope="module")
def tokens() -> Access:
    made = Access(Terms(tokens=TokenTerms(ISSUER, AUDIENCE, "keys.json")))
    made.take(Grants(jwks=jwks(public(PRIVATE, "RS256", "one"), public(CURVE, "ES256", "two", alg="ES256"))))
    return made


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_told_from_a_mistyped_one_without_asking_anybody() -> None:
    made = mint("shop")
    assert made.startswith("slv_shop_")
    assert well_formed(made)
    wrong = made[:-8] + ("A" if made[-8] != "A" else "B") + made[-7:]
    assert not well_formed(wrong)


def test_two_tokens_of_one_name_differ() -> None:
    assert mint("shop") != mint("shop")


@pytest.mark.parametrize("name", ["", "a_b", "-a", "a" * 65, "a b", "ä"])
def test_a_name_that_would_blur_the_token_is_refused(name: str) -> None:
    with pytest.raises(SalverError) as raised:
        mint(name)
    assert raised.value.code == "bad-name"


def test_a_keys_file_holds_no_token_and_reads_back_the_same() -> None:
    secret, made = key(models=("churn",), expires=datetime(2030, 1, 1, tzinfo=UTC), quotas=Quotas(rows_per_second=5))
    text = write_keys((made,))
    assert secret not in text
    assert read_keys(text + b"\n") == (made,)


def test_every_bad_line_of_a_keys_file_is_named_at_once() -> None:
    _, good = key()
    lines = [write_keys((good,)).decode().strip(), "{", '{"name":"x"}', write_keys((good,)).decode().strip()]
    unknown = json.dumps({**json.loads(lines[0]), "name": "y", "scopes": ["fly"]})
    zone = json.dumps({**json.loads(lines[0]), "name": "z", "expires": "2030-01-01T00:00:00"})
    typo = json.dumps({**json.loads(lines[0]), "name": "t", "expire": "2030-01-01T00:00:00Z"})
    with pytest.raises(SalverError) as raised:
        read_keys("\n".join([*lines, unknown, zone, typo]).encode())
    assert [detail.split(":")[0] for detail in raised.value.details] == [f"line {n}" for n in range(2, 8)]


def test_a_key_that_leaves_moves_nobody_else_to_other_counters() -> None:
    keys = tuple(key(f"k{n}", quotas=Quotas(requests_per_second=1))[1] for n in range(1000))
    before = slots(keys, 1 << 14)
    assert len(set(before.values())) == 1000
    after = slots(keys[1:], 1 << 14)
    moved = [name for name, slot in after.items() if before[name] != slot]
    assert len(moved) <= 5


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_taken_with_bearer_and_bare() -> None:
    secret, made = key()
    asked = access(made)
    for credential in (secret, b"Bearer " + secret, b"bearer  " + secret):
        who = asked.check(credential, "predict", "churn", NOW)
        assert isinstance(who, Principal)
        assert who.name == "shop"


@pytest.mark.parametrize(
    "credential", [b"", b"Bearer", b"Bearer ", b"Basic YTpi", b"slv_shop_x", b"\xff\xfe", b"a.b.c"]
)
def test_what_is_no_key_of_ours_is_unauthenticated(credential: bytes) -> None:
    assert code(access(key()[1]).check(credential, "predict", "churn", NOW)) == "unauthenticated"


def test_before_the_keys_are_known_nobody_gets_in_but_health_answers() -> None:
    secret, _ = key()
    fresh = Access(Terms(keys="keys"))
    assert code(fresh.check(secret, "predict", "churn", NOW)) == "not-ready"
    assert fresh.check(b"", "health", "", NOW) is ANYONE


@pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope != "health"])
@pytest.mark.parametrize("held", SCOPES)
def test_a_scope_opens_what_it_says_and_admin_the_admin_port(scope: str, held: str) -> None:
    secret, made = key(scopes=(held,))
    answer = access(made).check(secret, scope, "", NOW)
    if scope == held or (held == "admin" and scope in ("metrics", "status")):
        assert isinstance(answer, Principal)
    else:
        assert code(answer) == "forbidden"


def test_revoked_and_expired_keys_are_unauthenticated() -> None:
    revoked, one = key("one", revoked=True)
    ending, two = key("two", expires=datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=1))
    asked = access(one, two)
    assert code(asked.check(revoked, "predict", "", NOW)) == "unauthenticated"
    who = asked.check(ending, "predict", "", NOW)
    assert isinstance(who, Principal)
    assert asked.use(who, 0, NOW, 0.0) is None
    assert code(asked.use(who, 0, NOW + 1, 0.0)) == "unauthenticated"
    assert code(asked.check(ending, "predict", "", NOW + 1)) == "unauthenticated"


def test_a_model_that_a_key_may_not_know_answers_as_one_that_does_not_exist() -> None:
    secret, made = key(models=("churn",))
    asked = access(made)
    assert isinstance(asked.check(secret, "predict", "churn", NOW), Principal)
    refused = [asked.check(secret, "predict", model, NOW) for model in ("fraud", "no-such")]
    assert [code(each) for each in refused] == ["no-such-model"] * 2
    one, other = refused
    assert isinstance(one, SalverError)
    assert isinstance(other, SalverError)
    assert one.hint == other.hint
    assert one.message.replace("fraud", "no-such") == other.message


def test_a_later_push_ends_a_key_that_it_does_not_hold() -> None:
    secret, made = key()
    asked = access(made)
    asked.take(Grants(()))
    assert code(asked.check(secret, "predict", "", NOW)) == "unauthenticated"


def test_quotas_are_counted_by_request_byte_and_row_over_two_gateways() -> None:
    descriptor = os.memfd_create("usage")
    os.ftruncate(descriptor, 2 * BLOCK_BYTES)
    limits = {"requests_per_second": 4.0}, {"bytes_per_second": 100.0}, {"rows_per_second": 50.0}
    made = [key(f"k{n}", quotas=Quotas(**each)) for n, each in enumerate(limits)]
    gateways = [access(*(each for _, each in made), usage=Usage(descriptor, 2, mine)) for mine in (0, 1)]

    def use(which: int, gateway: int, size: int, at: float) -> SalverError | None:
        who = gateways[gateway].check(made[which][0], "predict", "", NOW)
        assert isinstance(who, Principal)
        return gateways[gateway].use(who, size, NOW, at)

    assert [use(0, n % 2, 1, 100.0) is None for n in range(6)] == [True] * 4 + [False] * 2
    refused = use(0, 0, 1, 100.0)
    assert code(refused) == "quota-exceeded"
    assert refused is not None
    assert refused.retry_after == pytest.approx(0.25)
    assert use(0, 1, 1, 100.26) is None
    assert [use(1, n, 60, 100.0) is None for n in (0, 1)] == [True, False]
    assert use(2, 0, 0, 100.0) is None
    who = gateways[0].check(made[2][0], "predict", "", NOW)
    assert isinstance(who, Principal)
    gateways[0].answered(who, 150, 100.0)
    assert [use(2, n, 0, 101.0) is None for n in (0, 1)] == [False, False]
    assert [use(2, n, 0, 103.1) is None for n in (0, 1)] == [True, True]
    restarted = access(*(each for _, each in made), usage=Usage(descriptor, 2, 0))
    assert code(restarted.use(who, 0, NOW, 101.0)) == "quota-exceeded"


# ── JSON Web Tokens ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_good_token_speaks_for_its_subject(tokens: Access) -> None:
    who = tokens.check(b"Bearer " + token(models=["churn"]), "predict", "churn", time.time())
    assert isinstance(who, Principal)
    assert who.name == "jwt:alice"
    assert code(tokens.check(token(models=["churn"]), "predict", "fraud", time.time())) == "no-such-model"
    assert code(tokens.check(token(models=[]), "predict", "churn", time.time())) == "no-such-model"


def test_scopes_come_from_scope_or_scp(tokens: Access) -> None:
    given: list[dict[str, Any]] = [{"scope": "openid metadata"}, {"scope": "", "scp": ["metadata"]}]
    for claims in [*given, {"scope": "", "scp": "metadata"}]:
        assert isinstance(tokens.check(token(**claims), "metadata", "", time.time()), Principal)
        assert code(tokens.check(token(**claims), "predict", "", time.time())) == "forbidden"


def test_a_curve_key_and_a_missing_key_id_work(tokens: Access) -> None:
    assert isinstance(tokens.check(token(CURVE, "ES256", "two"), "predict", "", time.time()), Principal)
    assert isinstance(tokens.check(token(kid=None), "predict", "", time.time()), Principal)


def test_leeway_is_thirty_seconds(tokens: Access) -> None:
    now = time.time()
    assert isinstance(tokens.check(token(exp=now - 20), "predict", "", now), Principal)
    assert code(tokens.check(token(exp=now - 40), "predict", "", now)) == "unauthenticated"
    assert isinstance(tokens.check(token(nbf=now + 20), "predict", "", now), Principal)
    assert code(tokens.check(token(nbf=now + 60), "predict", "", now)) == "unauthenticated"
    assert code(tokens.check(token(iat=now + 60), "predict", "", now)) == "unauthenticated"


def test_a_remembered_token_ends_with_its_time(tokens: Access) -> None:
    made = token()
    who = tokens.check(made, "predict", "", time.time())
    assert tokens.check(made, "predict", "", time.time()) is who
    assert code(tokens.check(made, "predict", "", time.time() + 200)) == "unauthenticated"


def _unsigned(header: dict[str, Any], signature: bytes = b"") -> bytes:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "scope": "predict admin"}
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


def test_forged_tokens_are_refused(tokens: Access) -> None:
    pem = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    stem = _unsigned({"alg": "HS256", "kid": "one"}).rpartition(b".")[0]
    confusion = stem + b"." + base64.urlsafe_b64encode(hmac.new(pem, stem, hashlib.sha256).digest()).rstrip(b"=")
    tampered = token().rpartition(b".")
    forged = {
        "none": _unsigned({"alg": "none"}),
        "None": _unsigned({"alg": "None", "kid": "one"}),
        "no algorithm": _unsigned({"kid": "one"}),
        "a public key as secret": confusion,
        "another key": token(OTHER),
        "an unknown key id": token(kid="three"),
        "the other kind of key": token(kid="two"),
        "an algorithm that is not listed": token(algorithm="RS512"),
        "another issuer": token(iss="https://evil.example"),
        "no issuer": token(iss=None),
        "another audience": token(aud="other"),
        "no audience": token(aud=None),
        "no end": token(exp=None),
        "an end that is no number": token(exp="soon"),
        "a cut signature": tampered[0] + b"." + tampered[2][:-4],
        "rubbish": b"a.b.c",
        "dots": b"..",
        "very long": b"a" * 9000 + b".b.c",
        "critical": jwt.encode({"exp": 1}, PRIVATE, "RS256", {"kid": "one", "crit": ["x"], "x": 1}).encode(),
    }
    answers = {name: tokens.check(each, "predict", "", time.time()) for name, each in forged.items()}
    assert {name: code(answer) for name, answer in answers.items()} == dict.fromkeys(forged, "unauthenticated")
    said = {name: str(answer) for name, answer in answers.items()}
    assert "it is of another issuer" in said["another issuer"]
    assert "it is for another audience" in said["another audience"]
    assert "it lacks one of exp, iss and aud" in said["no audience"]
    assert not [words for words in said.values() if "Error" in words]


def test_until_the_first_set_is_there_a_token_may_be_sent_again_and_anything_else_is_unknown() -> None:
    made = Access(Terms(tokens=TokenTerms(ISSUER, AUDIENCE, "https://issuer.example/keys")))
    made.take(Grants())
    assert code(made.check(token(), "predict", "churn", NOW)) == "not-ready"
    assert code(made.check(b"slv_shop_nothing", "predict", "churn", NOW)) == "unauthenticated"
    made.take(Grants(jwks=jwks(public(PRIVATE, "RS256", "one"))))
    assert isinstance(made.check(token(), "predict", "churn", time.time()), Principal)


def test_a_set_without_a_usable_key_leaves_the_last_one_in_force(tokens: Access) -> None:
    with pytest.raises(SalverError):
        tokens.take(Grants(jwks=jwks({"kty": "oct", "k": "c2VjcmV0"})))
    assert isinstance(tokens.check(token(), "predict", "", time.time()), Principal)


# ── what may not be set up ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "terms",
    [
        Terms(open=("predict",)),
        Terms(open=("admin",)),
        Terms(tls=Tls("cert", "")),
        Terms(tls=Tls("", "", "ca")),
        Terms(client_names={"x": ("predict",)}),
        Terms(tls=Tls("c", "k", "ca"), client_names={"x": ("fly",)}),
        Terms(tokens=TokenTerms(ISSUER, "", "keys.json")),
        Terms(tokens=TokenTerms(ISSUER, AUDIENCE, "keys.json", ("none",))),
        Terms(tokens=TokenTerms(ISSUER, AUDIENCE, "keys.json", ())),
        Terms(tokens=TokenTerms(ISSUER, AUDIENCE, "https://issuer.example/keys", ("HS256",))),
        Terms(tokens=TokenTerms(ISSUER, AUDIENCE, "http://issuer.example/keys")),
    ],
)
def test_terms_that_would_let_anybody_in_are_refused(terms: Terms) -> None:
    with pytest.raises(SalverError) as raised:
        check_terms(terms)
    assert raised.value.code == "bad-settings"


def test_nothing_on_the_data_port_changes_anything() -> None:
    assert {path.method for path in PUBLIC} == {"GET", "POST", "PUT"}
    sent = {path.kind for path in PUBLIC if path.method != "GET" and path.scope != "predict"}
    assert sent <= {"v2-index", "v2-load"}  # a list, and 501


# ── certificates ─────────────────────────────────────────────────────────────────────────────────────────────────


def by_certificate(terms: Terms, scope: str, *names: str) -> Principal | SalverError:
    return access(terms=terms).check(b"", scope, "", NOW, names)


def test_a_certificate_may_do_what_its_listener_is_for_where_nothing_else_is_asked() -> None:
    terms = Terms(tls=Tls("c", "k", "ca"), admin_tls=Tls("c", "k", "other"))
    for scope in ("predict", "metadata", "metrics", "status"):
        who = by_certificate(terms, scope, "unnamed")
        assert isinstance(who, Principal)
        assert who.name == "certificate:unnamed"
    assert code(by_certificate(terms, "docs", "unnamed")) == "forbidden"


@pytest.mark.parametrize(
    "terms",
    [
        Terms(admin_tls=Tls("c", "k", "ca"), keys="keys"),
        Terms(admin_tls=Tls("c", "k", "ca"), client_names={"ops": ("metrics",)}),
        Terms(admin_tls=Tls("c", "k", "ca"), tokens=TokenTerms(ISSUER, AUDIENCE, "keys.json")),
    ],
)
def test_a_certificate_without_a_known_name_is_no_credential_where_others_are_asked_for(terms: Terms) -> None:
    assert code(by_certificate(terms, "metrics", "unnamed")) == "unauthenticated"


def test_the_authority_of_the_admin_port_says_nothing_of_the_other() -> None:
    terms = Terms(admin_tls=Tls("c", "k", "ca"))
    assert not terms.authenticates
    assert terms.of_admin().authenticates
    with pytest.raises(SalverError) as raised:
        check_terms(Terms(admin_tls=Tls(client_ca="ca"), client_names={"ops": ("fly",)}))
    assert raised.value.details == (
        "admin_tls_client_ca needs admin_tls_cert and admin_tls_key",
        "tls_client_names: ops has unknown scope 'fly'",
    )
