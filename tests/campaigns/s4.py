"""Requests that two readers could read in two ways: refused, and what nginx in front passes on means the same to us."""

from __future__ import annotations

import argparse
import random
import socket
import time
from pathlib import Path

from tests.campaigns import stage, vitals
from tests.campaigns.checks import Checker, Verdict
from tests.integration import hostile
from tests.integration.nginx import Proxy
from tests.integration.oracle import Oracle
from tests.integration.server import Server
from tests.integration.wire import Wire, until_closed

GROWTH_MIB = 1
REFUSALS = (400, 405, 408, 411, 413, 414, 431, 501, 502, 505)
NEXT = b"GET /healthz/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
PATIENCE = 0.5
"""Seconds without a byte after which a reader waits for the rest of a body that the other has seen the end of."""
LINES = (
    b"content-length: 21", b"content-length: 0", b"content-length: 5", b"content-length: 21, 21", b"content-length:21 ",
    b"Content-Length: 021", b"content-length: +21", b"content-length: 0x15", b"content-length : 21",
    b"transfer-encoding: chunked", b"transfer-encoding: Chunked", b"transfer-encoding: identity",
    b"transfer-encoding: chunked, identity", b"transfer-encoding: identity, chunked", b"transfer-encoding: xchunked",
    b"transfer-encoding:\tchunked", b"transfer-encoding: chunked ", b"transfer-encoding: chunked;a=b",
    b"transfer-encoding : chunked", b"transfer-encoding:\x0bchunked", b"transfer_encoding: chunked", b"x: y\n z",
    b"x: y\r\n z", b"connection: close", b"connection: content-length", b"connection: transfer-encoding", b"x: \x00",
)  # fmt: skip
BODIES = (
    hostile.ROW, hostile.CHUNKS, b"", b"0\r\n\r\n", b"15;a=b\r\n" + hostile.ROW + b"\r\n0\r\n\r\n",
    b"15\n" + hostile.ROW + b"\n0\n\n", b"0x15\r\n" + hostile.ROW + b"\r\n0\r\n\r\n",
    b"015\r\n" + hostile.ROW + b"\r\n00\r\n\r\n", b"15 \r\n" + hostile.ROW + b"\r\n0\r\n\r\n",
    b"15\r\n" + hostile.ROW + b"\r\n0\r\nx: y\r\n\r\n", b"15;a\nb\r\n" + hostile.ROW + b"\r\n0\r\n\r\n",
)  # fmt: skip


def ambiguous(chance: random.Random) -> bytes:
    """One request whose end may be read in two ways, and one behind it."""
    lines = chance.sample(LINES, chance.choice((1, 2, 2, 3)))
    end = chance.choice((b"\r\n", b"\r\n", b"\r\n", b"\n"))
    version = chance.choice((b"1.1", b"1.1", b"1.1", b"1.0"))
    head = end.join([b"POST /models/oracle/predict HTTP/" + version, b"host: localhost", *lines, b"", b""])
    return head + chance.choice(BODIES) + NEXT


def read(port: int, data: bytes) -> list[tuple[int, bytes]]:
    """What these bytes are answered with: status and body of each answer before the first refusal."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.sendall(data)
    found = []
    for status, _, body in hostile.answers(until_closed(sock)):
        if status in REFUSALS:
            break
        found.append((status, body))
    return found


def refusals(server: Server, checker: Checker) -> None:
    """Everything that breaks HTTP is answered once with 400, and the connection closed."""
    for name, data in hostile.REFUSED.items():
        received = server.raw(data)
        once = received.count(b"HTTP/1.1 ") == 1 and b"connection: close" in received
        if not received.startswith(b"HTTP/1.1 400 ") or not once:
            checker.note("not refused", f"{name}: {received[:200]!r}")


def agreement(server: Server, folder: Path, options: argparse.Namespace, checker: Checker) -> int:
    """Both ways of asking give the same answers, as far as both give any; how often both answered."""
    both = 0
    corpus = [data + NEXT for data in (*hostile.REFUSED.values(), *hostile.TAKEN.values())]
    with Proxy(folder / "nginx", server.port) as proxy:
        for number in range(options.requests):
            chance = random.Random(f"{options.seed} {number}")
            data = corpus[number] if number < len(corpus) else ambiguous(chance)
            direct, through = read(server.port, data), read(proxy.port, data)
            shared = min(len(direct), len(through))
            both += shared > 0
            if direct[:shared] != through[:shared]:
                checker.note("read in two ways", f"request {number}: {data!r} gave {direct}, through nginx {through}")
    return both


def tiny_chunks(server: Server, options: argparse.Namespace, checker: Checker) -> tuple[vitals.Vitals, vitals.Vitals]:
    """Bodies of a million chunks of a byte, and bodies of as many as are allowed; vitals after ten and after all."""
    head = hostile.POST + hostile.CHUNKED + b"\r\n"
    allowed = head + b"1\r\n \r\n" * 65_535 + hostile.CHUNKS
    endless = head + b"1\r\n \r\n" * 1_000_000
    before = after = vitals.look(server)
    said = time.monotonic()
    for number in range(10 + options.floods):
        for data, wanted in ((allowed, 200), (endless, 413)):
            with Wire(server.port) as wire:
                status = wire.ask(data).status
            if status != wanted:
                checker.note("chunks", f"status {status} instead of {wanted}")
        after = vitals.look(server)
        if number < 10:
            before = after
        if time.monotonic() - said > stage.EVERY:
            said = time.monotonic()
            print(f"{number} floods of chunks, {(after.rss - before.rss) / 1024:+.1f} MiB", flush=True)
    return before, after


def main(argv: list[str]) -> int:
    """Run it; 1 if something ambiguous was taken, read otherwise than nginx reads it, or left memory behind."""
    parser = argparse.ArgumentParser(prog="make campaign ID=S4", description=__doc__)
    parser.add_argument("--requests", type=int, default=5_000, help="asked directly and through nginx (%(default)s)")
    parser.add_argument("--floods", type=int, default=100, help="bodies of a million chunks (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides the requests (%(default)s)")
    options = parser.parse_args(argv)
    verdict, checker = Verdict(f"S4 HTTP/1 and smuggling, seed {options.seed}"), Checker({})
    with stage.scratch(verdict) as folder:
        registry = stage.publish(folder, Oracle)
        with stage.serve(folder, registry, "--workers", "1") as server:
            first = vitals.look(server)
            refusals(server, checker)
            both = agreement(server, folder, options, checker)
            before, after = tiny_chunks(server, options, checker)
            vitals.same(first, vitals.look(server), verdict)
        verdict.says("broken requests, ambiguous ones", f"{len(hostile.REFUSED)}, {options.requests:,}")
        verdict.says("of those answered by both", f"{both:,}")
        verdict.faults(checker, "not refused", "read in two ways", "chunks")
        verdict.says("floods of 1,000,000 and of 65,536 chunks", str(options.floods))
        vitals.grown(before, after, GROWTH_MIB, verdict)
    return verdict.show()
