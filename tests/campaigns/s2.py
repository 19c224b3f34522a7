"""gRPC messages that say what they should not: never a status of our own fault, no crash, and resets without end."""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter

import grpc
from tritonclient.grpc import service_pb2

from tests.campaigns import stage, vitals
from tests.campaigns.checks import Checker, Verdict
from tests.integration.oracle import Oracle, answer
from tests.integration.server import Server
from tests.ports import free_port

METHODS = ("ModelInfer", "ModelMetadata", "ModelReady", "ServerLive", "RepositoryIndex", "ModelConfig", "Nothing")
OUR_FAULT = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS)
GROWTH_MIB = 20
WORKERS = 2
KEY = 7
EDITS = 6


def good(raw: bool) -> bytes:
    """A request for one row, in raw or typed contents."""
    message = service_pb2.ModelInferRequest(model_name="oracle", id="a")
    key = message.inputs.add(name="key", datatype="INT64", shape=[1])
    act = message.inputs.add(name="act", datatype="BYTES", shape=[1])
    if raw:
        message.raw_input_contents.extend([KEY.to_bytes(8, "little"), bytes(4)])
    else:
        key.contents.int64_contents.append(KEY)
        act.contents.bytes_contents.append(b"")
    data: bytes = message.SerializeToString()
    return data


def mutated(chance: random.Random) -> bytes:
    """One of them with a few bytes changed, taken, doubled or put in."""
    body = bytearray(good(chance.random() < 0.5))
    for _ in range(chance.randrange(1, EDITS)):
        place, length = chance.randrange(len(body) + 1), chance.randrange(1, EDITS)
        kind = chance.choice(("set", "cut", "insert", "double", "huge"))
        if kind == "cut":
            del body[place : place + length]
        elif kind == "double":
            body[place:place] = body[:place]
        elif kind == "huge":
            body[place : place + 1] = b"\xff\xff\xff\xff\x0f"
        else:
            body[place : place + (length if kind == "set" else 0)] = chance.randbytes(length)
        del body[1 << 20 :]
    return bytes(body)


class Fuzz:
    """Asks by number: the same seed and number are the same call."""

    def __init__(self, port: int, seed: int) -> None:
        self.checker = Checker({})
        self.statuses: Counter[str] = Counter()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._seed = seed

    def call(self, number: int) -> None:
        """One call; now and then one that its caller gives up at once."""
        chance = random.Random(f"call {self._seed} {number}")
        method = chance.choice(METHODS) if chance.random() < 0.2 else METHODS[0]
        data = mutated(chance)
        ask = self._channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        if chance.random() < 0.02:
            ask.future(data, timeout=30).cancel()
            return
        try:
            ask(data, timeout=30)
            self.statuses["OK"] += 1
        except grpc.RpcError as refusal:
            code = refusal.code()
            self.statuses[code.name] += 1
            if code in OUR_FAULT or not refusal.details():
                self.checker.note("a status of our own fault", f"{code} {refusal.details()!r} for {method} {data!r}")

    def works(self) -> bool:
        """Whether a good request gets its answer."""
        data = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(good(raw=False), timeout=30)
        said = service_pb2.ModelInferResponse.FromString(data)
        return list(said.outputs[0].contents.int64_contents) == [answer(1, KEY)]


def run(server: Server, port: int, options: argparse.Namespace, verdict: Verdict) -> None:
    """A first tenth warms up, then memory is measured."""
    fuzz = Fuzz(port, options.seed)
    said = time.monotonic()
    before = warm = vitals.look(server)
    for number in range(options.first, options.first + options.calls):
        if number == options.first + options.calls // 10:
            warm = vitals.look(server)
        fuzz.call(number)
        if time.monotonic() - said > stage.EVERY:
            said = time.monotonic()
            print(f"number {number:,}: {fuzz.checker.faults.total()} faults", flush=True)
    after = vitals.look(server)
    verdict.says("calls", f"{options.calls:,}")
    verdict.says("answers", ", ".join(f"{count:,} × {status}" for status, count in sorted(fuzz.statuses.items())))
    verdict.faults(fuzz.checker, "a status of our own fault")
    vitals.same(before, after, verdict)
    vitals.grown(warm, after, GROWTH_MIB, verdict)
    works = fuzz.works()
    verdict.must("a good call is answered", "yes" if works else "no", "yes", works)


def main(argv: list[str]) -> int:
    """Run it; 1 if the server failed, crashed, grew or refused without words."""
    parser = argparse.ArgumentParser(prog="make campaign ID=S2", description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="messages (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first, to repeat a fault (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides the bytes of each number (%(default)s)")
    options = parser.parse_args(argv)
    verdict = Verdict(f"S2 gRPC fuzz, seed {options.seed}")
    port = free_port()
    with stage.scratch(verdict) as folder:
        registry = stage.publish(folder, Oracle)
        with stage.serve(folder, registry, "--workers", str(WORKERS), "--grpc-port", str(port)) as server:
            run(server, port, options, verdict)
    return verdict.show()
