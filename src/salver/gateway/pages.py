"""Everything a gateway answers besides predictions: models, health, metadata, API document and page, metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from salver import metrics
from salver.errors import SalverError
from salver.gateway import exposition, openapi
from salver.gateway.answers import error_body, page
from salver.gateway.front import Front
from salver.gateway.paths import Target
from salver.gateway.serving import Entry, Serving
from salver.protocols.metadata import model_metadata, server_metadata

JSON = "application/json"
ASSETS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
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

    def __init__(self, serving: Serving, blocks: Sequence[metrics.Block]) -> None:
        self._serving = serving
        self._blocks = blocks
        self._assets = _asset_folder()
        self._answers: dict[str, Callable[[Target], tuple[int, bytes, str]]] = {
            "models": self._models,
            "model": self._model,
            "live": lambda _: _json(200, {"live": True}),
            "ready": self._ready,
            "v2-server": lambda _: _json(200, server_metadata()),
            "v2-model": self._v2_model,
            "model-ready": self._model_ready,
            "v1-models": lambda _: _json(200, {"models": sorted(serving.table.routed)}),
            "v1-model": self._v1_model,
            "openapi": self._openapi,
            "docs": lambda _: (200, DOCS, "text/html; charset=utf-8"),
            "asset": self._asset,
            "home": self._home,
            "metrics": self._metrics,
            "status": self._status,
        }

    def answer(self, target: Target, front: Front) -> bytes:
        """The whole answer to a request for a page."""
        status, body, kind = self._answers[target.kind](target)
        return page(status, body, kind, close=front.closing, head=target.head)

    def _entry(self, target: Target) -> Entry | SalverError:
        return self._serving.find(target.model, target.number)

    def _models(self, target: Target) -> tuple[int, bytes, str]:
        del target
        serving = self._serving
        models = []
        for name in sorted(serving.table.routed):
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
        del target
        ready = self._serving.ready
        waiting = [name for name in self._serving.table.routed if not self._serving.model_ready(name)]
        body: dict[str, Any] = {"ready": ready}
        if self._serving.draining:
            body["draining"] = True
        if waiting:
            body["waiting_for"] = sorted(waiting)
        return _json(200 if ready else 503, body)

    def _v2_model(self, target: Target) -> tuple[int, bytes, str]:
        entry = self._entry(target)
        if not isinstance(entry, Entry):
            return _problem(entry, target)
        loaded = entry.loaded
        numbers = sorted(number for name, number in self._serving.entries if name == target.model)
        return _json(200, model_metadata(loaded.model, numbers, loaded.framework, loaded.signature))

    def _model_ready(self, target: Target) -> tuple[int, bytes, str]:
        entry = self._entry(target)
        if not isinstance(entry, Entry):
            return _problem(entry, target)
        ready = entry.dispatcher.ready > 0
        return _json(200 if ready else 503, {"name": target.model, "ready": ready})

    def _v1_model(self, target: Target) -> tuple[int, bytes, str]:
        return self._model_ready(target)

    def _openapi(self, target: Target) -> tuple[int, bytes, str]:
        del target
        live = {name: entry.loaded for name, entry in self._serving.live.items()}
        return _json(200, openapi.document(live))

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
                "live": serving.table.live,
                "ready": serving.ready,
                "draining": serving.draining,
                "releases": releases,
            },
        )


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
