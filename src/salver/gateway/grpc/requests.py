"""What the gateway reads of a ModelInferRequest: its model, and the parameters that are the gateway's to heed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from salver.errors import error
from salver.protocols import protobuf

MOST_PARAMETERS: Final = 64
_NAME: Final = 0x0A
_VERSION: Final = 0x12
_ID: Final = 0x1A
_PARAMETER: Final = 0x22
_EMPTY: Final = memoryview(b"")


class Wishes(NamedTuple):
    """What a request asks of the gateway.

    `timeout` is how many nanoseconds its answer may take, 0 for as long as others; `ends` asks for a last message
    behind an answer in pieces. Where it is streamed, that and errors are told under the request's `id`.
    """

    timeout: int = 0
    ends: bool = False
    id: str = ""


NONE: Final = Wishes()


def read(request: bytes) -> tuple[str, str, Wishes]:
    """The model and version that a request names, and what it wishes.

    They stand before the tensors, as every writer of protobuf puts them; a worker refuses a request that names another
    version further on. Raises `bad-protocol-body`, or `too-large` for too many parameters.
    """
    try:
        if len(request) > 2 and request[0] == _NAME and request[1] < 128:
            at = 2 + request[1]
            model, version = request[2:at].decode(), ""
            if len(request) > at + 1 and request[at] == _VERSION and request[at + 1] < 128:
                start, at = at + 2, at + 2 + request[at + 1]
                version = request[start:at].decode()
            after = request[at] if at < len(request) else 0
            if after in (_ID, _PARAMETER):
                return model, version, _wishes(_small(request, at))
            if after != _VERSION:
                return model, version, NONE
        found = protobuf.fields(request)
        named = dict(found)
        model, version = (protobuf.text(named.get(key, _EMPTY)) for key in (_NAME, _VERSION))
        return model, version, _wishes((key, value) for key, value in found if key in (_ID, _PARAMETER))
    except (ValueError, IndexError) as problem:
        raise error("bad-protocol-body", f"the message can't be read: {problem}") from None


def ends_last(model: str, number: int, named: str) -> bytes:
    """The last ModelStreamInferResponse behind an answer in pieces: no outputs, only that it is the last."""
    head = protobuf.string(1, model) + protobuf.string(2, str(number)) + protobuf.string(3, named)
    return protobuf.block(2, head + LAST)


def ends_wrong(words: str, named: str) -> bytes:
    """The ModelStreamInferResponse of a request that is not answered: why, and which one it is, if it has a name."""
    which = protobuf.string(3, named)
    return protobuf.string(1, words) + (protobuf.block(2, which) if which else b"")


def _is_last(value: bytes) -> bytes:
    return protobuf.block(4, protobuf.string(1, "triton_final_response") + protobuf.block(2, value))


LAST: Final = _is_last(b"\x08\x01")
"""Behind a ModelInferResponse: nothing follows it for its request."""
NOT_LAST: Final = _is_last(b"\x08\x00")
"""The same: more follows."""


def _small(request: bytes, at: int) -> Iterable[tuple[int, Any]]:
    """The id and the parameters that stand at `at`, one after the other."""
    view = memoryview(request)
    while at < len(view) and view[at] in (_ID, _PARAMETER):
        key = view[at]
        size, at = protobuf.varint(view, at + 1)
        if at + size > len(view):
            raise protobuf.Malformed(f"field {key >> 3} is longer than the message")
        yield key, view[at : at + size]
        at += size


def _wishes(found: Iterable[tuple[int, Any]]) -> Wishes:
    named, timeout, ends, count = _EMPTY, 0, False, 0
    for key, value in found:
        if key == _ID:
            named = value
            continue
        count += 1
        if count > MOST_PARAMETERS:
            raise error("too-large", f"the request has over {MOST_PARAMETERS} parameters")
        entry = dict(protobuf.fields(value, MOST_PARAMETERS))
        name = entry.get(10, _EMPTY)
        if name == b"timeout":
            said = dict(protobuf.fields(entry.get(18, _EMPTY), MOST_PARAMETERS))
            timeout = max(0, protobuf.signed(said.get(16) or said.get(40) or 0)) * 1000
        elif name == b"triton_enable_empty_final_response":
            ends = bool(dict(protobuf.fields(entry.get(18, _EMPTY), MOST_PARAMETERS)).get(8))
    if not timeout and not ends and not named:
        return NONE
    return Wishes(timeout, ends, protobuf.text(named))
