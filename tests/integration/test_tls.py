"""TLS of a real server: versions, new certificates while connections stay, certificates of callers."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from salver.client.blocking import Client
from salver.client.concurrent import AsyncClient
from salver.errors import SalverError, UserError
from tests.integration.server import Server
from tests.integration.test_access import key

ROW = b'{"key": 7, "act": ""}'


class Secure(NamedTuple):
    """A server with TLS, the authority that signed its certificate, and its files."""

    server: Server
    authority: trustme.CA
    folder: Path


class TlsServer(Server):
    """A server whose readiness is asked over TLS; without a certificate of its own where none is asked for."""

    client: ssl.SSLContext

    def get(self, path: str, **_: Any) -> Any:
        with contextlib.closing(connect(self, self.client)) as connection:
            return ask(connection, "GET", path)


def write(folder: Path, issued: trustme.LeafCert, authority: trustme.CA) -> None:
    """Replace certificate and key as a renewing program does."""
    issued.private_key_pem.write_to_path(folder / "new-key")
    (folder / "new-cert").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    os.replace(folder / "new-key", folder / "key.pem")
    os.replace(folder / "new-cert", folder / "cert.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")


def client(authority: trustme.CA, issued: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if issued is not None:
        issued.configure_cert(context)
    return context


def connect(server: Server, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("localhost", server.port, timeout=15, context=context)


def ask(connection: http.client.HTTPConnection, method: str, path: str, **headers: str) -> Any:
    connection.request(method, path, ROW if method == "POST" else None, headers)
    response = connection.getresponse()
    response.read()
    return response


def serial(server: Server, context: ssl.SSLContext) -> str:
    """The serial number of the certificate that a new connection is shown."""
    with contextlib.closing(connect(server, context)) as connection:
        connection.connect()
        return str(connection.sock.getpeercert()["serialNumber"])


@pytest.fixture
def secure(registry: Path, tmp_path: Path) -> Iterator[Callable[..., Secure]]:
    running: list[Server] = []

    def begin(*options: str, caller: trustme.LeafCert | None = None, authority: trustme.CA | None = None) -> Secure:
        signer = authority or trustme.CA()
        write(tmp_path, signer.issue_cert("localhost"), signer)
        files = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
        server = TlsServer(registry, *files, "--drain-delay", "0", "--grpc-port", "-1", *options, log=tmp_path / "log")
        server.client = client(signer, caller)
        running.append(server)
        server.__enter__()
        return Secure(server, signer, tmp_path)

    yield begin
    for server in running:
        server.stop()


def test_predictions_travel_in_tls_of_version_1_2_or_newer(secure: Callable[..., Secure]) -> None:
    server, authority, _ = secure()
    with contextlib.closing(connect(server, client(authority))) as connection:
        assert [ask(connection, "POST", "/models/oracle/predict").status for _ in range(3)] == [200] * 3
        assert connection.sock.version() == "TLSv1.3"
        assert ask(connection, "GET", "/v2/health/live").status == 200
    stranger = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        serial(server, stranger)
    plain = http.client.HTTPConnection("localhost", server.port, timeout=15)
    with contextlib.closing(plain), pytest.raises((http.client.HTTPException, OSError)):
        ask(plain, "GET", "/healthz/live")
    offered = client(authority)
    offered.set_alpn_protocols(["h2", "http/1.1"])
    with contextlib.closing(connect(server, offered)) as connection:
        connection.connect()
        assert connection.sock.selected_alpn_protocol() == "http/1.1"


def test_a_new_certificate_is_shown_while_open_connections_stay_and_a_broken_one_is_not(
    secure: Callable[..., Secure],
) -> None:
    server, authority, folder = secure()
    trusted = client(authority)
    with contextlib.closing(connect(server, trusted)) as connection:
        assert ask(connection, "POST", "/models/oracle/predict").status == 200
        before = serial(server, trusted)
        write(folder, authority.issue_cert("localhost"), authority)
        ends = time.monotonic() + 15
        while serial(server, trusted) == before:
            assert time.monotonic() < ends
            time.sleep(0.02)
        fresh = serial(server, trusted)
        assert ask(connection, "POST", "/models/oracle/predict").status == 200
        (folder / "cert.pem").write_text("broken")
        while "the new certificate is not used" not in server.log.read_text():
            assert time.monotonic() < ends
            time.sleep(0.02)
        assert serial(server, trusted) == fresh
        assert ask(connection, "POST", "/models/oracle/predict").status == 200


def test_callers_may_be_known_by_their_certificate(secure: Callable[..., Secure], tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "callers.pem")
    shop, reader, other = (authority.issue_cert(name) for name in ("shop.example", "reader.example", "x.example"))
    keys = tmp_path / "keys.jsonl"
    token = key(keys, "add", "holder")
    names = "shop.example=predict+metadata,reader.example=metadata"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_SERVE_TLS_CLIENT_NAMES", names)
        options = ("--tls-client-ca", str(tmp_path / "callers.pem"), "--keys", str(keys))
        server, _, _ = secure(*options, caller=shop, authority=authority)

    def status(issued: trustme.LeafCert, **headers: str) -> int:
        with contextlib.closing(connect(server, client(authority, issued))) as connection:
            statuses = {ask(connection, "POST", "/models/oracle/predict", **headers).status for _ in range(2)}
        (only,) = statuses
        return int(only)

    assert status(shop) == 200
    assert status(reader) == 403
    assert status(other) == 401
    assert status(other, authorization=f"Bearer {token}") == 200
    nobody = connect(server, client(authority))
    with contextlib.closing(nobody), pytest.raises((OSError, http.client.HTTPException)):
        ask(nobody, "GET", "/healthz/live")
    foreign = trustme.CA().issue_cert("shop.example")
    with pytest.raises((OSError, http.client.HTTPException)):
        status(foreign)


def admin(server: Server, path: str, context: ssl.SSLContext) -> int:
    """The status of a page of the admin port."""
    connection = http.client.HTTPSConnection("localhost", server.admin_port, timeout=15, context=context)
    with contextlib.closing(connection):
        return int(ask(connection, "GET", path).status)


def admin_files(authority: trustme.CA, folder: Path) -> tuple[str, ...]:
    """The options of an admin port that asks for certificates of this authority."""
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "admin-key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "admin-cert.pem")
    authority.cert_pem.write_to_path(folder / "admin-ca.pem")
    names = {"cert": "admin-cert.pem", "key": "admin-key.pem", "client-ca": "admin-ca.pem"}
    return tuple(part for name, file in names.items() for part in (f"--admin-tls-{name}", str(folder / file)))


def test_a_certificate_opens_the_admin_port_and_no_key_is_needed_for_either_port(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    authority = trustme.CA()
    server = start(*admin_files(authority, tmp_path))
    nameless = client(authority, authority.issue_cert("192.0.2.1"))  # an address is no name
    assert [admin(server, path, nameless) for path in ("/metrics", "/status", "/healthz/live")] == [200] * 3
    assert server.post("/models/oracle/predict", ROW).status == 200
    for stranger in (client(authority), client(authority, trustme.CA().issue_cert("ops.example"))):
        with pytest.raises((OSError, http.client.HTTPException)):
            admin(server, "/healthz/live", stranger)


def test_each_port_has_callers_of_its_own_authority(secure: Callable[..., Secure], tmp_path: Path) -> None:
    callers, operators = trustme.CA(), trustme.CA()
    callers.cert_pem.write_to_path(tmp_path / "callers.pem")
    shop, ops = callers.issue_cert("shop.example"), operators.issue_cert("ops.example")
    options = ("--tls-client-ca", str(tmp_path / "callers.pem"), *admin_files(operators, tmp_path))
    server, _, _ = secure(*options, caller=shop, authority=callers)
    with contextlib.closing(connect(server, client(callers, shop))) as connection:
        assert ask(connection, "POST", "/models/oracle/predict").status == 200
    assert [admin(server, path, client(operators, ops)) for path in ("/metrics", "/status")] == [200] * 2
    with pytest.raises((OSError, http.client.HTTPException)):
        admin(server, "/metrics", client(operators, shop))
    wrong = connect(server, client(callers, ops))
    with contextlib.closing(wrong), pytest.raises((OSError, http.client.HTTPException)):
        ask(wrong, "GET", "/healthz/live")


def test_names_say_what_each_certificate_may_do_on_the_admin_port(start: Callable[..., Server], tmp_path: Path) -> None:
    authority = trustme.CA()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_SERVE_TLS_CLIENT_NAMES", "prometheus.example=metrics,ops.example=admin")
        server = start(*admin_files(authority, tmp_path))

    def statuses(name: str) -> list[int]:
        context = client(authority, authority.issue_cert(name))
        return [admin(server, path, context) for path in ("/metrics", "/status", "/healthz/live")]

    assert statuses("prometheus.example") == [200, 403, 200]
    assert statuses("ops.example") == [200, 200, 200]
    assert statuses("192.0.2.1") == [401, 401, 200]
    assert server.post("/models/oracle/predict", ROW).status == 200


def test_the_python_clients_bring_their_key_and_say_why_they_do_not_trust_a_server(
    secure: Callable[..., Secure], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.jsonl"
    token, blind = key(keys, "add", "shop"), key(keys, "add", "blind", "--scope", "predict")
    server, authority, _ = secure("--keys", str(keys))
    url, row = f"https://localhost:{server.port}", {"key": 7, "act": ""}
    with Client(url, key=token, tls=client(authority)) as known:
        assert known.models()[0].name == "oracle"
        assert known.model("oracle").predict(row).release == "oracle@1"
    with Client(url, key=blind, tls=client(authority)) as one:
        assert one.model("oracle").predict([row, row]).release == "oracle@1"

    async def ask_all() -> str:
        async with AsyncClient(url, key=token, tls=client(authority)) as one:
            return (await one.model("oracle").predict(row)).release

    assert asyncio.run(ask_all()) == "oracle@1"
    with Client(url, tls=client(authority)) as nobody, pytest.raises(UserError) as refused:
        nobody.models()
    assert refused.value.code == "unauthenticated"
    with Client(url, key=token) as distrustful, pytest.raises(SalverError, match=r"no trusted connection.*CERTIFICATE"):
        distrustful.models()
