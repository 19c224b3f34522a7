"""The one file that knows which class plays which part."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from salver.access import file
from salver.access.terms import Terms, Tls, TokenTerms, check_terms, is_loopback, write_terms
from salver.access.tokens import library, read_jwks
from salver.access.usage import BLOCK_BYTES
from salver.errors import SalverError, error
from salver.gateway import tracing
from salver.gateway.access_log import STDOUT
from salver.gateway.listener import context
from salver.gateway.watch import Wanted
from salver.registry import Registry, ReleaseCache
from salver.release import Manifest
from salver.settings import ServeSettings, Settings
from salver.storage.folder import FolderStorage
from salver.supervisor.plan import Plan


class Opened(NamedTuple):
    """A release unpacked on this machine: its name, its verified folder, its manifest."""

    name: str
    folder: Path
    manifest: Manifest


def registry(settings: Settings) -> Registry:
    """The registry that the settings name."""
    return Registry(FolderStorage(Path(settings.registry)))


def cache(settings: Settings) -> ReleaseCache:
    """The verified copies of releases on this machine."""
    return ReleaseCache(Path(settings.cache))


def open_release(settings: Settings, reference: str) -> Opened:
    """Find a release and unpack it on this machine, every byte checked."""
    store = registry(settings)
    release = store.find(reference)
    folder = cache(settings).open(store, release)
    return Opened(release.name, folder, store.manifest(release))


def check_models(settings: Settings, models: tuple[str, ...]) -> None:
    """Refuse to serve a model that nobody has released; one whose registry can't be read must be in the cache."""
    store = registry(settings)
    for model in models:
        try:
            store.current(model)
        except SalverError as problem:
            if problem.code == "no-such-model" or cache(settings).recall(settings.registry, model) is None:
                raise


def terms(serve: ServeSettings) -> Terms:
    """What the settings ask of callers; raises `bad-settings` with everything that can't be meant."""
    names = [entry.partition("=") for entry in serve.tls_client_names]
    tokens = TokenTerms(
        serve.jwt_issuer, serve.jwt_audience, serve.jwt_keys, serve.jwt_algorithms, serve.jwt_models_claim
    )
    made = Terms(
        keys=serve.keys,
        tokens=tokens if tokens.issuer or tokens.audience or tokens.keys else None,
        open=serve.open_scopes,
        tls=Tls(serve.tls_cert, serve.tls_key, serve.tls_client_ca),
        admin_tls=Tls(serve.admin_tls_cert, serve.admin_tls_key, serve.admin_tls_client_ca),
        client_names={name: tuple(scopes.split("+")) for name, _, scopes in names},
        cors=tuple(origin.rstrip("/").lower() for origin in serve.cors_origins),
    )
    check_terms(made)
    local = not made.authenticates and is_loopback(serve.host)
    checked = (local or serve.allowed_hosts) and "*" not in serve.allowed_hosts
    return msgspec.structs.replace(made, hosts=(serve.host, *serve.allowed_hosts) if checked else None)


def check_access(settings: Settings) -> None:
    """Read every file that access needs, so that a server that could not let anybody in does not start."""
    asked = terms(settings.serve)
    if asked.keys:
        file.load(Path(asked.keys))
    for tls in (asked.tls, asked.admin_tls):
        context(tls)
    if asked.tokens is not None:
        library()
        if "://" not in asked.tokens.keys:
            text = file.read(Path(asked.tokens.keys), file.LARGEST)
            read_jwks(text.decode("utf-8", "replace"), asked.tokens.algorithms)


def check_watch(settings: Settings) -> None:
    """Refuse an access log that can't be opened and traces that can't be sent, before anything starts."""
    serve = settings.serve
    if serve.access_log not in ("", STDOUT) and not Path(serve.access_log).is_fifo():
        try:
            with Path(serve.access_log).open("ab"):
                pass
        except OSError as problem:
            raise error("bad-settings", f"access_log: {serve.access_log}: {problem.strerror}") from None
    if not serve.traces:
        return
    if not serve.traces.startswith(("http://", "https://")):
        hint = "it looks like http://127.0.0.1:4318"
        raise error("bad-settings", f"traces: {serve.traces} is no http address", hint=hint)
    tracing.require()


def plan(settings: Settings, models: tuple[str, ...]) -> Plan:
    """What a server with these settings does; `models` are those to serve, none for all."""
    serve = settings.serve
    asked = terms(serve)
    return Plan(
        registry=settings.registry,
        cache=settings.cache,
        models=models,
        host=serve.host,
        port=serve.port,
        grpc_port=serve.grpc_port,
        admin_host=serve.admin_host,
        admin_port=serve.admin_port,
        gateways=serve.gateways,
        workers=serve.workers,
        drain_delay=serve.drain_delay,
        drain_timeout=serve.drain_timeout,
        load_timeout=serve.load_timeout,
        any_environment=serve.any_environment,
        json_logs=serve.json_logs,
        environment=serve.environment,
        limits=msgspec.json.encode(settings.limits).decode(),
        access=write_terms(asked),
        dialect=serve.dialect,
        tls=bool(asked.tls),
        admin_tls=bool(asked.admin_tls),
        usage_bytes=BLOCK_BYTES if asked.authenticates else 0,
        watch=msgspec.json.encode(Wanted(serve.access_log, serve.traces, serve.trace_sample)).decode(),
    )
