"""The one file that knows which class plays which part."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from salver.errors import SalverError
from salver.registry import Registry, ReleaseCache
from salver.release import Manifest
from salver.settings import Settings
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


def plan(settings: Settings, models: tuple[str, ...]) -> Plan:
    """What a server with these settings does; `models` are those to serve, none for all."""
    serve = settings.serve
    return Plan(
        registry=settings.registry,
        cache=settings.cache,
        models=models,
        host=serve.host,
        port=serve.port,
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
    )
