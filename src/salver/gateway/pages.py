"""Everything a gateway answers besides predictions: models, health, metadata, API document and page, metrics."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from salver import __version__, metrics
from salver.errors import SalverError, error
from salver.gateway import exposition, openapi
from salver.gateway.answers import error_body, page
from salver.gateway.front import Front
from salver.gateway.paths import Target
from salver.gateway.request import Request
from salver.gateway.serving import Entry, Serving
from salver.limits import Limits
from salver.protocols import v1_metadata
from salver.protocols.v2.metadata import model_config, model_metadata, repository_index, server_metadata
from salver.signature import Field, Tensor

JSON = "application/json"
ASSETS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
MOST_KEPT = 64
TRANSFORMED = 100 << 20
"""Bytes that SageMaker's batch transform may have under way at once."""
VALUE = 8
"""Bytes of a value, about, in the text of a row."""
DOCS = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Salver API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="docs/swagger-ui.css"><link rel="icon" href="docs/favicon-32x32.png"></head>
<body><div id="swagger-ui"></div><script src="docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, tryItOutEnabled: true,
  validatorUrl: null});</script></body></html>
"""


class Pages:
    """Answers pages from what the gateway serves now."""

    def __init__(
        self,
        serving: Serving,
        blocks: Sequence[metrics.Block],
        dialect: str = "",
        keyed: Collection[str] = (),
        limits: Limits | None = None,
    ) -> None:
        self._dialect = dialect
        self._keyed = keyed  # the scopes for which callers need a token
        self._serving = serving
        self._limits = limits or Limits()
        self._blocks = blocks
        self._assets = _asset_folder()
        self._pages: dict[tuple[object, bool, bool], bytes] = {}
        self._of: object = None  # what is live in the pages that are kept
        self._answers: dict[str, Callable[[Target], tuple[int, bytes, str]]] = {
            "models": self._models,
            "model": self._model,
            "live": lambda _: _json(200, {"live": True}),
            "ready": self._ready,
            "v2-server": lambda _: _json(200, server_metadata()),
            "v2-model": self._v2_model,
            "v2-models": self._v2_models,
            "v2-config": self._v2_config,
            "v2-load": _v2_load,
            "model-ready": self._model_ready,
            "v1-models": lambda t: _json(200, {"models": sorted(filter(t.shows, serving.table.routed))}),
            "v1-model": self._v1_model,
            "v1-metadata": self._v1_metadata,
            "ping": self._ping,
            "mlflow-health": self._mlflow,
            "mlflow-version": self._mlflow,
            "execution-parameters": self._transforms,
            "openapi": self._openapi,
            "docs": lambda _: (200, DOCS, "text/html; charset=utf-8"),
            "asset": self._asset,
            "home": self._home,
            "metrics": self._metrics,
            "status": self._status,
            "preflight": lambda _: (200, b"", "text/plain; charset=utf-8"),
        }

    def answer(self, target: Target, front: Front, request: Request) -> bytes:
        """The whole answer to a request for a page."""
        if target.kind == "openapi" or (target.kind == "asset" and target.model in ASSETS):
            return self._kept(target, close=front.closing)
        if target.kind == "v2-index":
            status, body, kind = self._v2_index(target, bytes(request.body))
        else:
            status, body, kind = self._answers[target.kind](target)
        return page(status, body, kind, close=front.closing, head=target.head)

    def _kept(self, target: Target, *, close: bool) -> bytes:
        """A page that is made once for as long as the same releases are live: many slow readers hold one copy."""
        live = self._serving.live
        if self._of is not live or len(self._pages) >= MOST_KEPT:
            self._of, self._pages = live, {}
        key = (target.model or target.models, target.head, close)
        known = self._pages.get(key)
        if known is None:
            status, body, kind = self._answers[target.kind](target)
            known = self._pages[key] = page(status, body, kind, close=close, head=target.head)
        return known

    def _entry(self, target: Target) -> Entry | SalverError:
        return self._serving.find(target.model, target.number)

    def _models(self, target: Target) -> tuple[int, bytes, str]:
        serving = self._serving
        models = []
        for name in sorted(filter(target.shows, serving.table.routed)):
            live = serving.live.get(name)
            models.append({"name": name, "live": live and live.loaded.release, "ready": serving.model_ready(name)})
        return _json(200, {"models": models})

    def _model(self, target: Target) -> tuple[int, bytes, str]:
        entry = self._entry(target)
        if not isinstance(entry, Entry):
            return _problem(entry, target)
        loaded = entry.loaded
        numbers = sorted(number for name, number in self._serving.entries if name == target.model)
        return _json(
            200,
            {
                "name": target.model,
                "ready": entry.dispatcher.ready > 0,
                "live": {"release": loaded.release, "number": loaded.number, "id": loaded.id},
                "framework": loaded.framework,
                "signature": loaded.signature,
                "loaded": [f"{target.model}@{number}" for number in numbers],
            },
        )

    def _ready(self, target: Target) -> tuple[int, bytes, str]:
        ready = self._serving.ready
        routed = filter(target.shows, self._serving.table.routed)
        waiting = sorted(name for name in routed if not self._serving.model_ready(name))
        if not self._serving.opened:
            waiting.append("the gRPC port")
        body: dict[str, Any] = {"ready": ready}
        if self._serving.draining:
            body["draining"] = True
        if waiting:
            body["waiting_for"] = waiting
        return _json(200 if ready else 503, body)

    def _v2_model(self, target: Target) -> tuple[int, bytes, str]:
        entry = self._entry(target)
        if not isinstance(entry, Entry):
            return _problem(entry, target)
        loaded = entry.loaded
        numbers = sorted(number for name, number in self._serving.entries if name == target.model)
        return _json(200, model_metadata(loaded.model, numbers, loaded.framework, loaded.signature))

    def _v2_models(self, target: Target) -> tuple[int, bytes, str]:
        return _json(200, {"models": sorted(filter(target.shows, self._serving.table.routed))})

    def _v2_config(self, target: Target) -> tuple[int, bytes, str]:
        entry = self._entry(target)
        if not isinstance(entry, Entry):
            return _problem(entry, target)
        loaded = entry.loaded
        numbers = sorted(number for name, number in self._serving.entries if name == target.model)
        return _json(200, model_config(loaded.model, numbers, loaded.framework, loaded.max_batch, loaded.signature))

    def _v2_index(self, target: Target, body: bytes) -> tuple[int, bytes, str]:
        try:
            asked = msgspec.json.decode(body, type=_IndexAsked) if body else _IndexAsked()
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return _problem(error("bad-json", 'the body is not JSON such as {} or {"ready": true}'), target)
        found = sorted(
            (model, number, entry.dispatcher.ready > 0)
            for (model, number), entry in self._serving.entries.items()
            if target.shows(model)
        )
        return _json(200, repository_index(release for release in found if release[2] or not asked.ready))

    def _model_ready(self, target: Target) -> tuple[int, bytes, str]:
        entry = self._entry(target)
        if not isinstance(entry, Entry):
            return _problem(entry, target)
        ready = entry.dispatcher.ready > 0
        return _json(200 if ready else 503, {"name": target.model, "ready": ready})

    def _v1_model(self, target: Target) -> tuple[int, bytes, str]:
        if self._dialect != "tfserving":
            return self._model_ready(target)
        entry = self._entry(target)
        if not isinstance(entry, Entry):
            return _problem(entry, target)
        return _json(200, v1_metadata.model_status(entry.loaded.number, ready=entry.dispatcher.ready > 0))

    def _v1_metadata(self, target: Target) -> tuple[int, bytes, str]:
        entry = self._entry(target)
        if not isinstance(entry, Entry):
            return _problem(entry, target)
        loaded = entry.loaded
        return _json(200, v1_metadata.model_metadata(loaded.model, loaded.number, loaded.signature))

    def _ping(self, target: Target) -> tuple[int, bytes, str]:
        del target
        if self._dialect == "mlflow":
            return (200 if self._serving.ready else 404), b"\n", JSON
        return (200 if self._serving.ready else 503), b"", "text/plain; charset=utf-8"

    def _transforms(self, target: Target) -> tuple[int, bytes, str]:
        """What a batch transform is to use where its job does not say: one request per worker, and bodies that hold
        no more rows than a request may."""
        del target
        limits, live = self._limits, [entry.loaded for entry in self._serving.live.values()]
        workers = max((len(loaded.workers) for loaded in live), default=1) or 1
        row = VALUE * max((sum(map(_values, loaded.signature.inputs)) for loaded in live), default=1)
        payload = min(limits.body, limits.rows * row, TRANSFORMED // workers) >> 20
        facts = {"MaxConcurrentTransforms": workers, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": max(1, payload)}
        return _json(200, facts)

    def _mlflow(self, target: Target) -> tuple[int, bytes, str]:
        if self._dialect != "mlflow":
            return _problem(error("no-such-path", "that path is MLflow's", hint="serve with --dialect mlflow"), target)
        if target.kind == "mlflow-version":
            return 200, __version__.encode(), "text/plain; charset=utf-8"
        return self._ping(target)

    def _openapi(self, target: Target) -> tuple[int, bytes, str]:
        live = {name: entry.loaded for name, entry in self._serving.live.items() if target.shows(name)}
        return _json(200, openapi.document(live, keyed=self._keyed))

    def _asset(self, target: Target) -> tuple[int, bytes, str]:
        kind = ASSETS.get(target.model)
        if kind is None or self._assets is None:
            return 404, b"not found\n", "text/plain; charset=utf-8"
        return 200, (self._assets / target.model).read_bytes(), kind

    def _home(self, target: Target) -> tuple[int, bytes, str]:
        del target
        return _json(200, {"service": "salver", "models": "/models", "docs": "/docs", "openapi": "/openapi.json"})

    def _metrics(self, target: Target) -> tuple[int, bytes, str]:
        del target
        for entry in self._serving.entries.values():
            entry.tally.set("salver_waiting", float(entry.dispatcher.open_requests))
        body = exposition.render(self._blocks, self._serving.table.slots)
        return 200, body, "text/plain; version=0.0.4; charset=utf-8"

    def _status(self, target: Target) -> tuple[int, bytes, str]:
        del target
        serving = self._serving
        releases = [
            {
                "release": entry.loaded.release,
                "workers": len(entry.loaded.workers),
                "connected": entry.dispatcher.ready,
                "open_requests": entry.dispatcher.open_requests,
                "dropped_answers": entry.dispatcher.batcher.dropped,
            }
            for entry in serving.entries.values()
        ]
        return _json(
            200,
            {
                "pid": os.getpid(),
                "table": serving.table.version,
                "live": {name: entry.loaded.number for name, entry in serving.live.items()},
                "ready": serving.ready,
                "draining": serving.draining,
                "releases": releases,
            },
        )


def _values(field: Field) -> int:
    """How many values of an input a row holds, one along a free dimension."""
    return math.prod(map(abs, field.row_shape)) if isinstance(field, Tensor) else 1


class _IndexAsked(msgspec.Struct):
    """What may be asked of the repository index: only the releases that are ready."""

    ready: bool = False


def _v2_load(target: Target) -> tuple[int, bytes, str]:
    problem = error(
        "not-implemented",
        f"{target.model} can't be loaded or unloaded here: this port changes nothing",
        hint=f"salver promote {target.model} changes what is served",
    )
    return _problem(problem, target)


def _json(status: int, value: Any) -> tuple[int, bytes, str]:
    return status, msgspec.json.encode(value), JSON


def _problem(problem: SalverError, target: Target) -> tuple[int, bytes, str]:
    return problem.meaning.http, *error_body(problem, target.form.protocol)


def _asset_folder() -> Path | None:
    """Where the packaged API page lies; found without importing the package."""
    spec = find_spec("swagger_ui_bundle")
    if spec is None or not spec.submodule_search_locations:
        return None
    vendor = Path(spec.submodule_search_locations[0]) / "vendor"
    return next(iter(sorted(vendor.glob("swagger-ui-*"))), None)
