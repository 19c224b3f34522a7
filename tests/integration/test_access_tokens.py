"""The JWK set of an identity provider: fetched over https, renewed, and kept while the provider is in trouble."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from salver.errors import SalverError
from salver.supervisor.grants import FETCH_AGAIN, FETCH_EVERY, LARGEST_SET, fetch
from tests.integration.issuer import AUDIENCE, ISSUER, Answer, Provider, Signer
from tests.integration.server import Server
from tests.integration.test_access import ROW, key

PATIENCE = 30.0
SOON = {"cache-control": "public, max-age=1"}


def until(holds: Callable[[], bool], server: Server | None = None) -> None:
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, server.log.read_text() if server is not None else ""
        time.sleep(0.02)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that this process and those it starts trust."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return made


@pytest.fixture
def serve(start: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    """Start a server that takes the tokens of a provider."""

    def begin(provider: Provider, *options: str) -> Server:
        settings = {"ISSUER": ISSUER, "AUDIENCE": AUDIENCE, "ALGORITHMS": "ES256", "KEYS": address(provider)}
        for name, value in settings.items():
            monkeypatch.setenv(f"SALVER_SERVE_JWT_{name}", value)
        server: Server = start("--workers", "1", "--drain-delay", "0", *options)
        return server

    return begin


def address(provider: Provider, host: str = "localhost") -> str:
    return f"https://{host}:{provider.port}/jwks"


def status(server: Server, token: str) -> int:
    return server.post("/models/oracle/predict", ROW, {"authorization": f"Bearer {token}"}).status


def test_tokens_are_taken_by_the_fetched_set_and_a_rotation_of_its_keys_is_taken_up(
    authority: trustme.CA, serve: Callable[..., Server]
) -> None:
    signer, kids = Signer(), ["old"]
    with Provider(authority.issue_cert("localhost"), lambda: (200, SOON, signer.jwks(*kids))) as provider:
        server = serve(provider, "--gateways", "2")
        old, new = (signer.token(kid) for kid in ("old", "new"))
        until(lambda: status(server, old) == 200, server)
        assert status(server, new) == 401
        assert status(server, Signer().token("old")) == 401
        assert status(server, signer.token("old", scope="metadata")) == 403
        kids.append("new")
        until(lambda: {status(server, new) for _ in range(8)} == {200}, server)
        assert status(server, old) == 200
        kids.remove("old")
        until(lambda: {status(server, old) for _ in range(8)} == {401}, server)
        assert status(server, new) == 200


def test_a_provider_that_is_down_leaves_the_last_set_in_force_until_it_is_back(
    authority: trustme.CA, serve: Callable[..., Server]
) -> None:
    signer, issued = Signer(), authority.issue_cert("localhost")
    kids = ["one"]

    def answer() -> Answer:
        return 200, SOON, signer.jwks(*kids)

    with Provider(issued, answer) as provider:
        server = serve(provider)
        until(lambda: status(server, signer.token("one")) == 200, server)
    stays = "the JWK set can't be used, what was in force stays"
    until(lambda: stays in server.log.read_text(), server)
    assert f"{address(provider)} can't be read: Connection refused" in server.log.read_text()
    assert status(server, signer.token("one")) == 200
    kids.append("two")
    with Provider(issued, answer, port=provider.port):
        until(lambda: status(server, signer.token("two")) == 200, server)
    assert "the JWK set can be used again" in server.log.read_text()
    assert server.log.read_text().count(stays) == 1


def test_a_provider_that_does_not_answer_keeps_no_key_from_being_revoked(
    authority: trustme.CA, serve: Callable[..., Server], tmp_path: Path
) -> None:
    keys, signer, over = tmp_path / "keys.jsonl", Signer(), threading.Event()
    token = key(keys, "add", "shop")
    hangs = threading.Event()

    def answer() -> Answer:
        if hangs.is_set():
            over.wait(PATIENCE)
        return 200, SOON, signer.jwks("one")

    with Provider(authority.issue_cert("localhost"), answer) as provider, contextlib.ExitStack() as stack:
        stack.callback(over.set)
        server = serve(provider, "--keys", str(keys))
        until(lambda: {status(server, token), status(server, signer.token("one"))} == {200}, server)
        hangs.set()
        asked = provider.asked
        until(lambda: provider.asked > asked, server)
        key(keys, "revoke", "shop")
        until(lambda: status(server, token) == 401, server)
        assert "does not answer" not in server.log.read_text()
        until(lambda: "does not answer within 5 s" in server.log.read_text(), server)
        assert status(server, signer.token("one")) == 200


def test_a_provider_whose_certificate_is_not_trusted_is_not_asked_and_the_log_says_what_to_do(
    authority: trustme.CA, serve: Callable[..., Server]
) -> None:
    del authority
    signer = Signer()
    with Provider(trustme.CA().issue_cert("localhost"), lambda: (200, {}, signer.jwks("one"))) as provider:
        server = serve(provider)
        until(lambda: "is not accepted" in server.log.read_text(), server)
        said = server.log.read_text()
        assert f"the certificate of {address(provider)} is not accepted: unable to get local issuer" in said
        assert "SSL_CERT_FILE names the authorities to trust" in said
        assert status(server, signer.token("one")) == 503
        assert status(server, "slv_shop_not-a-key") == 401
        assert provider.asked == 0


@pytest.fixture
def trusted(authority: trustme.CA) -> Iterator[Provider]:
    with Provider(authority.issue_cert("localhost"), lambda: (200, {}, b"")) as provider:
        yield provider


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, {}, b"oops"), "answers 500"),
        ((302, {"location": "https://evil.example/jwks"}, b""), "answers 302 · hint: it points to https://evil"),
        ((200, {}, bytes(LARGEST_SET + 1)), "is over 1048576 bytes"),
        ((0, {}, b"what?\r\n\r\n"), "can't be read: what?"),
        ((0, {}, b""), "can't be read"),
        ((200, {"content-length": "9999999", "transfer-encoding": "chunked"}, b"zz\r\n"), "can't be read"),
    ],
)
def test_whatever_is_no_answer_of_a_provider_is_refused_with_its_reason(
    trusted: Provider, answer: Answer, said: str
) -> None:
    trusted.answer = lambda: answer
    with pytest.raises(SalverError) as caught:
        fetch(address(trusted))
    assert caught.value.code == "bad-keys"
    assert said in str(caught.value)
    assert trusted.asked == 1


def test_an_address_by_another_name_than_that_of_its_certificate_is_refused(trusted: Provider) -> None:
    with pytest.raises(SalverError, match=r"not accepted: IP address mismatch"):
        fetch(address(trusted, "127.0.0.1"))
    assert trusted.asked == 0


@pytest.mark.parametrize(
    ("control", "lasts"),
    [
        ("", FETCH_EVERY),
        ("max-age=20", 20.0),
        ("max-age=86400", FETCH_EVERY),
        ("max-age=0", 300.0),
        ("max-age=1", FETCH_AGAIN),
    ],
)
def test_a_set_lasts_as_long_as_it_says_but_no_longer_than_five_minutes_and_five_seconds_at_least(
    trusted: Provider, control: str, lasts: float
) -> None:
    trusted.answer = lambda: (200, {"cache-control": control}, b"{}")
    assert fetch(address(trusted)) == (b"{}", lasts)


@pytest.mark.parametrize("scheme", ["http", "file", "ftp"])
def test_an_address_that_is_not_https_is_refused_at_the_start(registry: Path, scheme: str) -> None:
    settings = {"ISSUER": ISSUER, "AUDIENCE": AUDIENCE, "KEYS": f"{scheme}://localhost/jwks"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(f"SALVER_SERVE_JWT_{name}", value)
        command = [sys.executable, "-P", "-m", "salver", "serve", "--registry", str(registry), "--port", "0"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "jwt_keys must be a file or an https address" in ended.stderr
