"""What calls share: a connection, where a proxy mixes callers on one, and the look at what is served, if they watch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hpack import Decoder

from salver.access.decide import Access
from salver.access.keys import Key, digest, mint
from salver.access.principal import Principal
from salver.access.terms import Grants, Terms
from salver.gateway import http2_frames as h2
from salver.gateway.callers import Callers
from salver.gateway.http2_frames import Cutter, Frame
from salver.gateway.table import Table
from tests.property.http2_world import MANY, ONE, World, message
from tests.unit.test_http2_limits import GREETING, opened, parts, status

HEALTH = "/grpc.health.v1.Health"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = (bytes([8, number]) for number in (1, 2, 3))


def frames(said: bytes) -> list[Frame]:
    return list(Cutter().feed(said))


class Shop:
    """A port that knows two keys, of which `shop` has as many connections as it may, elsewhere."""

    def __init__(self) -> None:
        self.world = World()
        tokens = {name: mint(name) for name in ("shop", "other")}
        access = Access(Terms(keys="keys"))
        access.take(Grants(tuple(Key(name, digest(token.encode())) for name, token in tokens.items())))
        self.world.front.access = access
        self.world.front.callers = Callers(1)
        self.by = {name: ("authorization", f"Bearer {token}") for name, token in tokens.items()}
        shop = access.check(self.by["shop"][1].encode(), "predict", "", 0.0)
        assert isinstance(shop, Principal)
        assert self.world.front.callers.hold("elsewhere", shop) is None

    async def ask(self, number: int, name: str) -> list[Frame]:
        asked = opened(number, ONE, self.by[name]) + parts(number, message(b"hello"), ends=True)
        return frames(await self.world.say(asked))


def test_a_caller_with_too_many_connections_does_not_end_the_calls_of_others_on_the_one_it_shares() -> None:
    async def story() -> None:
        shop = Shop()
        await shop.world.say(GREETING + opened(1, MANY, shop.by["other"]))
        refused = await shop.ask(3, "shop")
        assert status(refused, 3) == "8"
        assert h2.GOAWAY not in [kind for kind, *_ in refused]
        assert status(await shop.ask(5, "other"), 5) == "0"
        echoed = frames(await shop.world.say(parts(1, message(b"still here"))))
        assert message(b"still here") in [payload for kind, _, number, payload in echoed if (kind, number) == (0, 1)]

    asyncio.run(story())


def test_a_connection_that_is_nobodys_ends_with_the_first_call_that_is_one_too_many() -> None:
    async def story() -> None:
        shop = Shop()
        await shop.world.say(GREETING)
        refused = await shop.ask(1, "shop")
        assert status(refused, 1) == "8"
        assert h2.GOAWAY in [kind for kind, *_ in refused]
        assert shop.world.pipe.closed

    asyncio.run(story())


class Loop(asyncio.SelectorEventLoop):
    """A loop whose timers go off when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[Callable[[], object]] = []

    def call_later(self, delay: float, callback: Any, *args: Any, **more: Any) -> asyncio.TimerHandle:
        self.timers.append(lambda: callback(*args))
        return super().call_later(delay + 3600, callback, *args, **more)

    def go_off(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()


def watching(story: Callable[[World, Loop], Awaitable[None]]) -> None:
    async def told() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        world = World()
        await world.say(GREETING)
        await story(world, loop)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(told())


def watch(number: int, name: str = "") -> bytes:
    """A Watch of one service."""
    asked = b"\n" + bytes([len(name)]) + name.encode() if name else b""
    return opened(number, f"{HEALTH}/Watch") + parts(number, message(asked), ends=True)


def told(said: bytes) -> dict[int, list[bytes]]:
    """The statuses that each stream was told."""
    found: dict[int, list[bytes]] = {}
    for kind, _, number, payload in Cutter().feed(said):
        if kind == h2.DATA:
            found.setdefault(number, []).append(payload[5:])
    return found


def route(world: World, *models: str) -> None:
    world.front.serving.table = Table(1, (), {}, models, {})


def test_all_watches_of_a_port_share_one_look() -> None:
    async def story(world: World, loop: Loop) -> None:
        numbers = range(1, 100, 2)
        said = await world.say(b"".join(watch(number, ("", "m", "n")[number % 3]) for number in numbers))
        unknown = [number for number in numbers if number % 3]
        assert told(said) == {number: [SERVICE_UNKNOWN if number in unknown else NOT_SERVING] for number in numbers}
        for _ in range(3):
            assert len(loop.timers) == 1
            loop.go_off()
            assert told(await world.say(b"")) == {}
        route(world, "m", "n")
        loop.go_off()
        assert told(await world.say(b"")) == {number: [NOT_SERVING] for number in unknown}
        route(world, "n")
        loop.go_off()
        assert told(await world.say(b"")) == {number: [SERVICE_UNKNOWN] for number in numbers if number % 3 == 1}

    watching(story)


def test_nobody_looks_once_the_last_watch_has_ended() -> None:
    async def story(world: World, loop: Loop) -> None:
        await world.say(watch(1) + watch(3, "m"))
        await world.say(h2.rst_stream(1, h2.CANCEL))
        loop.go_off()
        assert len(loop.timers) == 1
        world.connection.connection_lost(None)
        loop.go_off()
        assert not loop.timers

    watching(story)


def test_a_watch_that_was_not_read_hears_the_newest_status_and_a_late_one_hears_what_holds_now() -> None:
    async def story(world: World, loop: Loop) -> None:
        await world.say(h2.frame(h2.SETTINGS, 0, 0, b"\0\4\0\0\0\0") + watch(1, "m"))
        route(world, "m")
        loop.go_off()
        route(world)
        loop.go_off()
        route(world, "m")
        loop.go_off()
        assert told(await world.say(h2.window_update(1, 100))) == {1: [SERVICE_UNKNOWN, NOT_SERVING]}
        route(world)
        late = watch(3, "m") + h2.window_update(3, 100)
        assert told(await world.say(late)) == {1: [SERVICE_UNKNOWN], 3: [SERVICE_UNKNOWN]}
        loop.go_off()
        assert told(await world.say(b"")) == {}

    watching(story)


def test_a_watch_ends_when_the_server_goes() -> None:
    async def story(world: World, loop: Loop) -> None:
        await world.say(watch(1))
        world.connection.dismiss()
        said = frames(await world.say(b""))
        [block] = [payload for kind, flags, number, payload in said if kind == h2.HEADERS]
        assert dict(Decoder().decode(block))["grpc-status"] == "14"
        loop.go_off()
        assert not loop.timers

    watching(story)
