"""Bodies made to cost much: what is too much is refused before the rest is read, and a refused body is let go.

What follows the limit here is no JSON at all, so an answer about the limit proves that nothing read it.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from salver.errors import error
from salver.protocols import Subject
from salver.protocols.bounds import MOST_MEMBERS, check_rows, has_many_members, more_than
from salver.protocols.invocations import PROTOCOL as INVOCATIONS
from salver.protocols.jsonlines import PROTOCOL as JSON_LINES
from salver.protocols.native import PROTOCOL as NATIVE
from salver.protocols.rows import MAX_ROWS
from salver.protocols.torchserve import PROTOCOL as TORCHSERVE
from salver.protocols.v1 import PROTOCOL as V1
from salver.protocols.v2.codec import PROTOCOL as V2
from salver.protocols.v2.datatypes import MAX_TENSORS
from salver.signature import Column, Signature
from salver.worker.isolation import Isolation

SIGNATURE = Signature(inputs=(Column("a", "float"), Column("b", "str")), outputs=(Column("y", "float"),))
SUBJECT = Subject("m", 1, "function", SIGNATURE)
ROW = b'{"a":1,"b":""}'
GARBAGE = b"} this is no JSON [" * (1 << 16)
TENSOR = b'{"name":"a","shape":[1],"datatype":"FP64","data":[1]}'


def code(protocol: Any, body: bytes, signature: Signature = SIGNATURE) -> str:
    """The code a body is refused with, "" if it is not."""
    (part,) = protocol.codec(SUBJECT._replace(signature=signature)).decode([body]).parts
    return part.failure.code if part.failure is not None else ""


@pytest.mark.parametrize("row", [ROW, b"{}", b'{"a":1,"b":"","more":[1,{"c":null}]}', b"7 " + b" " * 40])
def test_a_million_rows_were_all_read_before_they_were_refused(row: bytes) -> None:
    rows = b",".join([row] * (MAX_ROWS + 1))
    assert code(NATIVE, b" [" + rows + b",1" + GARBAGE) == "too-many-rows"
    for protocol, head in (
        (V1, b'{"instances":['),
        (V1, b'{"x":[{}],"instances":['),
        (INVOCATIONS, b"["),
        (TORCHSERVE, b"["),
    ):
        if row.startswith(b"{"):
            assert code(protocol, head + rows + b",1" + GARBAGE) == "too-many-rows"


@pytest.mark.parametrize("token", [b"NaN", b"Infinity", b"-Infinity"])
def test_a_million_rows_with_tokens_were_all_read_as_python_values(token: bytes) -> None:
    rows = b",".join([b'{"a":%b,"b":""}' % token] * (MAX_ROWS + 1))
    assert code(V1, b'{"instances":[' + rows + b",1" + GARBAGE) == "too-many-rows"
    few = b",".join([b'{"a":%b,"b":"%b"}' % (token, b" " * 200)] * MAX_ROWS)
    check_rows(b"[" + few + b"]")  # the most that is allowed, and far beyond the first look
    check_rows(b'{"instances":[' + few + b"]}", "instances")


@pytest.mark.parametrize("member", [b"inputs", b"outputs"])
def test_100000_tensors_were_all_read_before_they_were_refused(member: bytes) -> None:
    head = b'{"inputs":[' + TENSOR + b'],"' + member + b'":[' if member == b"outputs" else b'{"inputs":['
    one = b'{"name":"y"}' if member == b"outputs" else TENSOR
    many = [b",".join([one] * count) for count in (MAX_TENSORS, MAX_TENSORS + 1)]
    assert [code(V2, head + each + GARBAGE) for each in many] == ["bad-json", "too-many-tensors"]


def test_a_model_of_many_outputs_may_be_asked_for_each() -> None:
    outputs = tuple(Column(f"y{place}", "float") for place in range(MAX_TENSORS + 50))
    asked = b",".join(b'{"name":"%b"}' % field.name.encode() for field in outputs)
    body = b'{"inputs":[' + TENSOR + b'],"outputs":[' + asked + b"%b]}"
    signature = Signature(inputs=(Column("a", "float"),), outputs=outputs)
    assert code(V2, body % b"", signature) == ""
    assert code(V2, body % b',{"name":"y0"}', signature) == "too-many-tensors"


@pytest.mark.parametrize("protocol", [NATIVE, V1, V2])
def test_a_million_keys_were_all_read_before_they_were_refused(protocol: Any) -> None:
    keys = b",".join(b'"k%d":0' % key for key in range(MOST_MEMBERS + 3))
    refused = "invalid-row" if protocol is NATIVE else "bad-protocol-body"
    assert code(protocol, b"{" + keys + b",1" + GARBAGE) == refused
    assert code(protocol, b"{" + ROW[1:-1] + b"," + keys + b",1" + GARBAGE) == refused


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_large_object_may_have_ten_thousand_members_more_than_it_needs(more: int) -> None:
    keys = b",".join(b'"k%d":0' % key for key in range(MOST_MEMBERS + 5 + more))
    assert has_many_members(b"{" + keys + b',"last":"' + b" " * (1 << 20) + b'"}', 5) is (more == 1)
    assert not has_many_members(b"{" + keys + b"}", 5)  # a small one costs little
    assert not has_many_members(b'{"a":{' + keys + b"}," + keys + b"," * (1 << 20), 5)  # nothing to be seen


@pytest.mark.parametrize("most", [0, 1, 256, 5000])
@pytest.mark.parametrize("apart", [1, 7, 5000])
def test_marks_are_counted_exactly(most: int, apart: int) -> None:
    one = b"," + b" " * (apart - 1)
    assert [more_than(most, one * count, b",") for count in (most, most + 1)] == [False, True]


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        (NATIVE, b"{"),
        (NATIVE, b'{"a":1}'),
        (NATIVE, b'[{"a":1},{"b":2}]'),
        (NATIVE, b"[" + b"[" * 5000),
        (NATIVE, b"[" + b",".join([ROW] * (MAX_ROWS + 1)) + b"]"),
        (V1, b'{"instances":[{"a":1}]}'),
        (V1, b'{"instances":[{"a":NaN}]}'),
        (V1, b'{"inputs":{"a":1}}'),
        (V1, b'{"instances":[' + b",".join([b'{"a":NaN}'] * (MAX_ROWS + 1)) + b"]}"),
        (V1, b'{"a":' * (MAX_ROWS + 1)),
        (V2, b"{"),
        (V2, b'{"inputs":[' + TENSOR + b"]}"),
        (V2, b'{"inputs":[' + b",".join([TENSOR] * 300) + b"]}"),
        (INVOCATIONS, b'{"dataframe_records":[{"a":1}]}'),
        (INVOCATIONS, b'{"dataframe_split":{"data":[[1]]}}'),
        (TORCHSERVE, b'[{"a":1}]'),
        (JSON_LINES, b'{"a":1}\n{'),
    ],
)
def test_refused_bodies_were_held_by_the_traceback_of_their_own_error(protocol: Any, body: bytes) -> None:
    body = bytes(bytearray(body))
    codec = protocol.codec(SUBJECT)
    without_collecting(lambda: codec.encode(codec.decode([body], None), {"y": np.zeros(0)}, {}))  # what is made once
    before = sys.getrefcount(body)
    without_collecting(lambda: codec.encode(codec.decode([body], None), {"y": np.zeros(0)}, {}))
    assert sys.getrefcount(body) == before


def test_rows_that_a_model_refused_were_held_by_the_traceback_of_its_error() -> None:
    def refuse(_: Any) -> Any:
        raise error("invalid-row", "not this one")

    values = np.zeros(4)
    held = weakref.ref(values)
    isolation = Isolation(refuse, 8, bisect=True, check=lambda _: {}, on_raise=lambda _: None)
    columns = {"a": values}
    del values
    without_collecting(lambda: isolation.run(columns, 4))
    columns.clear()
    assert held() is None


def without_collecting(act: Callable[[], object]) -> None:
    """Do something with no help of the garbage collector."""
    gc.disable()
    try:
        act()
    finally:
        gc.enable()
