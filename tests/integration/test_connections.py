"""How many connections one caller may hold, and how many requests may wait on one: over HTTP and gRPC."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from salver.gateway import http2_frames as h2
from tests.integration.server import Server
from tests.integration.test_access import key
from tests.integration.test_framing import ask, said
from tests.integration.test_grpc import place, typed, wait_serving
from tests.integration.test_http2 import Peer
from tests.integration.watched import comes, sample
from tests.integration.wire import Wire
from tests.ports import free_port

MOST = 3


class Narrow(NamedTuple):
    """A server with few connections to a key, and the tokens of two keys."""

    server: Server
    shop: str
    other: str

    def hits(self, limit: str) -> float:
        return sample(self.server, "salver_limit_hits_total", limit=limit)


@pytest.fixture(scope="module")
def narrow(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Narrow]:
    folder = tmp_path_factory.mktemp("narrow")
    keys = folder / "keys.jsonl"
    shop, other = (key(keys, "add", name) for name in ("shop", "other"))
    options = ("--keys", str(keys), "--grpc-port", str(free_port()), "--drain-delay", "0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALVER_LIMITS_KEY_CONNECTIONS", str(MOST))
        patch.setenv("SALVER_LIMITS_PIPELINED", str(MOST))
        patch.setenv("SALVER_SERVE_OPEN_SCOPES", "health,metrics")
        with Server(published, *options, log=folder / "log") as server:
            wait_serving(server)
            yield Narrow(server, shop, other)


def test_a_gateway_may_open_as_many_files_as_the_system_allows(start: Callable[..., Server]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        server = start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    [gateway] = server.gateways()
    assert resource.prlimit(gateway, resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_client_that_leaves_a_small_answer_unread_is_cut_off_as_well(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So little that writing is never paused, and more than the system takes."""
    monkeypatch.setenv("SALVER_LIMITS_KEEP_ALIVE", "1")
    monkeypatch.setenv("SALVER_LIMITS_WRITE_TIME", "1")
    server = start()
    ask_page = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
    pages = 110_000 // len(server.get("/openapi.json").body)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(ask_page * pages)
        assert comes(lambda: sample(server, "salver_limit_hits_total", limit="slow-read")) == 1
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: sock.recv(4096), b""))


def held(by: str) -> bytes:
    return b"authorization: Bearer %b\r\n" % by.encode()


def page(by: str) -> bytes:
    return b"GET /models HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % held(by)


@pytest.mark.parametrize("asked", [lambda by: ask(7, held(by)), page], ids=["predictions", "pages"])
def test_a_key_may_hold_as_many_connections_as_the_limit(narrow: Narrow, asked: Callable[[str], bytes]) -> None:
    with contextlib.ExitStack() as stack:
        lines = [joined(narrow, asked(narrow.shop), stack) for _ in range(MOST)]
        before = narrow.hits("key-connections")
        for _ in range(2):
            assert [line.ask(asked(narrow.shop)).status for line in lines] == [200] * MOST
        with Wire(narrow.server.port) as over:
            over.sock.sendall(asked(narrow.shop))
            refused = over.answer()
            assert refused.status == 429
            assert refused.last
            assert b'"too-many-connections"' in refused.body
            assert over.sock.recv(1) == b""
        assert narrow.hits("key-connections") == before + 1
        with Wire(narrow.server.port) as another:
            assert another.ask(asked(narrow.other)).status == 200
        lines[0].sock.close()
        joined(narrow, asked(narrow.shop), stack)
        assert lines[1].ask(asked(narrow.shop)).status == 200


def joined(narrow: Narrow, asked: bytes, stack: contextlib.ExitStack) -> Wire:
    """A connection that asked this and was answered, once there is room for it."""

    def begin() -> Wire | None:
        wire = Wire(narrow.server.port)
        if wire.ask(asked).status == 200:
            return wire
        wire.close()
        return None

    wire = comes(begin)
    assert wire is not None
    return stack.enter_context(wire)


@contextlib.contextmanager
def channel(server: Server) -> Iterator[Any]:
    with grpc.insecure_channel(place(server), options=[("grpc.use_local_subchannel_pool", 1)]) as opened:
        yield service_pb2_grpc.GRPCInferenceServiceStub(opened)


def is_answered(stub: Any, token: str) -> bool:
    """Whether a prediction is; False where the key has too many connections."""
    try:
        return bool(stub.ModelInfer(typed([7]), metadata=(("authorization", f"Bearer {token}"),)).model_name)
    except grpc.RpcError as refused:
        if refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "3 connections open" in refused.details():
            return False
        raise


def test_calls_of_a_key_with_too_many_connections_are_refused_and_the_connection_ends(narrow: Narrow) -> None:
    with contextlib.ExitStack() as stack:
        stubs = [stack.enter_context(channel(narrow.server)) for _ in range(MOST)]
        for stub in stubs:
            comes(partial(is_answered, stub, narrow.shop))
        before = narrow.hits("key-connections")
        over = stack.enter_context(channel(narrow.server))
        assert not is_answered(over, narrow.shop)
        assert narrow.hits("key-connections") == before + 1
        assert is_answered(over, narrow.other)
        assert is_answered(stubs[0], narrow.shop)
    with channel(narrow.server) as stub:
        comes(lambda: is_answered(stub, narrow.shop))


def test_a_refused_grpc_connection_is_told_to_go_and_closed(narrow: Narrow) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MOST):
            joined(narrow, page(narrow.shop), stack)
        peer = stack.enter_context(Peer(narrow.server))
        peer.ask(1, "ModelInfer", bytes(5), ("authorization", f"Bearer {narrow.shop}"))
        assert peer.status(1) == "8"
        assert peer.broken() == h2.NO_ERROR


def test_connections_over_http_and_grpc_count_together(narrow: Narrow) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MOST):
            joined(narrow, page(narrow.shop), stack)
        assert not is_answered(stack.enter_context(channel(narrow.server)), narrow.shop)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_so_many_requests_may_wait_behind_an_open_one(narrow: Narrow, more: int) -> None:
    before, other = narrow.hits("pipelined"), held(narrow.other)
    waiting = b"".join(ask(number, other) for number in range(MOST + more))
    with Wire(narrow.server.port) as wire:
        wire.sock.sendall(ask(9, other, act="sleep") + waiting)
        if more <= 0:
            answers = [wire.answer().body for _ in range(1 + MOST + more)]
            assert answers == [said(9), *(said(number) for number in range(MOST + more))]
        else:
            assert wire.sock.recv(1) == b""
    assert narrow.hits("pipelined") == before + max(0, more)


def test_pages_that_wait_on_one_connection_do_not_keep_others_waiting(narrow: Narrow) -> None:
    """Each page that waits is answered in a turn of its own, all in order."""
    with socket.create_connection(("127.0.0.1", narrow.server.port), timeout=30) as sock:
        last = page(narrow.other).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        sock.sendall(page(narrow.other) * MOST + last)
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200 OK") == MOST + 1
