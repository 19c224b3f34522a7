"""The shell around the batcher, on a loop whose time stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from salver.dispatch.call import Call, Limits
from salver.dispatch.dispatcher import Dispatcher
from salver.frames import Form

NATIVE = Form("native")


class Loop:
    """Remembers what is to be called later."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        assert delay > 0
        self.timers.append(callback)
        return callback

    def call_soon(self, *_: Any) -> None:
        """No turn of this loop ever comes."""


class Again:
    """A client that asks again as soon as it was told that nobody answered."""

    def __init__(self, loop: Any) -> None:
        self.dispatcher = Dispatcher(loop, Limits(), self, retry=True)
        self.failures = 0

    def ask(self) -> None:
        assert self.dispatcher.submit(Call(self.failures, NATIVE, 1, b"x", None, 0)) == ""

    def failed(self, call: Call, code: str) -> None:
        assert (call.id, code) == (self.failures, "deadline-exceeded")
        self.failures += 1
        self.ask()

    def answered(self, *_: Any) -> None: ...

    def pieced(self, *_: Any) -> None: ...

    def counted(self, *_: Any) -> None: ...


def test_requests_that_are_followed_by_others_when_their_deadline_passes_keep_one_timer() -> None:
    loop = Loop()
    client = Again(loop)
    client.ask()
    for turn in range(1, 10):
        [sweep] = loop.timers
        loop.timers.clear()
        sweep()
        assert client.failures == turn
