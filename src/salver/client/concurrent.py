"""The client for asyncio: the same conversations, awaited."""

from __future__ import annotations

import asyncio
import random
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


class AsyncClient:
    """`Client` for asyncio: `await AsyncClient(url).model("churn").predict(row)`.

    `key` is the token of an API key or of an identity provider; `tls` says whom to trust where that is not the
    system's authorities, and which certificate to show. `timeout` (seconds) bounds each call with all its retries.
    Close it, or use it in `async with`; tasks may share it.
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
        self._http = httpx.AsyncClient(**settings(self.url, key, tls))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def models(self) -> list[Listed]:
        """The models this server serves."""
        return await self._carry(list_models())

    def model(self, name: str) -> AsyncRemoteModel:
        """One model (`churn`) or one loaded release of it (`churn@7`); nothing is sent yet."""
        return AsyncRemoteModel(self, name)

    async def _carry(self, steps: Steps[_Result]) -> _Result:
        """Hold a conversation: send what it yields, give it the responses."""
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._send(request))
        except StopIteration as end:
            result: _Result = end.value
            return result

    async def _send(self, request: Request) -> Response:
        clock = asyncio.get_running_loop().time
        ends = clock() + self.timeout
        attempt = 0
        while True:
            attempt += 1
            response = await self._send_once(request, ends - clock())
            pause = pause_before_retry(response, attempt, self._retry, now=datetime.now(UTC), chance=random.random())
            if pause is None or clock() + pause >= ends:
                return response
            await asyncio.sleep(pause)

    async def _send_once(self, request: Request, timeout: float) -> Response:
        method, path, headers, body = request
        try:
            return as_response(await self._http.request(method, path, headers=headers, content=body, timeout=timeout))
        except self._failure as problem:
            raise as_error(problem, request, self.url) from None


class AsyncRemoteModel:
    """One model of a server; its signature is fetched at the first prediction."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        self.name = name
        self._client = client
        self._schema = Schema(name)

    async def describe(self) -> Description:
        """What the server says of this model now: signature, live release, loaded releases."""
        return await self._client._carry(self._schema.describe())

    async def predict(self, rows: Any, *, strict: bool = False) -> Answer:
        """Predict a row (a mapping), a list of rows or a DataFrame; see `salver.Client`."""
        return await self._client._carry(self._schema.predict(rows, timeout=self._client.timeout, strict=strict))
