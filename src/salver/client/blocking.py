"""The client for ordinary code: every call returns when the answer is there."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from ssl import SSLContext
from typing import Any, TypeVar

from salver.client.answer import Answer
from salver.client.exchange import (
    Description,
    Listed,
    Request,
    Response,
    Retry,
    Schema,
    Steps,
    list_models,
    pause_before_retry,
)
from salver.client.transport import as_error, as_response, load_httpx, settings

_Result = TypeVar("_Result")


class Client:
    """A connection to a Salver server: `Client("http://127.0.0.1:8080").model("churn").predict(row).prediction`.

    `key` is the token of an API key or of an identity provider; `tls` says whom to trust where that is not the
    system's authorities, and which certificate to show. `timeout` (seconds) bounds each call with all its retries.
    Close it, or use it in `with`; threads may share it.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        tls: SSLContext | None = None,
        timeout: float = 10.0,
        retry: Retry | None = None,
    ) -> None:
        httpx = load_httpx()
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._retry = retry or Retry()
        self._failure = httpx.HTTPError
        self._http = httpx.Client(**settings(self.url, key, tls))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def models(self) -> list[Listed]:
        """The models this server serves."""
        return self._carry(list_models())

    def model(self, name: str) -> RemoteModel:
        """One model (`churn`) or one loaded release of it (`churn@7`); nothing is sent yet."""
        return RemoteModel(self, name)

    def _carry(self, steps: Steps[_Result]) -> _Result:
        """Hold a conversation: send what it yields, give it the responses."""
        try:
            request = next(steps)
            while True:
                request = steps.send(self._send(request))
        except StopIteration as end:
            result: _Result = end.value
            return result

    def _send(self, request: Request) -> Response:
        ends = time.monotonic() + self.timeout
        attempt = 0
        while True:
            attempt += 1
            response = self._send_once(request, ends - time.monotonic())
            pause = pause_before_retry(response, attempt, self._retry, now=datetime.now(UTC), chance=random.random())
            if pause is None or time.monotonic() + pause >= ends:
                return response
            time.sleep(pause)

    def _send_once(self, request: Request, timeout: float) -> Response:
        method, path, headers, body = request
        try:
            return as_response(self._http.request(method, path, headers=headers, content=body, timeout=timeout))
        except self._failure as problem:
            raise as_error(problem, request, self.url) from None


class RemoteModel:
    """One model of a server; its signature is fetched at the first prediction."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self._client = client
        self._schema = Schema(name)

    def describe(self) -> Description:
        """What the server says of this model now: signature, live release, loaded releases."""
        return self._client._carry(self._schema.describe())

    def predict(self, rows: Any, *, strict: bool = False) -> Answer:
        """Predict a row (a mapping), a list of rows or a DataFrame.

        Rows that don't fit the signature raise `invalid-row` with every problem, and nothing is sent. A row the model
        fails on has its error in the answer; with `strict` it raises.
        """
        return self._client._carry(self._schema.predict(rows, timeout=self._client.timeout, strict=strict))
