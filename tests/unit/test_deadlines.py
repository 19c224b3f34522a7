"""The deadlines of an HTTP/1 connection hold if it is looked at no sooner than it asks for; time is an argument."""

from __future__ import annotations

import asyncio
import time

import pytest

from salver.gateway.connection import LINGER_TIME, Connection
from salver.gateway.sweep import ROUND, Sweep
from salver.limits import Limits
from tests.property.http2_world import World

HEAD = b"POST /models/oracle/predict HTTP/1.1\r\nhost: localhost\r\n"
BODY = HEAD + b"content-length: 60000000\r\n\r\n"
LATE = 0.01


class Pipe(asyncio.Transport):
    """The client's end, which notes how it was ended."""

    ended = ""

    def write(self, data: object) -> None:
        del data

    def write_eof(self) -> None:
        self.ended = self.ended or "refused"

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def get_extra_info(self, name: str, default: object = None) -> object:
        del name
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...


def ends(data: bytes, looked: float, limits: Limits, *, stalled: bool = False, then: bytes = b"y") -> tuple[float, str]:
    """When and how a connection ends that is looked at so many seconds after `data` came, and then when it asks for it.

    It gets `then` after the first look, and after each further one a byte of its body or head.
    """

    async def told() -> tuple[float, str]:
        nonlocal then
        pipe = Pipe()
        connection = Connection(World(limits).front)
        connection.connection_made(pipe)
        connection.data_received(data)
        if stalled:
            connection.pause_writing()
        began = time.monotonic_ns()
        now = began + int(looked * 1e9)
        while True:
            due = connection.check_time(now)
            if pipe.ended:
                return (now - began) * 1e-9, pipe.ended
            if data:
                connection.data_received(then)
                then = b"y"
            now = max(due, now + int(LATE * 1e9))

    return asyncio.run(told())


@pytest.mark.parametrize("looked", [0.0, 0.5, 3.0, 9.9])
@pytest.mark.parametrize(
    ("data", "said", "seconds", "how"),
    [
        (HEAD + b"x: ", {}, 10.0, "refused"),
        (HEAD + b"x: ", {"header_time": 30.0}, 30.0, "refused"),
        (BODY, {}, 10.0, "refused"),
        (BODY + bytes(10_240), {}, 20.0, "refused"),
        (BODY + bytes(10_240), {"body_time": 15.0}, 15.0, "refused"),
        (BODY, {"body_rate": 0}, 60.0, "refused"),
        (b"", {}, 75.0, "closed"),
        (b"", {"keep_alive": 120.0, "header_time": 50.0}, 120.0, "closed"),
    ],
)
def test_a_connection_ends_at_its_deadline(
    data: bytes, said: dict[str, float], seconds: float, how: str, looked: float
) -> None:
    took, ended = ends(data, looked, Limits(**said))  # type: ignore[arg-type]
    assert ended == how
    assert seconds - 0.2 <= took <= seconds + 0.2


def test_the_time_of_a_body_counts_from_the_head_that_came_before_it() -> None:
    limits = Limits(header_time=30.0, body_rate_after=5.0)
    took, ended = ends(HEAD, 1.0, limits, then=b"content-length: 60000000\r\n\r\n")
    assert ended == "refused"
    assert 4.8 <= took <= 5.2


def test_a_client_that_does_not_read_is_cut_off_in_time() -> None:
    took, ended = ends(b"", 9.0, Limits(), stalled=True)
    assert ended == "aborted"
    assert 59.8 <= took <= 60.2


def test_who_was_refused_and_stays_is_cut_off_soon() -> None:
    async def told() -> None:
        pipe = Pipe()
        front, late = World(Limits()).front, 0.0
        front.sweep = Sweep(lambda: time.monotonic_ns() + int(late * 1e9))
        connection = Connection(front)
        connection.connection_made(pipe)
        connection.data_received(b"no HTTP at all\r\n\r\n")
        assert pipe.ended == "refused"
        late = LINGER_TIME - 0.5
        front.sweep.step()
        assert pipe.ended == "refused"
        late = LINGER_TIME + ROUND
        front.sweep.step()
        assert pipe.ended == "aborted"

    asyncio.run(told())
