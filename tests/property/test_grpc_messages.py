"""Mutated messages: whatever the bytes, a worker says that the request is wrong, or answers it."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from salver.errors import UserError
from salver.gateway.grpc.requests import read
from salver.protocols import Subject
from salver.protocols.v2.grpc import PROTOCOL
from salver.signature import Column, Signature, Tensor

SIGNATURE = Signature(
    (Column("a", "float"), Column("n", "int", nullable=True), Column("s", "category", categories=("x", "y")),
     Tensor("t", "float32", (-1, 2)), Column("b", "bytes", nullable=True)),
    (Column("y", "float"), Column("label", "str"), Column("echo", "bytes", nullable=True)),
)  # fmt: skip
CODEC = PROTOCOL.codec(Subject("m", 1, "function", SIGNATURE))


def _message(raw: bool) -> bytes:
    message = service_pb2.ModelInferRequest(model_name="m", model_version="1", id="id")
    for name, datatype, shape in (
        ("a", "FP64", [2]),
        ("n", "INT64", [2]),
        ("s", "BYTES", [2]),
        ("t", "FP32", [2, 2]),
        ("b", "BYTES", [2]),
    ):
        tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
        tensor.parameters["priority"].int64_param = 1
        if not raw:
            field = {"a": "fp64", "n": "int64", "s": "bytes", "t": "fp32", "b": "bytes"}[name]
            values = [b"x", b"y"] if name in "sb" else [1, 2, 3, 4] if name == "t" else [1, 2]
            getattr(tensor.contents, f"{field}_contents").extend(values)
    message.inputs[1].parameters["nulls"].string_param = "1"
    if raw:
        message.parameters["timeout"].int64_param = 5_000_000
        message.parameters["triton_enable_empty_final_response"].bool_param = True
        message.parameters["sequence_end"].bool_param = False
        text = b"\x01\x00\x00\x00x\x01\x00\x00\x00y"
        message.raw_input_contents.extend([bytes(16), bytes(16), text, bytes(16), text])
    message.outputs.add(name="y")
    found: bytes = message.SerializeToString()
    return found


SEEDS = (_message(raw=False), _message(raw=True))
EDITS = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from(("set", "cut", "insert", "double")), st.binary(max_size=6)),
    min_size=1,
    max_size=6,
)


def mutated(seed: bytes, edits: list[tuple[int, str, bytes]]) -> bytes:
    body = bytearray(seed)
    for at, kind, data in edits:
        place = at % (len(body) + 1)
        if kind == "set":
            body[place : place + len(data)] = data
        elif kind == "cut":
            del body[place : place + 1 + len(data)]
        elif kind == "insert":
            body[place:place] = data
        else:
            body[place:place] = body[place : place + 24]
    return bytes(body)


@settings(max_examples=600)
@given(st.sampled_from(SEEDS), EDITS)
def test_a_mutated_message_is_refused_as_the_clients_fault_or_answered(
    seed: bytes, edits: list[tuple[int, str, bytes]]
) -> None:
    body = mutated(seed, edits)
    with suppress(UserError):
        read(body)
    decoded = CODEC.decode([body, seed])
    outputs = {"y": np.zeros(decoded.count), "label": np.array(["l"] * decoded.count, object)}
    outputs["echo"] = decoded.columns["b"]
    assert {name: len(values) for name, values in decoded.columns.items()} == dict.fromkeys("anstb", decoded.count)
    odd, sound = CODEC.encode(decoded, outputs, {})
    assert sound.status == 200
    if decoded.parts[0].failure is not None:
        assert decoded.parts[0].failure.meaning.turn == "user"
        assert decoded.parts[0].failure.meaning.grpc not in ("UNKNOWN", "INTERNAL")
    else:
        service_pb2.ModelInferResponse.FromString(odd.body)
