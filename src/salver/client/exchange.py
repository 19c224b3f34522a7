"""What a client sends and what it makes of the answer: no socket, no clock, no chance in here."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Collection, Generator, Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from salver.client.answer import Answer, Row
from salver.client.rows import encode, problems_of
from salver.errors import CODES, SalverError, UserError, error
from salver.protocols import Codec, Subject
from salver.protocols.native import PROTOCOL
from salver.signature import Signature, is_blob

MODELS = "/models"
AGAIN = (429, 503)
BY_STATUS = {404: "no-such-path", 413: "too-large", 422: "invalid-row", 429: "overloaded", 503: "overloaded"}


class Retry(Struct, frozen=True):
    """How a refused request is sent again, only after 429 and 503: at most `attempts` times in all.

    A `Retry-After` of the server is honoured up to `longest` seconds; without one the pause doubles from `first`.
    """

    attempts: int = 4
    first: float = 0.1
    longest: float = 5.0


class Request(NamedTuple):
    """One HTTP request: method, path below the server's address, headers, body."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Response(NamedTuple):
    """One HTTP response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


_Result = TypeVar("_Result")
Steps = Generator[Request, Response, _Result]
"""A conversation with the server: yields requests, is sent their responses, returns what came of it."""


class Description(Struct, frozen=True):
    """What a server says of one model: its signature, and the release that gave it."""

    name: str
    signature: Signature
    live: dict[str, Any] | None = None
    loaded: list[Any] = []


class Listed(Struct, frozen=True):
    """One model in a server's list: its name, its live release and whether that can answer."""

    name: str
    live: str | None = None
    ready: bool = False


class _Listing(Struct, frozen=True):
    models: list[Listed]


def list_models() -> Steps[list[Listed]]:
    """Fetch the server's models."""
    response = yield Request("GET", MODELS, {})
    models: list[Listed] = _read(_checked(response), _Listing).models
    return models


class Schema:
    """One model as the server last described it; fetched when first needed, and again when rows no longer fit.

    The server describes the live release, so rows for a pinned one (`churn@7`) are checked by the server alone.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.codec: Codec | None = None
        self.blobs: frozenset[str] = frozenset()

    def describe(self) -> Steps[Description]:
        """Fetch the description."""
        response = yield Request("GET", _path(self.model.partition("@")[0]), {})
        description: Description = _read(_checked(response), Description)
        if "@" not in self.model:
            self.codec = PROTOCOL.codec(Subject(description.name, 0, "", description.signature))
            self.blobs = frozenset(field.name for field in description.signature.outputs if is_blob(field))
        return description

    def predict(self, rows: Any, *, timeout: float, strict: bool) -> Steps[Answer]:
        """Check `rows` against the signature, send them, read the answer."""
        if self.codec is None:
            if "@" not in self.model:
                yield from self._try_to_describe()
            request = ask_prediction(self, rows, timeout=timeout, strict=strict)
        else:
            try:
                request = ask_prediction(self, rows, timeout=timeout, strict=strict)
            except UserError as problem:
                if problem.code != "invalid-row":
                    raise
                yield from self.describe()
                request = ask_prediction(self, rows, timeout=timeout, strict=strict)
        return read_prediction((yield request), self.blobs)

    def _try_to_describe(self) -> Steps[None]:
        """Fetch the description; a key that may not read it leaves the check of rows to the server."""
        try:
            yield from self.describe()
        except UserError as problem:
            if problem.code != "forbidden":
                raise


def ask_prediction(schema: Schema, rows: Any, *, timeout: float, strict: bool = False) -> Request:
    """The request that predicts `rows`; raises `invalid-row` with everything the signature forbids."""
    body = encode(rows)
    problems = problems_of(body, schema.codec) if schema.codec else []
    if problems:
        raise error(
            "invalid-row",
            f"{len(problems)} problem{'s' * (len(problems) > 1)} in the rows for {schema.model}; nothing was sent",
            details=tuple(problems),
        )
    headers = {"content-type": "application/json", "x-request-timeout-ms": str(max(1, int(timeout * 1000)))}
    query = "?strict=true" if strict else ""
    return Request("POST", f"{_path(schema.model)}/predict{query}", headers, body)


def read_prediction(response: Response, blobs: Collection[str] = ()) -> Answer:
    """The answer to a prediction, or the server's error raised; the outputs `blobs` are bytes."""
    content = _read(_checked(response), Any)
    single = isinstance(content, dict)
    rows: list[Row | None] = []
    errors: dict[int, SalverError] = {}
    for index, row in enumerate([content] if single else content):
        failure = row.get("error") if isinstance(row, dict) and len(row) == 1 else None
        if isinstance(failure, dict):
            errors[index] = _told(str(failure.get("code", "")), str(failure.get("detail", "")), "", (), response.status)
        rows.append(None if index in errors else _with_bytes(row, blobs) if blobs else row)
    return Answer(
        rows,
        single=single,
        errors=errors,
        release=response.headers.get("x-salver-release", ""),
        prediction_id=response.headers.get("x-salver-prediction-id", ""),
    )


def _with_bytes(row: Row, blobs: Collection[str]) -> Row:
    """A row whose outputs of bytes are bytes instead of base64; one that another release gave may differ."""
    read = dict(row)
    for name in blobs:
        with suppress(ValueError):
            if isinstance(value := row.get(name), str):
                read[name] = b64decode(value, validate=True)
    return read


def pause_before_retry(response: Response, attempt: int, retry: Retry, *, now: datetime, chance: float) -> float | None:
    """Seconds to wait before sending the request again after its `attempt`-th try (from 1), or None to give up.

    `chance` (0 to 1) spreads clients that were refused together. A request whose worker died may have had an effect and
    is not repeated from here: the server has already retried it where that is safe.
    """
    if response.status not in AGAIN or attempt >= retry.attempts or _code(response) == "worker-died":
        return None
    asked = response.headers.get("retry-after")
    if asked is None:
        return min(float(retry.longest), retry.first * 2.0 ** (attempt - 1)) * (0.5 + chance / 2)
    pause = _seconds(asked, now)
    return pause if pause is not None and pause <= retry.longest else None


def _path(model: str) -> str:
    name, at, number = model.partition("@")
    return f"{MODELS}/{quote(name, safe='')}" + (f"/releases/{quote(number, safe='')}" if at else "")


def _seconds(asked: str, now: datetime) -> float | None:
    """A Retry-After header as seconds from now; it may also name a date."""
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(asked) - now).total_seconds())
    except (ValueError, TypeError):
        return None


class _Problem(Struct):
    code: str = ""
    title: str = ""
    detail: str = ""
    hint: str = ""
    details: list[str] = []


def _problem(response: Response) -> _Problem:
    try:
        return msgspec.json.decode(response.body, type=_Problem)
    except msgspec.DecodeError:
        return _Problem(detail=response.body[:200].decode("utf-8", "replace").strip())


def _code(response: Response) -> str:
    return _problem(response).code


def _checked(response: Response) -> Response:
    if response.status < 400:
        return response
    said = _problem(response)
    raise _told(said.code, said.detail or said.title, said.hint, tuple(said.details), response.status)


def _told(code: str, message: str, hint: str, details: tuple[str, ...], status: int) -> SalverError:
    """The server's error as ours; one whose code this version does not know is judged by its status."""
    if code not in CODES:
        message = f"{message or 'no reason given'} ({code or 'no code'}, HTTP {status})"
        code = BY_STATUS.get(status, "bad-request" if status < 500 else "internal")
    return error(code, message, hint=hint, details=details)


def _read(response: Response, kind: Any) -> Any:
    try:
        return msgspec.json.decode(response.body, type=kind)
    except msgspec.DecodeError as problem:
        raise error(
            "internal", f"the server's answer can't be read: {problem}", hint="is this address a Salver server?"
        ) from None
