"""Whatever frames come, in whatever pieces: valid calls are answered whole, and nothing else does any harm."""

from __future__ import annotations

import asyncio
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.gateway import http2_frames as frames
from salver.gateway.http2_frames import Cutter, frame
from salver.limits import Limits
from tests.property.http2_world import MANY, ONE, World, head, message

SIZES = st.one_of(st.integers(0, 100), st.integers(16_000, 17_000), st.integers(60_000, 200_000))
CALLS = st.lists(
    st.tuples(st.booleans(), st.lists(SIZES, min_size=1, max_size=3), st.sampled_from(["", "cancel", "ping"])),
    min_size=1,
    max_size=6,
)


class Client:
    """The client of another implementation, which checks every frame that it gets."""

    def __init__(self, window: int) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.got: dict[int, bytearray] = {}
        self.status: dict[int, str] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()

    def hear(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, DataReceived):
                self.got.setdefault(event.stream_id, bytearray()).extend(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, TrailersReceived):
                self.status[event.stream_id] = dict(event.headers)["grpc-status"]
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                self.reset.add(event.stream_id)


class Sending:
    """What is still to be said on one stream."""

    def __init__(self, number: int, data: bytes, *, cancel: bool) -> None:
        self.number = number
        self.data = data
        self.cancel = cancel
        self.done = False

    def go_on(self, client: Any) -> None:
        if self.cancel:
            client.reset_stream(self.number, 8)
            self.done = True
            return
        room = min(client.local_flow_control_window(self.number), client.max_outbound_frame_size)
        part, self.data = self.data[:room], self.data[room:]
        self.done = not self.data
        if part or self.done:
            client.send_data(self.number, part, end_stream=self.done)


async def talk(calls: list[tuple[bool, list[int], str]], window: int, pieces: int, room: int) -> None:
    world, client = World(Limits(large_messages=room)), Client(window)
    wanted: dict[int, bytes] = {}
    sending = []
    for many, sizes, more in calls:
        number = client.h2.get_next_available_stream_id()
        messages = [bytes([number % 251]) * size for size in (sizes if many else sizes[:1])]
        client.h2.send_headers(number, head(MANY if many else ONE))
        data = b"".join(map(message, messages))
        sending.append(Sending(number, data, cancel=more == "cancel"))
        if more == "ping":
            client.h2.ping(bytes(8))
        if more != "cancel":
            wanted[number] = data
    for _ in range(2000):
        for each in sending:
            if not each.done:
                each.go_on(client.h2)
        data = client.h2.data_to_send()
        for at in range(0, len(data), pieces):
            client.hear(await world.say(data[at : at + pieces]))
        client.hear(await world.say(b""))
        if client.ended >= wanted.keys():
            break
    assert {number: bytes(client.got.get(number, b"")) for number in wanted} == wanted
    assert {client.status[number] for number in wanted} <= {"0"}
    assert not client.reset
    assert not world.connection.streams
    assert world.connection.owed == 0


@settings(max_examples=60)
@given(
    calls=CALLS,
    window=st.sampled_from([1, 100, 65_535, 1 << 20]),
    pieces=st.sampled_from([7, 1000, 1 << 18]),
    room=st.sampled_from([100_000, 250_000, 128 << 20]),
)
def test_every_valid_call_is_answered_whole(
    calls: list[tuple[bool, list[int], str]], window: int, pieces: int, room: int
) -> None:
    if window < 1000:
        calls = [(many, [min(size, 300) for size in sizes], more) for many, sizes, more in calls]
    if pieces < 1000:
        calls = [(many, [min(size, 17_000) for size in sizes], more) for many, sizes, more in calls]
    asyncio.run(talk(calls, window, pieces, room))


KINDS = st.integers(0, 11)
NUMBERS = st.sampled_from([0, 1, 2, 3, 5, 7, 9, (1 << 31) - 1])
PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            Encoder().encode(head(ONE)),
            Encoder().encode(head(MANY), huffman=False),
            Encoder().encode([(":method", "GET"), ("X-Upper", "1")]),
            message(b"hello"),
            message(b"x" * 20_000),
            bytes(4),
            bytes(8),
            b"\x7f\xff\xff\xff",
            b"\0\4\0\0\0\0",
            b"\0\1\0\0\0\0",
        ]
    ),
)
FRAME = st.builds(
    lambda kind, flags, number, payload: frame(kind, flags, number, payload[: frames.LARGEST]),
    KINDS, st.sampled_from([0, 1, 4, 5, 8, 12, 13, 32, 36, 37, 255]), NUMBERS, PAYLOADS,
)  # fmt: skip


async def survive(data: bytes, pieces: int) -> None:
    world = World()
    said = b""
    for at in range(0, len(data), pieces):
        said += await world.say(data[at : at + pieces])
    connection = world.connection
    ended = {
        number for kind, flags, number, _ in Cutter().feed(b"" if said.startswith(b"HTTP/1.1 400 ") else said)
        if kind == frames.RST_STREAM or (flags & frames.END_STREAM and kind == frames.HEADERS)
    }  # fmt: skip
    for stream in connection.streams.values():
        assert stream.number not in ended, "a stream ends once"
        assert not stream.ended or stream.pending, "what was asked whole is answered"
    connection.connection_lost(None)
    assert not connection.streams
    assert connection.owed == 0
    assert not world.front.connections


@settings(max_examples=250)
@given(parts=st.lists(FRAME, max_size=12), pieces=st.sampled_from([1, 11, 1 << 18]))
def test_no_sequence_of_frames_breaks_the_server(parts: list[bytes], pieces: int) -> None:
    asyncio.run(survive(frames.PREFACE + frame(frames.SETTINGS, 0, 0) + b"".join(parts), pieces))


def recorded() -> bytes:
    client = Client(65_535)
    for number, path in ((1, ONE), (3, MANY), (5, ONE)):
        client.h2.send_headers(number, head(path))
        client.h2.send_data(number, message(b"hello" * number), end_stream=True)
    client.h2.ping(bytes(8))
    return bytes(client.h2.data_to_send())


RECORDED = recorded()


@settings(max_examples=250)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(RECORDED) - 1), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, len(RECORDED)),
    pieces=st.sampled_from([1, 5, 1 << 18]),
)
def test_no_changed_byte_breaks_the_server(changes: list[tuple[int, int]], cut: int, pieces: int) -> None:
    data = bytearray(RECORDED)
    for at, value in changes:
        data[at] = value
    asyncio.run(survive(bytes(data[:cut]), pieces))
