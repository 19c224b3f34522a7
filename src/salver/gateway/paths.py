"""From method and path to what is asked: pure, and the same for every connection."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from salver.access.keys import SCOPES
from salver.errors import SalverError, error
from salver.frames import Form

PREDICT = "predict"
NATIVE = Form("native")
OPTIONS = ("strict",)
"""What a query may say of how a body is read."""


class Target(NamedTuple):
    """What a request asks for.

    `kind` is `predict` or the name of a page. `form` says how the body is read, and its protocol shapes answer and
    errors. `number` pins a release, None means the live one. `scope` is what the caller needs, `models` what it may
    see, None for all.
    """

    kind: str
    form: Form = NATIVE
    model: str = ""
    number: int | None = None
    head: bool = False
    scope: str = ""
    models: frozenset[str] | None = None

    def shows(self, model: str) -> bool:
        """Whether the caller may see a model."""
        return self.models is None or model in self.models


class Path(NamedTuple):
    """One pattern of paths, its method, what it asks for, and the scope that a caller needs for it.

    `dialect` is told to the protocol, '' for its own.
    """

    pattern: re.Pattern[str]
    method: str
    kind: str
    scope: str
    protocol: str
    dialect: str = ""


Paths = tuple[Path, ...]
_M = r"(?P<model>[^/:]+)"
_N = r"(?P<number>[0-9]{1,12})"
_WHICH = rf"(/versions/{_N}|/labels/(live|stable))?"
"""A release as TF Serving's clients name one; both labels are the live one."""


def _path(pattern: str, method: str, kind: str, scope: str, protocol: str = "native") -> Path:
    return Path(re.compile(pattern), method, kind, scope, protocol)


PUBLIC = (
    _path(rf"/models/{_M}/predict", "POST", PREDICT, "predict"),
    _path(rf"/models/{_M}/releases/{_N}/predict", "POST", PREDICT, "predict"),
    _path(rf"/v2/models/{_M}(/versions/{_N})?/infer", "POST", PREDICT, "predict", "v2"),
    _path(rf"/v1/models/{_M}{_WHICH}:predict", "POST", PREDICT, "predict", "v1"),
    _path(r"/invocations", "POST", PREDICT, "predict", "invocations"),
    _path(rf"/predictions/{_M}(/{_N})?", "POST", PREDICT, "predict", "torchserve"),
    _path(rf"/predictions/{_M}(/{_N})?", "PUT", PREDICT, "predict", "torchserve"),  # `curl -T`
    _path(r"/models/?", "GET", "models", "metadata"),
    _path(rf"/models/{_M}", "GET", "model", "metadata"),
    _path(r"/healthz/live|/v2/health/live", "GET", "live", "health"),
    _path(r"/healthz/ready|/v2/health/ready", "GET", "ready", "health"),
    _path(r"/v2/?", "GET", "v2-server", "metadata", "v2"),
    _path(rf"/v2/models/{_M}(/versions/{_N})?", "GET", "v2-model", "metadata", "v2"),
    _path(rf"/v2/models/{_M}(/versions/{_N})?/ready", "GET", "model-ready", "metadata", "v2"),
    _path(r"/v2/models", "GET", "v2-models", "metadata", "v2"),
    _path(rf"/v2/models/{_M}(/versions/{_N})?/config", "GET", "v2-config", "metadata", "v2"),
    _path(r"/v2/repository/index", "POST", "v2-index", "metadata", "v2"),
    _path(rf"/v2/repository/models/{_M}/load", "POST", "v2-load", "metadata", "v2"),
    _path(rf"/v2/repository/models/{_M}/unload", "POST", "v2-load", "metadata", "v2"),
    _path(r"/v1/models", "GET", "v1-models", "metadata", "v1"),
    _path(rf"/v1/models/{_M}{_WHICH}", "GET", "v1-model", "metadata", "v1"),
    _path(rf"/v1/models/{_M}{_WHICH}/metadata", "GET", "v1-metadata", "metadata", "v1"),
    _path(r"/ping", "GET", "ping", "health", "invocations"),
    _path(r"/health", "GET", "mlflow-health", "health", "invocations"),
    _path(r"/version", "GET", "mlflow-version", "health", "invocations"),
    _path(r"/execution-parameters", "GET", "execution-parameters", "health", "invocations"),
    _path(r"/openapi\.json", "GET", "openapi", "docs"),
    _path(r"/docs/?", "GET", "docs", "docs"),
    _path(r"/docs/(?P<model>[A-Za-z0-9._-]+)", "GET", "asset", "docs"),
    _path(r"/", "GET", "home", "docs"),
)
_BY_DIALECT = {"v1": "tfserving", "invocations": "mlflow"}
"""The protocols whose bodies or statuses mean something else in a dialect, and which."""
_ENDPOINTS = {"v2": "v2", "v1": "v1", "invocations": "invocations", "predictions": "torchserve"}
ADMIN = (
    _path(r"/metrics", "GET", "metrics", "metrics"),
    _path(r"/status", "GET", "status", "status"),
    _path(r"/healthz/live", "GET", "live", "health"),
    _path(r"/healthz/ready", "GET", "ready", "health"),
)


def public_paths(dialect: str) -> Paths:
    """The paths of the public port, for a server that speaks this dialect where peers differ."""
    return tuple(
        path._replace(dialect=dialect) if dialect and _BY_DIALECT.get(path.protocol) == dialect else path
        for path in PUBLIC
    )


def check_scopes(scopes: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError for a path whose scope is none, of paths and their scopes: such a table is not served."""
    for path, scope in scopes:
        if scope not in SCOPES:
            raise ValueError(f"{path} has no scope that exists: {scope!r}")


_ABSOLUTE = re.compile(r"https?://[^/?#]*(?=/)", re.IGNORECASE)
"""What stands before the path where a client asks as it would ask a proxy; RFC 9112 has servers take it."""


def resolve(method: str, url: str, paths: Paths) -> Target | SalverError:
    """What `method url` asks for, or the error that answers it (404 with what exists, 405 with what is allowed)."""
    path, _, query = _ABSOLUTE.sub("", url).partition("?")
    path = unquote(path)
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
        options = {name: value for name, value in parse_qsl(query) if name in OPTIONS}
        if candidate.dialect:
            options["dialect"] = candidate.dialect
        return Target(
            candidate.kind,
            Form(candidate.protocol, (options or None) if candidate.kind == PREDICT else None),
            found.get("model") or "",
            int(number) if number is not None else None,
            method == "HEAD",
            candidate.scope,
        )
    if allowed:
        refusal = error(
            "method-not-allowed",
            f"{method} is not allowed on {path}",
            hint=f"use {' or '.join(sorted(set(allowed)))}",
        )
        refusal.allow = ", ".join(sorted({*allowed, *(["HEAD"] if "GET" in allowed else [])}))
        return refusal
    return error("no-such-path", f"nothing is served at {path}", hint=_near(endpoint_of(path)))


def endpoint_of(path: str) -> str:
    """The protocol that shapes the error of a path, also of one where nothing is served."""
    first = path[1:].partition("/")[0].partition("?")[0]
    return _ENDPOINTS.get(first, "native")


def _near(protocol: str) -> str:
    if protocol == "v2":
        return "POST /v2/models/{model}/infer predicts, GET /v2/models/{model} describes"
    if protocol == "v1":
        return "POST /v1/models/{model}:predict predicts"
    return "POST /models/{model}/predict predicts, GET /models lists, GET /docs shows the API"
