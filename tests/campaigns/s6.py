"""Bodies made to cost much: refused within 100 ms of CPU and 80 MiB of memory."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator

from backports import zstd

from tests.campaigns import stage, vitals
from tests.campaigns.checks import Checker, Verdict
from tests.integration.hostile import PREDICT
from tests.integration.oracle import Oracle
from tests.integration.server import Server

V1 = "/v1/models/oracle:predict"
V2 = "/v2/models/oracle/infer"
CPU_MS = 100
PEAK_MIB = 80
REFUSED = (400, 413, 415, 422)
MILLION = 1_000_000


def bombs() -> Iterator[tuple[str, str, bytes, str]]:
    """Each bomb: its name, where it goes, its body, and the encodings that its headers name."""
    for encoding, pack in (("gzip", gzip.compress), ("zstd", zstd.compress)):
        zeros = pack(bytes(1 << 30))
        yield f"{encoding}, 1 GiB of zeros", PREDICT, zeros, encoding
        yield f"{encoding} in {encoding}", PREDICT, pack(zeros), encoding
        yield f"{encoding}, said twice", PREDICT, pack(zeros), f"{encoding}, {encoding}"
        yield f"{encoding}, 60 MiB of lists", PREDICT, pack(b"[" * (60 << 20)), encoding
    for path in (PREDICT, V1, V2):
        yield f"lists {MILLION:,} deep, {path}", path, b"[" * MILLION + b"]" * MILLION, ""
        yield f"objects {MILLION:,} deep, {path}", path, b'{"a":' * MILLION + b"1" + b"}" * MILLION, ""
        yield f"{MILLION:,} keys, {path}", path, b"{%b}" % b",".join(b'"k%d":0' % key for key in range(MILLION)), ""
    yield "a number of a million digits", PREDICT, b'{"key": %b, "act": ""}' % (b"9" * MILLION), ""
    yield "a million digits in V1", V1, b'{"instances": [{"key": %b, "act": ""}]}' % (b"9" * MILLION), ""
    for shape in ([2**62, 4], [2**32, 2**32], [2**64, 1], [-1, -1], [MILLION, MILLION]):
        tensors = [{"name": name, "shape": shape, "datatype": "INT64", "data": [1]} for name in ("key", "act")]
        yield f"a tensor of shape {shape}", V2, json.dumps({"inputs": tensors}).encode(), ""
    many = [{"name": f"n{at}", "shape": [1], "datatype": "INT64", "data": [1]} for at in range(100_000)]
    yield "100,000 tensors", V2, json.dumps({"inputs": many}).encode(), ""
    yield "a million rows", PREDICT, b"[%b]" % b",".join([b'{"key":1,"act":""}'] * MILLION), ""
    yield "a million bad rows", PREDICT, b"[%b]" % b",".join([b"0"] * MILLION), ""


def drop(server: Server, bomb: tuple[str, str, bytes, str], times: int, checker: Checker) -> tuple[float, float]:
    """Send one bomb several times; the CPU ms of one on average, and the MiB by which memory peaked."""
    name, path, body, encoding = bomb
    headers = {"content-type": "application/json", **({"content-encoding": encoding} if encoding else {})}
    vitals.forget_peaks(server)
    before = vitals.look(server)
    for _ in range(times):
        try:
            status = server.ask("POST", path, body, headers, timeout=60).status
        except OSError as problem:
            status = 0
            checker.note("unanswered", f"{name}: {type(problem).__name__}")
        if status and status not in REFUSED:
            checker.note("not refused", f"{name}: status {status}")
    after = vitals.look(server)
    return (after.cpu - before.cpu) / times, (after.peak - before.rss) / 1024


def main(argv: list[str]) -> int:
    """Run it; 1 if a bomb was not refused, or cost too much."""
    parser = argparse.ArgumentParser(prog="make campaign ID=S6", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="how often each bomb is sent (%(default)s)")
    options = parser.parse_args(argv)
    verdict, checker = Verdict("S6 bombs"), Checker({})
    with stage.scratch(verdict) as folder:
        registry = stage.publish(folder, Oracle)
        with stage.serve(folder, registry, "--workers", "1") as server:
            first = vitals.look(server)
            for bomb in bombs():
                cpu, peak = drop(server, bomb, options.times, checker)
                kept = cpu <= CPU_MS and peak <= PEAK_MIB
                promised = f"<= {CPU_MS} ms, {PEAK_MIB} MiB"
                verdict.must(bomb[0], f"{cpu:.0f} ms, {peak:+.0f} MiB", promised, kept)
            vitals.same(first, vitals.look(server), verdict)
        verdict.faults(checker, "unanswered", "not refused")
    return verdict.show()
