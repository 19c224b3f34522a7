"""What an HTTP/2 connection may hold, and for how long: time is an argument, so that nothing waits here."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from hpack import Decoder

from salver import metrics
from salver.gateway import http2_frames as h2
from salver.gateway.http2_frames import Cutter, Frame, frame
from salver.limits import Limits
from tests.property.http2_world import MANY, ONE, World, head, message

GREETING = h2.PREFACE + h2.settings({})


def opened(number: int, path: str = ONE, *more: tuple[str, str], flags: int = h2.END_HEADERS) -> bytes:
    """HEADERS without a table, so that every stream may have the same."""
    plain = b"".join(literal_of(*pair) for pair in [*head(path), *more])
    return frame(h2.HEADERS, flags, number, plain)


def literal_of(name: str, value: str) -> bytes:
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def later(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)


def run(story: Callable[[World], Awaitable[None]], **limits: float) -> None:
    async def told() -> None:
        await story(World(Limits(**limits)))  # type: ignore[arg-type]

    asyncio.run(told())


async def after(world: World, seconds: float) -> list[Frame]:
    """What the connection says when it is looked at so much later."""
    world.connection.check_time(later(seconds))
    return list(Cutter().feed(await world.say(b"")))


def hits(world: World, limit: str) -> float:
    """How often a limit was counted; no other one may have been."""
    at = metrics.GATEWAY_AT["salver_limit_hits"]
    counts = dict(zip(metrics.LIMITS, world.block.cells[at : at + len(metrics.LIMITS)], strict=True))
    assert {name for name, count in counts.items() if count} <= {limit}
    return counts[limit]


def status(frames: list[Frame], number: int) -> str:
    [block] = [p for kind, flags, n, p in frames if (kind, n) == (h2.HEADERS, number) and flags & h2.END_STREAM]
    return dict(Decoder().decode(block))["grpc-status"]


def test_a_client_that_says_nothing_or_half_a_head_is_cut_off() -> None:
    async def story(world: World) -> None:
        assert not await after(world, 9)
        assert [each[0] for each in await after(world, 11)] == [h2.GOAWAY]
        assert world.pipe.closed

    async def half(world: World) -> None:
        await world.say(GREETING + opened(1, flags=0))
        assert not await after(world, 9)
        [[kind, _, _, payload]] = await after(world, 11)
        assert (kind, payload[4:8]) == (h2.GOAWAY, b"\0\0\0\x0b")

    run(story)
    run(half)


def test_a_message_that_comes_too_slowly_ends_its_call_alone() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING + opened(1) + frame(h2.DATA, 0, 1, message(b"x" * 60_000)[:15_000]))
        assert not await after(world, 20)
        frames = await after(world, 40)
        assert status(frames, 1) == "4"
        assert frames[-1] == (h2.RST_STREAM, 0, 1, bytes(4))
        assert not world.pipe.closed

    run(story)


def test_an_idle_connection_is_told_before_it_is_closed_and_may_still_ask() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING)
        assert not await after(world, 74)
        goaway, ping = await after(world, 76)
        assert goaway[3][:4] == b"\x7f\xff\xff\xff"
        asked = opened(1) + frame(h2.DATA, h2.END_STREAM, 1, message(b"late"))
        assert status(list(Cutter().feed(await world.say(asked))), 1) == "0"
        [last] = list(Cutter().feed(await world.say(frame(h2.PING, h2.ACK, 0, ping[3]))))
        assert last[3][:8] == b"\0\0\0\1" + bytes(4)
        assert world.pipe.closed

    run(story)


def test_an_answer_that_nobody_takes_is_dropped_and_new_calls_wait_for_those_that_are_owed() -> None:
    async def story(world: World) -> None:
        await world.say(h2.PREFACE + h2.settings({h2.WINDOW: 0}))
        await world.say(opened(1) + frame(h2.DATA, h2.END_STREAM, 1, message(b"x" * 2000)))
        assert world.connection.owed == 2005
        refused = await world.say(opened(3) + frame(h2.DATA, h2.END_STREAM, 3, message(b"")))
        assert status(list(Cutter().feed(refused)), 3) == "14"
        assert hits(world, "large-answers") == 1
        assert not await after(world, 59)
        assert await after(world, 61) == [(h2.RST_STREAM, 0, 1, b"\0\0\0\x08")]
        assert (world.connection.owed, len(world.connection.streams)) == (0, 0)

    run(story, large_answers=2000)


def test_a_client_that_does_not_read_is_cut_off() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING)
        world.connection.pause_writing()
        await after(world, 59)
        assert not world.pipe.closed
        await after(world, 61)
        assert world.pipe.closed

    run(story)


def granted(data: bytes) -> dict[int, int]:
    return {n: int.from_bytes(p, "big") for kind, _, n, p in Cutter().feed(data) if kind == h2.WINDOW_UPDATE and n}


def test_large_messages_come_one_after_the_other_where_they_would_be_too_much_at_once() -> None:
    async def story(world: World) -> None:
        size = 300_000
        whole = message(bytes(size))
        await world.say(GREETING)
        first = await world.say(opened(1) + frame(h2.DATA, 0, 1, whole[:5]))
        assert granted(first) == {1: size - (64 << 10) + 5}
        waits = await world.say(opened(3) + frame(h2.DATA, 0, 3, whole[:5]))
        assert granted(waits) == {}
        assert hits(world, "large-messages") == 1
        small = await world.say(opened(5) + frame(h2.DATA, h2.END_STREAM, 5, message(b"small")))
        assert status(list(Cutter().feed(small)), 5) == "0"
        parts = [frame(h2.DATA, 0, 1, whole[at : at + h2.LARGEST]) for at in range(5, len(whole), h2.LARGEST)]
        done = await world.say(b"".join(parts) + frame(h2.DATA, h2.END_STREAM, 1))
        assert granted(done)[3] == size - (64 << 10) + 5

    run(story, large_messages=400_000)


def parts(number: int, data: bytes, *, ends: bool = False) -> bytes:
    """The DATA of a stream."""
    cut = [frame(h2.DATA, 0, number, data[at : at + h2.LARGEST]) for at in range(0, len(data), h2.LARGEST)]
    return b"".join(cut) + (frame(h2.DATA, h2.END_STREAM, number) if ends else b"")


def whole(size: int) -> bytes:
    return message(bytes(size))


async def begin(world: World, number: int, size: int, path: str = ONE) -> dict[int, int]:
    """What is granted at the first bytes of a message so large."""
    return granted(await world.say(opened(number, path) + parts(number, whole(size)[:5])))


def test_a_message_that_waits_for_room_gets_it_when_those_before_it_in_the_queue_went_on_without() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING)
        for number in (1, 3):
            assert await begin(world, number, 200_000)
        for number in (5, 7, 9):
            assert not await begin(world, number, 100_000)
            assert granted(await world.say(parts(number, bytes(40_000)))), "few enough are missing now"
        assert not await begin(world, 11, 300_000)
        for number in (1, 3):
            done = await world.say(parts(number, bytes(200_000), ends=True))
        assert granted(done)[11] == 300_000 - (64 << 10) + 5

    run(story, large_messages=400_000)


def test_nothing_is_kept_of_a_stream_that_was_reset_while_it_waited_for_room() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING)
        await begin(world, 1, 300_000)
        await begin(world, 3, 300_000)
        stream = world.connection.streams[3]
        await world.say(h2.rst_stream(3, h2.CANCEL))
        assert sys.getrefcount(stream) == 2  # here, and as its argument

    run(story, large_messages=400_000)


def test_a_message_that_waited_for_room_and_has_it_must_come_as_fast_as_others() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING)
        await begin(world, 1, 300_000)
        await begin(world, 3, 100_000)
        assert granted(await world.say(parts(3, bytes(40_000))))
        frames = await after(world, 61)
        assert status(frames, 3) == "4"

    run(story, large_messages=300_000)


def test_who_waits_for_room_is_not_passed_by_smaller_ones_for_ever_and_makes_way_when_it_goes() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING)
        await begin(world, 1, 300_000)
        assert not await begin(world, 3, 300_000)
        assert not await begin(world, 5, 99_000), "3 came first"
        assert granted(await world.say(h2.rst_stream(3, h2.CANCEL)))[5]

    run(story, large_messages=400_000)


def test_a_large_message_behind_another_one_in_the_same_frame_waits_for_room_too() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING)
        await begin(world, 1, 70_000, MANY)
        await begin(world, 3, 300_000)
        said = await world.say(parts(1, bytes(70_000) + whole(300_000)[:5]))
        assert sum(granted(said).values()) <= 128 << 10
        done = await world.say(parts(3, bytes(300_000), ends=True))
        assert granted(done)[1] > 128 << 10

    run(story, large_messages=400_000)


def test_a_large_message_counts_until_its_call_is_whole_and_a_second_one_is_refused_at_once() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING)
        await begin(world, 1, 300_000)
        assert not granted(await world.say(parts(1, bytes(300_000)))).get(3)
        assert not await begin(world, 3, 300_000), "the first one is kept, for its call has not ended"
        second = await world.say(parts(1, whole(300_000)[:5]))
        assert status(list(Cutter().feed(second)), 1) == "3"
        assert granted(second)[3] == 300_000 - (64 << 10) + 5

    run(story, large_messages=400_000)


def test_a_stream_that_ended_within_a_message_gets_no_room_for_it() -> None:
    async def story(world: World) -> None:
        await world.say(h2.PREFACE + h2.settings({h2.WINDOW: 100}))
        await begin(world, 1, 300_000)
        await world.say(opened(3, MANY) + parts(3, whole(1000) + whole(300_000)[:5], ends=True))
        assert world.connection.streams[3].pending, "its end waits for the answer to its first message"
        assert not await begin(world, 5, 300_000)
        done = await world.say(parts(1, bytes(300_000), ends=True))
        assert list(granted(done)) == [1, 5]

    run(story, large_messages=400_000)


def aged(world: World, number: int, seconds: float) -> None:
    """As if what is open of a stream were older."""
    stream = world.connection.streams[number]
    stream.since -= int(seconds * 1e9)
    if stream.stalled:
        stream.stalled -= int(seconds * 1e9)


def test_a_message_of_a_stream_gets_no_more_time_by_a_byte_now_and_then() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING + opened(1, MANY) + parts(1, whole(60_000)[:59_000]))
        aged(world, 1, 59)
        await world.say(parts(1, b"x"))
        frames = await after(world, 2)
        assert status(frames, 1) == "4"
        assert hits(world, "slow-body") == 1

    async def too_slow(world: World) -> None:
        await world.say(GREETING + opened(1, MANY) + parts(1, whole(60_000)[:15_000]))
        assert not await after(world, 20)
        assert status(await after(world, 40), 1) == "4"

    async def next_one(world: World) -> None:
        await world.say(GREETING + opened(1, MANY) + parts(1, whole(10_000)[:9_000]))
        aged(world, 1, 15)
        await world.say(parts(1, bytes(1_005) + whole(10_000)[:5]))
        assert not await after(world, 9), "each message has its own time"

    run(story)
    run(too_slow)
    run(next_one)


def test_a_message_that_is_not_taken_because_answers_wait_is_not_called_slow() -> None:
    async def story(world: World) -> None:
        await world.say(h2.PREFACE + h2.settings({h2.WINDOW: 100}))
        await world.say(opened(1, MANY) + parts(1, whole(1000) * 2 + whole(1000)[:5]))
        assert not await after(world, 50)
        aged(world, 1, 50)
        await world.say(h2.window_update(1, 4000))
        assert not await after(world, 9)
        assert status(await after(world, 61), 1) == "4"

    run(story)


def test_an_answer_gets_no_more_time_by_a_byte_of_room_now_and_then() -> None:
    async def story(world: World) -> None:
        await world.say(h2.PREFACE + h2.settings({h2.WINDOW: 0}))
        await world.say(opened(1) + parts(1, whole(2000), ends=True))
        aged(world, 1, 59)
        await world.say(h2.window_update(1, 1))
        assert await after(world, 2) == [(h2.RST_STREAM, 0, 1, b"\0\0\0\x08")]
        assert hits(world, "slow-read") == 1

    async def many(world: World) -> None:
        await world.say(h2.PREFACE + h2.settings({h2.WINDOW: 1000}))
        await world.say(opened(1, MANY) + parts(1, whole(1500)))
        aged(world, 1, 59)
        await world.say(h2.window_update(1, 505) + parts(1, whole(1500)))
        assert not await after(world, 59), "each message has its own time"

    run(story)
    run(many)


def test_a_stream_takes_no_more_while_its_answers_wait_to_be_read() -> None:
    async def story(world: World) -> None:
        await world.say(h2.PREFACE + h2.settings({h2.WINDOW: 100}))
        await world.say(opened(1, MANY))
        said = b""
        for _ in range(4):
            said += await world.say(frame(h2.DATA, 0, 1, message(b"y" * 16_000)))
        assert granted(said) == {}
        assert world.connection.owed < 33_000
        more = b"".join([await world.say(h2.window_update(1, 40_000)) for _ in range(3)])
        assert granted(more)[1] > 0
        assert world.connection.owed == 0

    run(story)


def test_streams_over_the_limit_are_counted() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING + opened(1))
        assert not await world.say(opened(3))
        assert hits(world, "streams") == 0
        [reset] = list(Cutter().feed(await world.say(opened(5))))
        assert reset == (h2.RST_STREAM, 0, 5, h2.REFUSED_STREAM.to_bytes(4, "big"))
        assert hits(world, "streams") == 1
        assert not world.pipe.closed

    run(story, streams=2)


def test_a_connection_that_resets_more_streams_than_the_limit_ends_and_is_counted_once() -> None:
    async def story(world: World) -> None:
        await world.say(GREETING)
        for number in (1, 3, 5):
            await world.say(opened(number) + h2.rst_stream(number, h2.CANCEL))
        assert (hits(world, "resets"), world.pipe.closed) == (0, False)
        said = await world.say(opened(7) + h2.rst_stream(7, h2.CANCEL))
        assert [payload[4:8] for kind, _, _, payload in Cutter().feed(said) if kind == h2.GOAWAY] == [b"\0\0\0\x0b"]
        assert (hits(world, "resets"), world.pipe.closed) == (1, True)

    run(story, resets=3)


def test_a_connection_with_more_odd_frames_than_the_limit_ends_and_is_counted_once() -> None:
    async def story(world: World) -> None:
        ping = frame(h2.PING, 0, 0, bytes(8))
        await world.say(GREETING + ping * 3)  # the settings are one of four
        assert (hits(world, "odd-frames"), world.pipe.closed) == (0, False)
        await world.say(ping)
        assert (hits(world, "odd-frames"), world.pipe.closed) == (1, True)

    run(story, odd_frames=4)
