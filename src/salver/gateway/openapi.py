"""The OpenAPI 3.0 document of what is live: one path per model, with its real schema and an example that works."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from salver import __version__
from salver.gateway.table import Loaded
from salver.protocols import schema
from salver.protocols.media import ENDPOINTS, FORMS

PROBLEM = {
    "type": "object",
    "required": ["title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable, kebab-case."},
        "detail": {"type": "string"},
        "hint": {"type": "string"},
        "details": {
            "type": "array",
            "description": "Every problem, where several are known.",
            "items": {"type": "string"},
        },
    },
}
ROW_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "detail"],
            "properties": {"code": {"type": "string"}, "detail": {"type": "string"}},
        }
    },
}
STATUSES = {
    "400": "The body can't be read.",
    "404": "No such model, or the release is not loaded.",
    "406": "The answer can't have the type that Accept asks for.",
    "408": "The head or the body took too long to come.",
    "413": "The body, or what it holds, is over a limit.",
    "414": "The path and query are over a limit.",
    "415": "The body has a type that is not read, or it is not UTF-8.",
    "422": "The row does not fit the signature.",
    "431": "The headers are over a limit.",
    "500": "The model failed for this row.",
    "501": "The release does not bring what this needs: Arrow needs pyarrow.",
    "503": "Too many requests wait, or the model is not ready: try again after Retry-After.",
    "504": "No answer was ready before the deadline.",
}
KEYED = {
    "401": "The request holds no credential that is known.",
    "403": "The credential does not allow this.",
    "429": "Over the quota of this credential: try again after Retry-After.",
}
"""What callers are told besides, where they need a token."""
TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token of `salver key add`, or of your identity provider.",
}
TEXT = ("text/csv", "application/jsonlines")
OTHERS = {
    kind: {"schema": {"type": "string"} if kind in TEXT else {"type": "string", "format": "binary"}}
    for kind in (FORMS[form][0] for form in ENDPOINTS["native"])
    if kind != "application/json"
}
"""The media types besides JSON, of bodies and of answers."""
PARAMETERS = {
    "timeout": {
        "name": "x-request-timeout-ms",
        "in": "header",
        "description": "Deadline of this request in milliseconds.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 60000},
    },
    "request-id": {
        "name": "x-request-id",
        "in": "header",
        "description": "Echoed in the answer.",
        "schema": {"type": "string", "maxLength": 128},
    },
    "strict": {
        "name": "strict",
        "in": "query",
        "description": "`true`: one bad row fails the whole list with 422.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
}


def document(live: Mapping[str, Loaded], *, keyed: Collection[str] = ()) -> dict[str, Any]:
    """The document for these live releases, by model name; `keyed` are the scopes for which callers need a token."""
    schemas: dict[str, Any] = {"Problem": PROBLEM, "RowError": ROW_ERROR}
    paths: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {}
    for model, loaded in sorted(live.items()):
        example = schema.example_row(loaded.signature)  # the page to try fills in the one of the schema
        schemas[f"{model}.Input"] = schema.input_schema(loaded.signature) | {"example": example}
        schemas[f"{model}.Output"] = schema.output_schema(loaded.signature)
        paths[f"/models/{model}/predict"] = {"post": ("predict", _predict(model, loaded))}
        paths[f"/models/{model}"] = {"get": ("metadata", _page(f"Signature and live release of {model}", [model]))}
    paths["/models"] = {"get": ("metadata", _page("The models served here", ["server"]))}
    paths["/healthz/live"] = {"get": ("health", _page("Whether this server runs", ["server"]))}
    ready = _page("Whether every model is proven and can answer", ["server"], not_ready=True)
    paths["/healthz/ready"] = {"get": ("health", ready)}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Salver",
            "version": __version__,
            "description": "Every answer names its release (`x-salver-release`) and has a prediction id.",
        },
        "paths": {
            path: {
                verb: _with_token(operation) if scope in keyed else operation
                for verb, (scope, operation) in verbs.items()
            }
            for path, verbs in paths.items()
        },
        "components": {
            **({"securitySchemes": {"token": TOKEN}} if keyed else {}),
            "schemas": schemas,
            "parameters": PARAMETERS,
            "headers": {
                "Release": {"description": "The release that answered.", "schema": {"type": "string"}},
                "PredictionId": {"description": "UUIDv7.", "schema": {"type": "string"}},
            },
        },
    }


def _predict(model: str, loaded: Loaded) -> dict[str, Any]:
    row, answer = _ref(f"{model}.Input"), _ref(f"{model}.Output")
    example = schema.example_row(loaded.signature)
    ok = {
        "description": "One output object for one row; a list of the same length for a list.",
        "headers": {
            "x-salver-release": {"$ref": "#/components/headers/Release"},
            "x-salver-prediction-id": {"$ref": "#/components/headers/PredictionId"},
        },
        "content": {
            **_json({"oneOf": [answer, {"type": "array", "items": {"anyOf": [answer, _ref("RowError")]}}]}),
            **OTHERS,
        },
    }
    return {
        "tags": [model],
        "summary": f"Predict with {model} (live: {loaded.release})",
        "operationId": f"predict-{model}",
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in PARAMETERS],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [row, {"type": "array", "items": row, "maxItems": 10000}]},
                    "examples": {
                        "row": {"summary": "One row", "value": example},
                        "rows": {"summary": "A list of rows", "value": [example, example]},
                    },
                }
            }
            | OTHERS,
        },
        "responses": {
            "200": ok,
            **_problems(STATUSES),
        },
    }


def _page(summary: str, tags: list[str], *, not_ready: bool = False) -> dict[str, Any]:
    responses = {"200": {"description": "OK", "content": _json({"type": "object"})}}
    if not_ready:
        responses["503"] = {"description": "Not ready", "content": _json({"type": "object"})}
    return {"tags": tags, "summary": summary, "responses": responses}


def _with_token(operation: dict[str, Any]) -> dict[str, Any]:
    return operation | {"security": [{"token": []}], "responses": operation["responses"] | _problems(KEYED)}


def _problems(statuses: Mapping[str, str]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {status: {"description": text, "content": content} for status, text in statuses.items()}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
