"""Frames v1: what gateway, dispatcher and worker say to each other over a unix socket.

A frame is a 6-byte head (payload length as uint32 little-endian, version, kind) and a msgpack payload whose fields
are typed and checked when it is read. Nothing is ever pickled.

    worker → dispatcher   HELLO once per connection, STARTED, PIECE, ANSWERS, COUNTED, GOLDEN_RESULT
    dispatcher → worker   BATCH, MORE, CANCEL, GOLDEN

One BATCH holds the requests that waited and are read alike, in columns: a list of numbers and a list of bodies cost a
fraction of an object per request. One ANSWERS holds the replies to one of them, in any order, each with the id of its
request; the common ones, a row answered in JSON, are columns too. All carry the generation of the connection.

A streamed answer comes in PIECEs and ends with its reply. A worker is at most AHEAD pieces ahead of the MOREs that
it got, so that a slow reader holds up its own model call and nothing else.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec
from msgspec import Struct

from salver.errors import error

VERSION: Final = 1
HEAD: Final = struct.Struct("<IBB")
MAX_PAYLOAD: Final = 256 << 20

HELLO: Final = 1
BATCH: Final = 2
CANCEL: Final = 3
STARTED: Final = 4
ANSWERS: Final = 5
GOLDEN: Final = 6
GOLDEN_RESULT: Final = 7
COUNTED: Final = 8
PIECE: Final = 9
MORE: Final = 10

AHEAD: Final = 8
"""How many pieces of a stream a worker makes before it is asked for more."""


class Hello(Struct, array_like=True):
    """A worker's first word on a connection: it has loaded this release and reproduced its golden rows."""

    release: str
    id: str
    pid: int
    max_batch: int
    load_ms: float
    proven: bool


class Form(Struct, array_like=True, frozen=True):
    """How a body is read: the protocol it is written in, and the options that came beside it."""

    protocol: str
    options: dict[str, str] | None = None


class Batch(Struct, array_like=True, gc=False):
    """Requests of one form for the worker: their ids, deadlines, and bodies as they came.

    A deadline is in nanoseconds of the machine's monotonic clock, 0 for none. `alone` asks for a batch of its own,
    announced by STARTED (it may kill the worker). `traces` holds a W3C traceparent per request, or nothing at all.
    """

    generation: int
    form: Form
    ids: list[int]
    deadlines: list[int]
    bodies: list[bytes]
    alone: bool = False
    traces: list[str] = []


class Cancel(Struct, array_like=True):
    """Nobody waits for these requests any more."""

    generation: int
    ids: list[int]


class Started(Struct, array_like=True):
    """The worker is about to execute this request alone."""

    generation: int
    id: int


class Reply(Struct, array_like=True, gc=False):
    """The answer to one request, spelled out.

    `status` is the HTTP status and `body` is encoded in the request's protocol, of type `content_type`. `rows` counts
    its rows, `row_errors` those that failed. `code` is the error's code or empty. `position` is its first row's place
    in the batch. `headers` are further header lines of the answer, each with its line end.
    """

    id: int
    status: int
    body: bytes
    rows: int = 1
    row_errors: int = 0
    code: str = ""
    content_type: str = "application/json"
    position: int = 0
    headers: str = ""


class Answers(Struct, array_like=True, gc=False):
    """The replies to one BATCH: number and rows of the model call, nanoseconds spent to decode, predict and encode.

    Where one call answered several batches, of one connection or of several, the first says its rows, each its times.
    `ids` and `bodies` are requests of one row each that were answered with 200 in JSON; they lie one after the other
    in the batch, from row `first` on. `replies` are all others.
    """

    generation: int
    batch: int
    rows: int = 0
    decode_ns: int = 0
    predict_ns: int = 0
    encode_ns: int = 0
    replies: list[Reply] = []
    ids: list[int] = []
    bodies: list[bytes] = []
    first: int = 0


class Counted(Struct, array_like=True):
    """What was odd in the requests that were just answered; sent after the answers, and only if there is something.

    `extra_fields` are not in the signature and were ignored; `unseen_values` lie outside its ranges and categories.
    """

    generation: int
    extra_fields: int
    unseen_values: int


class Piece(Struct, array_like=True, gc=False):
    """A part of the answer to a request, written in its protocol; others follow, then its reply."""

    generation: int
    id: int
    body: bytes
    content_type: str


class More(Struct, array_like=True, gc=False):
    """The taker of this stream can take one more piece."""

    generation: int
    id: int


class Golden(Struct, array_like=True):
    """Reproduce the golden rows now."""

    generation: int


class GoldenResult(Struct, array_like=True):
    """Whether the golden rows were reproduced, and if not, which differ."""

    generation: int
    ok: bool
    problems: list[str]


Message = Hello | Batch | More | Cancel | Started | Piece | Answers | Counted | Golden | GoldenResult

_KINDS: dict[int, type[Any]] = {
    HELLO: Hello,
    BATCH: Batch,
    CANCEL: Cancel,
    STARTED: Started,
    ANSWERS: Answers,
    COUNTED: Counted,
    PIECE: Piece,
    MORE: More,
    GOLDEN: Golden,
    GOLDEN_RESULT: GoldenResult,
}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_DECODERS = {number: msgspec.msgpack.Decoder(kind) for number, kind in _KINDS.items()}
_ENCODER = msgspec.msgpack.Encoder()


def pack(message: Message) -> bytearray:
    """One frame, ready to be written; encoded behind its head, since a copy of a large one costs more than it."""
    frame = bytearray(HEAD.size)
    _ENCODER.encode_into(message, frame, HEAD.size)
    HEAD.pack_into(frame, 0, len(frame) - HEAD.size, VERSION, _NUMBERS[type(message)])
    return frame


class Reader:
    """Cuts a byte stream into messages; feed it what arrives."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """Return every message that is now complete; raise `bad-request` on bytes that are no frame."""
        if self._buffer:
            self._buffer += data
            data = self._buffer
        messages: list[Message] = []
        start, end = 0, len(data)
        with memoryview(data) as view:
            while end - start >= HEAD.size:
                length, version, kind = HEAD.unpack_from(view, start)
                if version != VERSION or kind not in _DECODERS or length > MAX_PAYLOAD:
                    raise error("bad-request", f"not a frame of version {VERSION}: version {version}, kind {kind}")
                stop = start + HEAD.size + length
                if stop > end:
                    break
                try:
                    messages.append(_DECODERS[kind].decode(view[start + HEAD.size : stop]))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
                    raise error("bad-request", f"a frame of kind {kind} can't be read: {problem}") from None
                start = stop
        if data is self._buffer:
            del self._buffer[:start]
        elif start < end:
            self._buffer += data[start:]
        return messages
