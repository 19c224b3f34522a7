"""Two servers behind nginx are restarted in turn under load: no request fails, over HTTP or gRPC."""

from __future__ import annotations

import argparse
import asyncio
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from tests.campaigns import stage
from tests.campaigns.checks import Checker, Verdict
from tests.integration.history import Habits, Load
from tests.integration.nginx import Proxy
from tests.integration.oracle import Oracle, answer
from tests.integration.server import Server
from tests.integration.test_grpc import typed
from tests.ports import free_port

CLIENTS = 8
MESSAGES = 5
PATIENCE = 30.0


class Calls(threading.Thread):
    """A gRPC client that asks again and again: one message a call, or a stream of some; what fails is noted."""

    def __init__(self, port: int, checker: Checker, *, stream: bool, pause: float) -> None:
        super().__init__()
        self._place = f"127.0.0.1:{port}"
        self._checker = checker
        self._stream = stream
        self._pause = pause
        self._stopped = threading.Event()
        self.answered = 0

    def stop(self) -> None:
        """End after the call that is open."""
        self._stopped.set()

    def run(self) -> None:
        """Ask until told to stop."""
        with grpc.insecure_channel(self._place) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            number = 0
            while not self._stopped.wait(self._pause):
                keys = range(number, number + MESSAGES if self._stream else number + 1)
                number = keys.stop
                self._checker.requests += len(keys)
                self._one(stub, keys)

    def _one(self, stub: Any, keys: range) -> None:
        what = "stream" if self._stream else "call"
        began = time.monotonic()
        try:
            if self._stream:
                asked = (typed([key]) for key in keys)
                whole = list(stub.ModelStreamInfer(asked, timeout=PATIENCE))
                said = [each.infer_response for each in whole]
                for each in whole:
                    if each.error_message:
                        self._checker.note("refused", f"a message of {what} {keys}: {each.error_message}")
            else:
                said = [stub.ModelInfer(typed([keys.start]), timeout=PATIENCE)]
        except grpc.RpcError as problem:
            took = time.monotonic() - began
            code = problem.code()  # type: ignore[attr-defined]
            words = problem.details()  # type: ignore[attr-defined]
            self._checker.note("failed", f"{what} of {keys} at {began:.3f}: {code} {words} after {took:.3f} s")
            return
        found = [value for response in said for output in response.outputs for value in output.contents.int64_contents]
        if found != [answer(1, key) for key in keys]:
            self._checker.note("wrong", f"{what} of {keys} got {found}")
        self.answered += len(found)


class Restarts:
    """What was seen of the servers that were told to stop."""

    def __init__(self) -> None:
        self.codes: Counter[int] = Counter()
        self.slowest = 0.0

    @property
    def count(self) -> int:
        return self.codes.total()

    def one(self, server: Server, timeout: float) -> None:
        """Restart a server, and wait until it is ready."""
        began = time.monotonic()
        self.codes[server.stop(signal.SIGTERM, timeout)] += 1
        self.slowest = max(self.slowest, time.monotonic() - began)
        server.start()
        server.wait_ready()


async def scenario(servers: list[Server], load: Load, calls: list[Calls], options: argparse.Namespace) -> Restarts:
    """Restart the servers in turn under load."""
    restarts = Restarts()

    def say() -> str:
        return f"{restarts.count} restarts, {sum(each.answered for each in calls):,} gRPC answers"

    async with stage.under(load, servers[0], say):
        for each in calls:
            each.start()
        try:
            for number in range(options.restarts):
                await asyncio.to_thread(restarts.one, servers[number % 2], options.drain_delay + 35)
        finally:
            for each in calls:
                each.stop()
            for each in calls:
                await asyncio.to_thread(each.join)
    return restarts


def judge(restarts: Restarts, http: Checker, grpc_calls: Checker, limit: float, verdict: Verdict) -> None:
    """No request may have failed, and no server may have ended badly or late."""
    verdict.says("restarts", str(restarts.count))
    for what, checker in (("HTTP", http), ("gRPC", grpc_calls)):
        lost = checker.faults.total()
        verdict.says(f"requests over {what}", f"{checker.requests:,}")
        per_100 = 100 * lost / max(1, restarts.count)
        verdict.must(f"failed over {what}, in 100 restarts", f"{per_100:g}", "0", not lost)
    bad = restarts.count - restarts.codes[0]
    verdict.must("exits with another status than 0", str(bad), "0", not bad)
    verdict.must("slowest stop", f"{restarts.slowest:.1f} s", f"<= {limit:g} s", restarts.slowest <= limit)


def run(options: argparse.Namespace, folder: Path, verdict: Verdict) -> None:
    """The whole campaign in a folder."""
    registry = stage.publish(folder, Oracle)
    flags = ("--cache", str(folder / "cache"), "--workers", "1", "--gateways", str(options.gateways))
    flags += ("--drain-delay", str(options.drain_delay))
    ports = [free_port() for _ in range(2)]
    servers = [Server(registry, *flags, "--grpc-port", str(port), log=folder / f"log{port}") for port in ports]
    http, grpc_calls = Checker({"oracle@1": 1}), Checker({})
    started: list[Server] = []
    try:
        for server in servers:
            started.append(server.__enter__())
        with Proxy(folder / "nginx", *(server.port for server in servers), grpc=ports) as proxy:
            load = Load(
                proxy.port,
                clients=CLIENTS,
                rows=lambda chance: chance.choice((1, 4)),
                seed=options.seed,
                habits=Habits(rate=options.rate),
                take=lambda event: http.take(event),
            )
            pause = 3 / options.rate if options.rate else 0.0
            kinds = (False, False, True)
            calls = [Calls(proxy.grpc_port, grpc_calls, stream=stream, pause=pause) for stream in kinds]
            restarts = asyncio.run(scenario(servers, load, calls, options))
    finally:
        for server in started:
            server.stop()
    judge(restarts, http, grpc_calls, options.drain_delay + 30, verdict)


def main(argv: list[str]) -> int:
    """Run it; 1 if a request failed or a server did not end well."""
    parser = argparse.ArgumentParser(prog="make campaign ID=R7", description=__doc__)
    parser.add_argument("--restarts", type=int, default=20, help="of both servers together (%(default)s)")
    parser.add_argument("--drain-delay", type=float, default=1.0, help="seconds (%(default)s)")
    parser.add_argument("--gateways", type=int, default=1, help="of each server (%(default)s)")
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second, 0 for no limit (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides the requests (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"R7 rolling restarts behind nginx, seed {options.seed}")
    with stage.scratch(verdict) as folder:
        run(options, folder, verdict)
    return verdict.show()
