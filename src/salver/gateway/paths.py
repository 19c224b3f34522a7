"""From method and path to what is asked: pure, and the same for every connection."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from salver.errors import SalverError, error
from salver.frames import Form

PREDICT = "predict"
NATIVE = Form("native")


class Target(NamedTuple):
    """What a request asks for.

    `kind` is `predict` or the name of a page. `form` says how the body is read, and its protocol shapes answer and
    errors. `number` pins a release, None means the live one.
    """

    kind: str
    form: Form = NATIVE
    model: str = ""
    number: int | None = None
    head: bool = False


class Path(NamedTuple):
    """One pattern of paths, its method, and what it asks for."""

    pattern: re.Pattern[str]
    method: str
    kind: str
    protocol: str


Paths = tuple[Path, ...]
_M = r"(?P<model>[^/:]+)"
_N = r"(?P<number>\d{1,12})"


def _path(pattern: str, method: str, kind: str, protocol: str = "native") -> Path:
    return Path(re.compile(pattern), method, kind, protocol)


PUBLIC = (
    _path(rf"/models/{_M}/predict", "POST", PREDICT),
    _path(rf"/models/{_M}/releases/{_N}/predict", "POST", PREDICT),
    _path(rf"/v2/models/{_M}(/versions/{_N})?/infer", "POST", PREDICT, "v2"),
    _path(rf"/v1/models/{_M}(/versions/{_N})?:predict", "POST", PREDICT, "v1"),
    _path(r"/models/?", "GET", "models"),
    _path(rf"/models/{_M}", "GET", "model"),
    _path(r"/healthz/live|/v2/health/live", "GET", "live"),
    _path(r"/healthz/ready|/v2/health/ready", "GET", "ready"),
    _path(r"/v2/?", "GET", "v2-server", "v2"),
    _path(rf"/v2/models/{_M}(/versions/{_N})?", "GET", "v2-model", "v2"),
    _path(rf"/v2/models/{_M}(/versions/{_N})?/ready", "GET", "model-ready", "v2"),
    _path(r"/v1/models", "GET", "v1-models", "v1"),
    _path(rf"/v1/models/{_M}", "GET", "v1-model", "v1"),
    _path(r"/openapi\.json", "GET", "openapi"),
    _path(r"/docs/?", "GET", "docs"),
    _path(r"/docs/(?P<model>[A-Za-z0-9._-]+)", "GET", "asset"),
    _path(r"/", "GET", "home"),
)
ADMIN = (
    _path(r"/metrics", "GET", "metrics"),
    _path(r"/status", "GET", "status"),
    _path(r"/healthz/live", "GET", "live"),
    _path(r"/healthz/ready", "GET", "ready"),
)


def resolve(method: str, url: str, paths: Paths) -> Target | SalverError:
    """What `method url` asks for, or the error that answers it (404 with what exists, 405 with what is allowed)."""
    path, _, query = url.partition("?")
    path = unquote(path)
    protocol = "v2" if path.startswith("/v2") else "v1" if path.startswith("/v1") else "native"
    allowed = []
    for candidate in paths:
        match = candidate.pattern.fullmatch(path)
        if match is None:
            continue
        wanted = candidate.method
        if method != wanted and not (method == "HEAD" and wanted == "GET"):
            allowed.append(wanted)
            continue
        found = match.groupdict()
        number = found.get("number")
        options = dict(parse_qsl(query)) or None if candidate.kind == PREDICT else None
        return Target(
            candidate.kind,
            Form(candidate.protocol, options),
            found.get("model") or "",
            int(number) if number is not None else None,
            method == "HEAD",
        )
    if allowed:
        hint = f"use {' or '.join(sorted(set(allowed)))}"
        return error("method-not-allowed", f"{method} is not allowed on {path}", hint=hint)
    return error("no-such-path", f"nothing is served at {path}", hint=_near(protocol))


def _near(protocol: str) -> str:
    if protocol == "v2":
        return "POST /v2/models/{model}/infer predicts, GET /v2/models/{model} describes"
    if protocol == "v1":
        return "POST /v1/models/{model}:predict predicts"
    return "POST /models/{model}/predict predicts, GET /models lists, GET /docs shows the API"
