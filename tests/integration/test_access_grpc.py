"""Who may call what over gRPC: every method and caller, as it is written here; the gateway's own table says nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2 as v2

from salver.access.keys import SCOPES, mint
from salver.gateway.grpc.port import every_method
from tests.integration import misdeclared
from tests.integration.issuer import AUDIENCE, ISSUER, Signer
from tests.integration.server import SALVER, Server
from tests.integration.test_access import Caller, expire, key
from tests.integration.test_grpc import PATIENCE, place, typed
from tests.ports import free_port

V2, HEALTH, REFLECTION = "inference.GRPCInferenceService", "grpc.health.v1.Health", "grpc.reflection"
INFER = f"/{V2}/ModelInfer"


class Declared(NamedTuple):
    """What a call needs: the scope of its caller, a message, whether it is about a model, and what it then gets."""

    scope: str
    message: Any
    of_model: bool = False
    granted: str = "OK"


def _named(kind: Any) -> Declared:
    return Declared("metadata", kind(name="oracle"), of_model=True)


DECLARED = {
    f"/{V2}/ServerLive": Declared("health", v2.ServerLiveRequest()),
    f"/{V2}/ServerReady": Declared("health", v2.ServerReadyRequest()),
    f"/{V2}/ModelReady": _named(v2.ModelReadyRequest),
    f"/{V2}/ServerMetadata": Declared("metadata", v2.ServerMetadataRequest()),
    f"/{V2}/ModelMetadata": _named(v2.ModelMetadataRequest),
    f"/{V2}/ModelConfig": _named(v2.ModelConfigRequest),
    f"/{V2}/RepositoryIndex": Declared("metadata", v2.RepositoryIndexRequest()),
    f"/{V2}/RepositoryModelLoad": Declared("metadata", v2.RepositoryModelLoadRequest(), granted="UNIMPLEMENTED"),
    f"/{V2}/RepositoryModelUnload": Declared("metadata", v2.RepositoryModelUnloadRequest(), granted="UNIMPLEMENTED"),
    INFER: Declared("predict", typed([7]), of_model=True),
    f"/{V2}/ModelStreamInfer": Declared("predict", typed([7]), of_model=True),
    f"/{HEALTH}/Check": Declared("health", health_pb2.HealthCheckRequest()),
    f"/{HEALTH}/Watch": Declared("health", health_pb2.HealthCheckRequest()),
    **{
        f"/{REFLECTION}.{version}.ServerReflection/ServerReflectionInfo": Declared(
            "docs", reflection_pb2.ServerReflectionRequest(list_services="")
        )
        for version in ("v1", "v1alpha")
    },
}
ABOUT_A_MODEL = {
    f"/{HEALTH}/{name}": Declared("metadata", health_pb2.HealthCheckRequest(service="oracle"), of_model=True)
    for name in ("Check", "Watch")
}
NOT_THERE = (f"/{V2}/SystemSharedMemoryStatus", "/inference.Nothing/ModelInfer", "/", f"/{V2}", "/metrics", INFER + "/")
OPEN = "health"


def declared(needed: Declared, caller: Caller) -> str:
    """How a call has to end."""
    if needed.scope == OPEN:
        return needed.granted
    if not caller.scopes:
        return "UNAUTHENTICATED"
    if needed.scope not in caller.scopes:
        return "PERMISSION_DENIED"
    return "NOT_FOUND" if caller.elsewhere and needed.of_model else needed.granted


def outcome(channel: grpc.Channel, path: str, message: bytes, caller: Caller) -> str:
    """How a call ends: its status, or that of its first message where that says an error of its own."""
    call = channel.stream_stream(path)
    metadata = (("authorization", caller.token),) if caller.token else ()
    said = call(iter([message]), metadata=metadata, timeout=PATIENCE)
    try:
        first = next(said)
    except grpc.RpcError as problem:
        return str(problem.code().name)  # type: ignore[attr-defined]
    finally:
        said.cancel()
    if path.endswith("/ModelStreamInfer"):
        problem_of_one = v2.ModelStreamInferResponse.FromString(first).error_message
        if problem_of_one:
            return "NOT_FOUND" if "no model named" in problem_of_one else problem_of_one
    return "OK"


def differences(server: Server, callers: dict[str, Caller]) -> list[tuple[str, str, str, str]]:
    """Every call that ends otherwise than it has to: its path, caller, how it ended and how it should have."""
    wrong = []
    with grpc.insecure_channel(place(server)) as channel:
        for path, needed in [*DECLARED.items(), *ABOUT_A_MODEL.items()]:
            for name, caller in callers.items():
                found, right = (
                    outcome(channel, path, needed.message.SerializeToString(), caller),
                    declared(needed, caller),
                )
                if found != right:
                    wrong.append((path, name, found, right))
    return wrong


class Guarded(NamedTuple):
    """What a server needs to ask for keys and tokens, and callers of every kind."""

    options: tuple[str, ...]
    settings: dict[str, str]
    callers: dict[str, Caller]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    folder = tmp_path_factory.mktemp("guarded-grpc")
    keys, jwks, signer = folder / "keys.jsonl", folder / "jwks.json", Signer()
    jwks.write_bytes(signer.jwks("one"))
    settings = {"JWT_ISSUER": ISSUER, "JWT_AUDIENCE": AUDIENCE, "JWT_KEYS": str(jwks), "JWT_ALGORITHMS": "ES256"}
    every = [part for scope in SCOPES for part in ("--scope", scope)]
    held = {scope: key(keys, "add", f"only-{scope}", "--scope", scope) for scope in SCOPES}
    ended = {name: key(keys, "add", name, *every) for name in ("expired", "revoked")}
    expire(keys, "expired")
    key(keys, "revoke", "revoked")
    everything = " ".join(SCOPES)
    past, later = time.time() - 60, time.time() + 600
    refused = {
        "nobody": "",
        "of no scheme": "Bearer",
        "of another scheme": "Basic c2hvcDpzZWNyZXQ=",
        "malformed": "Bearer slv_shop_not-a-key",
        "never issued": f"Bearer {mint('stranger')}",
        **{name: f"Bearer {token}" for name, token in ended.items()},
        "expired token": f"Bearer {signer.token('one', scope=everything, exp=past)}",
        "early token": f"Bearer {signer.token('one', scope=everything, nbf=later)}",
        "token of a stranger": f"Bearer {signer.token('two', scope=everything)}",
        "token by another": f"Bearer {Signer().token('one', scope=everything)}",
        "token of another issuer": f"Bearer {signer.token('one', scope=everything, iss='https://evil.example')}",
        "token for another": f"Bearer {signer.token('one', scope=everything, aud='shop')}",
        "unsigned token": "Bearer " + _unsigned(signer.token("one", scope=everything)),
    }
    callers = {name: Caller(credential, ()) for name, credential in refused.items()}
    for scope in SCOPES:
        callers[f"key for {scope}"] = Caller(f"Bearer {held[scope]}", (scope,))
        callers[f"token for {scope}"] = Caller(f"Bearer {signer.token('one', scope=scope)}", (scope,))
    callers["key for another model"] = Caller(f"Bearer {key(keys, 'add', 'e', '--model', 'x', *every)}", SCOPES, True)
    elsewhere = signer.token("one", scope=everything, models=["x"])
    callers["token for another model"] = Caller(f"Bearer {elsewhere}", SCOPES, True)
    callers["token in scp"] = Caller(f"bearer {signer.token('one', scope='', scp=['predict'])}", ("predict",))
    return Guarded(("--keys", str(keys), "--drain-delay", "0"), settings, callers)


def _unsigned(token: str) -> str:
    head, claims, _ = token.split(".")
    del head
    return f"eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}."


@contextmanager
def serving(guarded: Guarded, registry: Path, log: Path, command: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server that knows them all, started by another command where one is given."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in guarded.settings.items():
            patch.setenv(f"SALVER_SERVE_{name}", value)
        if command:
            patch.setattr("tests.integration.server.SALVER", [*SALVER[:2], *command])
        options = (*guarded.options, "--grpc-port", str(free_port()), "--gateways", "2", "--workers", "1")
        with Server(registry, *options, log=log) as server:
            _until_known(server, guarded.callers["token for metadata"], guarded.callers["key for metadata"])
            yield server


def _until_known(server: Server, *callers: Caller) -> None:
    """Wait until every gateway knows its callers: connections are spread over them."""
    ends = time.monotonic() + PATIENCE
    for caller in callers * 20:
        while server.ask("GET", "/v2", headers={"authorization": caller.token}).status != 200:
            assert time.monotonic() < ends


def test_the_table_here_is_that_of_the_gateway() -> None:
    assert DECLARED.keys() == {path.decode() for path in every_method()}


def test_every_method_and_caller_ends_as_it_is_declared_here(guarded: Guarded, published: Path, tmp_path: Path) -> None:
    with serving(guarded, published, tmp_path / "log") as server:
        assert differences(server, guarded.callers) == []
        with grpc.insecure_channel(place(server)) as channel:
            ends = {
                (path, name): outcome(channel, path, b"", caller)
                for path in NOT_THERE
                for name, caller in guarded.callers.items()
            }
            listed = reflection_pb2.ServerReflectionResponse.FromString(
                next(
                    channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(
                        iter([reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()]),
                        metadata=(("authorization", guarded.callers["key for docs"].token),),
                        timeout=PATIENCE,
                    )
                )
            )
    assert set(ends.values()) == {"UNIMPLEMENTED"}
    services = {each.name for each in listed.list_services_response.service}
    assert services == {path.split("/")[1] for path in DECLARED}


def test_a_scope_that_is_declared_wrongly_is_found(guarded: Guarded, published: Path, tmp_path: Path) -> None:
    wrongly = ("-P", misdeclared.__file__, f"/{V2}/ModelConfig", "predict")
    with serving(guarded, published, tmp_path / "log", wrongly) as server:
        found = differences(server, guarded.callers)
    assert {(path, name) for path, name, *_ in found} == {
        (f"/{V2}/ModelConfig", caller)
        for caller in ("key for predict", "token for predict", "token in scp", "key for metadata", "token for metadata")
    }
