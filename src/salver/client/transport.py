"""What both clients share around httpx: the extra it is, its errors as ours, and its responses as plain data."""

from __future__ import annotations

import ssl
from types import ModuleType
from typing import TYPE_CHECKING, Any

from salver.client.exchange import Request, Response
from salver.errors import SalverError, error

if TYPE_CHECKING:
    import httpx


def load_httpx() -> ModuleType:
    """Import httpx, or say what to install."""
    try:
        import httpx
    except ImportError:
        raise error("missing-extra", "the client needs httpx", hint="pip install 'salver[client]'") from None
    return httpx


def settings(url: str, key: str, tls: ssl.SSLContext | None) -> dict[str, Any]:
    """How httpx is to reach a server, with which credential."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return {"base_url": url, "headers": headers, "verify": tls or True}


def as_error(problem: httpx.HTTPError, request: Request, url: str) -> SalverError:
    """A failure of the connection as one of our errors."""
    from httpx import ConnectError, TimeoutException

    where = f"{request.method} {url}{request.path}"
    if isinstance(problem, TimeoutException):
        return error("deadline-exceeded", f"{where}: no answer in time", hint="give the client a longer timeout")
    if "SSL" in str(problem):
        return error("no-server", f"{where}: no trusted connection ({problem})", hint="give the client `tls`")
    if isinstance(problem, ConnectError):
        return error("no-server", f"{where}: nothing listens there ({problem})", hint="start one with `salver serve`")
    return error("no-server", f"{where}: the connection broke ({type(problem).__name__}: {problem})")


def as_response(answer: httpx.Response) -> Response:
    """An httpx response as plain data."""
    return Response(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content)
