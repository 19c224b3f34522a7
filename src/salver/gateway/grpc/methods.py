"""The calls of inference.GRPCInferenceService besides predictions, answered from what is served now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from salver.access.decide import hidden
from salver.access.principal import Principal
from salver.errors import SalverError, error
from salver.gateway.grpc.calls import Infer, page
from salver.gateway.grpc.descriptors import DATA_TYPES
from salver.gateway.grpc.service import Method, Service
from salver.gateway.grpc.streaming import StreamInfer
from salver.gateway.serving import Entry
from salver.protocols import protobuf
from salver.protocols.protobuf import block, integer, packed, string
from salver.protocols.v2.metadata import model_config, model_metadata, repository_index, server_metadata

SERVICE = "inference.GRPCInferenceService"
_INDEX = ("name", "version", "state", "reason")
_Who = Principal | None


def methods() -> dict[bytes, Method]:
    """Every method by its path; each needs the scope that its like over HTTP does."""
    pages = {
        "ServerLive": ("health", lambda *_: integer(1, 1)),
        "ServerReady": ("health", lambda service, *_: integer(1, service.front.serving.ready)),
        "ModelReady": ("metadata", _model_ready),
        "ServerMetadata": ("metadata", _server),
        "ModelMetadata": ("metadata", _model_metadata),
        "ModelConfig": ("metadata", _model_config),
        "RepositoryIndex": ("metadata", _index),
        "RepositoryModelLoad": ("metadata", _not_here),
        "RepositoryModelUnload": ("metadata", _not_here),
    }
    found = {name: Method(scope, page(answer)) for name, (scope, answer) in pages.items()}
    found["ModelInfer"] = Method("predict", Infer)
    found["ModelStreamInfer"] = Method("predict", StreamInfer)
    return {f"/{SERVICE}/{name}".encode(): method for name, method in found.items()}


def _entry(service: Service, request: bytes, who: _Who) -> Entry:
    """The release that a message with a name and a version means; raises the error where there is none."""
    found = dict(protobuf.fields(request))
    name, version = (protobuf.text(found.get(key, memoryview(b""))) for key in (10, 18))
    if who is not None and who.models is not None and name not in who.models:
        raise hidden(name, who)
    entry = service.find(name, version)
    if isinstance(entry, SalverError):
        raise entry
    return entry


def _numbers(service: Service, model: str) -> list[int]:
    return sorted(number for name, number in service.front.serving.entries if name == model)


def _model_ready(service: Service, request: bytes, who: _Who) -> bytes:
    try:
        return integer(1, _entry(service, request, who).dispatcher.ready > 0)
    except SalverError as problem:
        if problem.code == "not-ready":
            return b""
        raise


def _model_metadata(service: Service, request: bytes, who: _Who) -> bytes:
    loaded = _entry(service, request, who).loaded
    said = model_metadata(loaded.model, _numbers(service, loaded.model), loaded.framework, loaded.signature)
    return b"".join(
        [
            string(1, said["name"]),
            *(string(2, version) for version in said["versions"]),
            string(3, said["platform"]),
            *(block(4, _tensor(tensor)) for tensor in said["inputs"]),
            *(block(5, _tensor(tensor)) for tensor in said["outputs"]),
        ]
    )


def _model_config(service: Service, request: bytes, who: _Who) -> bytes:
    loaded = _entry(service, request, who).loaded
    numbers = _numbers(service, loaded.model)
    said = model_config(loaded.model, numbers, loaded.framework, loaded.max_batch, loaded.signature)
    parts = [
        string(1, said["name"]),
        string(2, said["platform"]),
        block(3, block(3, packed(1, numbers))),
        integer(4, said["max_batch_size"]),
        *(block(5, _configured(each, 4)) for each in said["input"]),
        *(block(6, _configured(each, 3)) for each in said["output"]),
        string(17, said["backend"]),
    ]
    return block(1, b"".join(parts))


def _index(service: Service, request: bytes, who: _Who) -> bytes:
    only_ready = dict(protobuf.fields(request)).get(16, 0)
    releases = [
        (model, number, entry.dispatcher.ready > 0)
        for (model, number), entry in sorted(service.front.serving.entries.items())
        if who is None or who.models is None or model in who.models
    ]
    return b"".join(
        block(1, b"".join(string(number, said[key]) for number, key in enumerate(_INDEX, 1)))
        for said in repository_index(release for release in releases if release[2] or not only_ready)
    )


def _server(service: Service, request: bytes, who: _Who) -> bytes:
    del service, request, who
    said = server_metadata()
    extensions: Iterable[str] = said["extensions"]
    return string(1, said["name"]) + string(2, said["version"]) + b"".join(string(3, each) for each in extensions)


def _tensor(said: dict[str, Any]) -> bytes:
    told = string(1, said["name"]) + string(2, said["datatype"]) + packed(3, said["shape"])
    return told + b"".join(block(4, string(1, name) + block(2, integer(1, 1))) for name in said.get("parameters", ()))


def _configured(said: dict[str, Any], dims: int) -> bytes:
    number = DATA_TYPES.index(said["data_type"].removeprefix("TYPE_"))
    told = string(1, said["name"]) + integer(2, number) + packed(dims, said["dims"])
    return told + integer(8, said.get("optional", False))


def _not_here(service: Service, request: bytes, who: _Who) -> bytes:
    del service, request, who
    raise error(
        "not-implemented",
        "what is served is not changed through this port",
        hint="`salver promote` and `salver rollback` change it",
    )
