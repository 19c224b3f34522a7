"""Who may ask what of a real server: the matrix of routes, methods and callers; revocation; quotas; browsers."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from salver.access.keys import SCOPES
from salver.gateway.paths import ADMIN, PUBLIC
from salver.gateway.paths import Path as Route
from tests.integration.server import Server

ROW = b'{"key": 7, "act": ""}'
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPEN = "health"
OF_ADMIN = ("metrics", "status")


class Caller(NamedTuple):
    """A credential, what it may, and for which models."""

    token: str
    scopes: tuple[str, ...]
    elsewhere: bool = False  # only for another model


class Guarded(NamedTuple):
    """A server that asks for keys, its keys file, and callers of every kind."""

    server: Server
    keys: Path
    callers: dict[str, Caller]


def key(keys: Path, *arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "salver", "key", *arguments, "--keys", str(keys)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def expire(keys: Path, name: str, moment: str = "2020-01-01T00:00:00Z") -> None:
    lines = [json.loads(line) for line in keys.read_text().splitlines()]
    for line in lines:
        if line["name"] == name:
            line["expires"] = moment
    keys.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def guarded(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys.jsonl"
    callers = {"nobody": Caller("", ()), "stranger": Caller("slv_shop_not-a-key", ())}
    for scope in SCOPES:
        callers[scope] = Caller(key(keys, "add", f"only-{scope}", "--scope", scope), (scope,))
    every = [part for scope in SCOPES for part in ("--scope", scope)]
    callers["elsewhere"] = Caller(key(keys, "add", "elsewhere", "--model", "other", *every), SCOPES, True)
    for name in ("expired", "revoked"):
        callers[name] = Caller(key(keys, "add", name, *every), ())
    expire(keys, "expired")
    key(keys, "revoke", "revoked")
    options = ("--keys", str(keys), "--gateways", "2", "--drain-delay", "0", "--grpc-port", "-1")
    with Server(published, *options, log=folder / "log") as server:
        yield Guarded(server, keys, callers)


def urls(route: Route) -> list[str]:
    """Addresses that a route's pattern matches, one for each of its branches."""
    text = route.pattern.pattern
    for group, example in ((r"(?P<model>[^/:]+)", "oracle"), (r"(?P<number>[0-9]{1,12})", "1")):
        text = text.replace(group, example)
    text = text.replace("(?P<model>[A-Za-z0-9._-]+)", "swagger-ui.css").replace("\\.", ".")
    found = []
    for branch in _branches(text):
        for optional in re.findall(r"\(([^()]*)\)\?", branch):
            found += [branch.replace(f"({optional})?", part) for part in _branches(optional)]
        found.append(re.sub(r"\([^()]*\)\?", "", branch))
    found = [each.replace("/?", "") for each in found]
    assert all(route.pattern.fullmatch(each) for each in found), (route.pattern.pattern, found)
    return found


def _branches(text: str) -> list[str]:
    """The text at each `|` outside parentheses, with `(a|b)` inside written out."""
    depth, parts = 0, [""]
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    inner = re.compile(r"\(([^()|]*\|[^()]*)\)(?!\?)")
    for _ in range(3):
        parts = [
            part[: match.start()] + choice + part[match.end() :] if match else part
            for part in parts
            for match in [inner.search(part)]
            for choice in (match[1].split("|") if match else [""])
        ]
    return parts


def declared(route: Route, method: str, caller: Caller) -> Callable[[int], bool]:
    """What the table of routes says of a request's status."""
    if method != route.method and not (method == "HEAD" and route.method == "GET"):
        return lambda status: status == 405
    if route.scope == OPEN:
        return lambda status: status not in (401, 403)
    if not caller.scopes:
        return lambda status: status == 401
    if route.scope not in caller.scopes and not ("admin" in caller.scopes and route.scope in OF_ADMIN):
        return lambda status: status == 403
    of_model = route.scope in ("predict", "metadata") and ("model" in route.pattern.groupindex)
    if caller.elsewhere and of_model:
        return lambda status: status == 404
    return lambda status: status not in (401, 403, 405)


@pytest.mark.parametrize("admin", [False, True], ids=["data", "admin"])
def test_every_route_method_and_caller_is_answered_as_the_table_of_routes_declares(
    guarded: Guarded, admin: bool
) -> None:
    server, _, callers = guarded
    port = server.admin_port if admin else server.port
    wrong, seen = [], 0
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=15)) as connection:
        for route in ADMIN if admin else PUBLIC:
            ours = [other for other in (ADMIN if admin else PUBLIC) if other is not route]
            for url, method, (name, caller) in product(urls(route), METHODS, callers.items()):
                if method != route.method and any(o.pattern.fullmatch(url) and o.method == method for o in ours):
                    continue  # another route's
                headers = {"authorization": f"Bearer {caller.token}"} if caller.token else {}
                body = ROW if method in ("POST", "PUT", "PATCH") else None
                connection.request(method, url, body, {"content-type": "application/json", **headers})
                response = connection.getresponse()
                response.read()
                seen += 1
                if not declared(route, method, caller)(response.status):
                    wrong.append((method, url, name, response.status))
    assert wrong == []
    assert seen >= (len(ADMIN) if admin else len(PUBLIC)) * len(callers) * 5


def test_a_caller_sees_only_the_models_it_may_ask(guarded: Guarded) -> None:
    server, _, callers = guarded

    def get(path: str, caller: str) -> Any:
        return server.ask("GET", path, headers={"x-api-key": callers[caller].token}).json

    assert [model["name"] for model in get("/models", "metadata")["models"]] == ["oracle"]
    assert get("/models", "elsewhere") == {"models": []}
    assert get("/v1/models", "elsewhere") == {"models": []}
    assert not any("oracle" in path for path in get("/openapi.json", "elsewhere")["paths"])
    hidden, missing = (get(f"/models/{name}", "elsewhere") for name in ("oracle", "no-such-model"))
    assert json.dumps(hidden).replace("oracle", "no-such-model") == json.dumps(missing)


def test_the_api_document_says_what_needs_a_token_and_what_then_may_be_answered(guarded: Guarded) -> None:
    server, _, callers = guarded
    got = server.ask("GET", "/openapi.json", headers={"x-api-key": callers["docs"].token}).json
    assert got["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, needed in (("/models/oracle/predict", True), ("/models", True), ("/healthz/ready", False)):
        [operation] = got["paths"][path].values()
        assert operation.get("security", []) == ([{"token": []}] if needed else [])
        assert {"401", "403", "429"}.issubset(operation["responses"]) == needed


def test_a_revoked_key_ends_within_a_second_on_open_connections_of_every_gateway(guarded: Guarded) -> None:
    server, keys, _ = guarded
    token = key(keys, "add", "leaver")

    def ask(connection: http.client.HTTPConnection) -> int:
        connection.request("POST", "/models/oracle/predict", ROW, {"authorization": f"Bearer {token}"})
        response = connection.getresponse()
        response.read()
        return response.status

    with contextlib.ExitStack() as stack:
        made = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=15) for _ in range(12)]
        connections = [stack.enter_context(contextlib.closing(each)) for each in made]
        ends = time.monotonic() + 15
        while any(ask(connection) != 200 for connection in connections):
            assert time.monotonic() < ends
        key(keys, "revoke", "leaver")
        revoked = time.monotonic()
        while (statuses := {ask(connection) for connection in connections}) != {401}:
            assert time.monotonic() < revoked + 1.0, statuses


def test_a_key_that_ends_is_refused_on_a_connection_that_stays(guarded: Guarded) -> None:
    server, keys, _ = guarded
    token = key(keys, "add", "ending", "--scope", "predict")
    ends = time.time() + 5
    expire(keys, "ending", datetime.fromtimestamp(ends, UTC).isoformat())
    statuses = set()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)) as connection:
        while time.time() < ends + 10:
            connection.request("POST", "/models/oracle/predict", ROW, {"x-api-key": token})
            asked, answer = time.time(), connection.getresponse()
            body = json.loads(answer.read())
            if 200 in statuses and answer.status != 200:
                break
            statuses.add(answer.status)
            assert asked < ends or answer.status != 200
            time.sleep(0.02)
    assert (answer.status, body["detail"]) == (401, "the credential has expired")
    assert time.time() >= ends


def test_a_broken_keys_file_leaves_the_last_good_one_and_is_said(guarded: Guarded) -> None:
    server, keys, callers = guarded
    good = keys.read_bytes()
    keys.write_bytes(good + b"{broken\n")
    try:
        ends = time.monotonic() + 15
        while "the keys file can't be used" not in server.log.read_text():
            assert time.monotonic() < ends
            time.sleep(0.02)
        answer = server.post("/models/oracle/predict", ROW, {"x-api-key": callers["predict"].token})
        assert answer.status == 200
    finally:
        keys.write_bytes(good)


def test_a_quota_holds_over_all_gateways_and_says_when_to_come_again(guarded: Guarded) -> None:
    server, keys, callers = guarded
    token = key(keys, "add", "bounded", "--requests-per-second", "0.05", "--burst", "200")
    ends = time.monotonic() + 15
    while server.get("/models").status != 401 or not _known(server, token):
        assert time.monotonic() < ends
    answers = [server.post("/models/oracle/predict", ROW, {"x-api-key": token}) for _ in range(16)]
    assert sum(answer.status == 200 for answer in answers) <= 11
    assert answers[-1].status == 429
    assert answers[-1].json["code"] == "quota-exceeded"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert server.post("/models/oracle/predict", ROW, {"x-api-key": callers["predict"].token}).status == 200


def _known(server: Server, token: str) -> bool:
    return server.ask("GET", "/models", headers={"x-api-key": token}).status == 200


def test_a_large_body_of_a_stranger_is_not_waited_for(guarded: Guarded) -> None:
    head = b"POST /models/oracle/predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 60000000\r\n\r\n"
    answer = guarded.server.raw(head)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"www-authenticate: Bearer\r\n" in answer


def test_pages_of_others_may_not_ask_a_server_without_keys(server: Server) -> None:
    def status(**headers: str) -> int:
        return server.post("/models/oracle/predict", ROW, headers).status

    port = server.port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "app.localhost", "192.168.1.7"):
        assert status(host=host) == 200
        assert status(host=host, origin=f"http://{host}") == 200
    assert status(host="evil.example") == 403
    assert status(host=f"evil.example:{port}", origin=f"http://evil.example:{port}") == 403
    for origin in ("http://evil.example", "null", "http://localhost.evil.example", "http://93.184.216.34", "http://["):
        assert status(origin=origin) == 403
    assert server.ask("GET", "/models", headers={"host": "evil.example"}).status == 403


def test_cors_is_off_by_default_and_answers_only_origins_that_are_named(start: Any, server: Server) -> None:
    origin = {"origin": "http://localhost:3000"}
    plain = server.post("/models/oracle/predict", ROW, origin)
    assert plain.status == 200
    assert not [name for name in plain.headers if name.startswith("access-control")]
    shared = start("--cors-origins", "https://shop.example", "--drain-delay", "0", "--grpc-port", "-1")
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    preflight = shared.ask("OPTIONS", "/models/oracle/predict", headers=asked)
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    for _ in range(2):  # the second time the head is remembered
        answer = shared.post("/models/oracle/predict", ROW, {"origin": "https://shop.example"})
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert answer.headers["vary"] == "origin"
    assert shared.ask("OPTIONS", "/models/oracle/predict", headers={"origin": "https://evil.example"}).status == 403


@pytest.mark.parametrize("options", [["--host", "0.0.0.0"], ["--host", "::"], ["--admin-host", "0.0.0.0"]])
def test_a_server_that_others_could_reach_does_not_start_without_keys(registry: Path, options: list[str]) -> None:
    command = [sys.executable, "-P", "-m", "salver", "serve", *options, "--registry", str(registry), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 4
    assert "no-authentication" in ended.stderr
    assert "--insecure" in ended.stderr


def test_insecure_says_loudly_what_anybody_can_do(start: Any) -> None:
    server = start("--host", "0.0.0.0", "--insecure", "--drain-delay", "0", "--grpc-port", "-1")
    assert server.post("/models/oracle/predict", ROW, {"host": "models.internal"}).status == 200
    assert "warning: --insecure: whoever reaches 0.0.0.0 can predict" in server.log.read_text()
