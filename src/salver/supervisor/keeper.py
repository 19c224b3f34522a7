"""The keeper: owns the sockets and the children, restarts what dies, ends everything in order. Standard library only.

    SIGTERM: follower and gateways are told to drain → the ports close → gateways end → workers end → exit 0
    SIGINT:  the same without the delay that load balancers are granted; a second signal shortens, a third kills

It reads no network traffic. It decides nothing about releases either: the follower orders workers by name, one JSON
object per line, and gets events back. A follower that comes back is told everything it has to know to go on.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from salver.dispatch.launch import PASSED
from salver.supervisor import listeners, restart, runtime
from salver.supervisor.children import Child, pipe
from salver.supervisor.link import Lines, Link
from salver.supervisor.plan import Plan
from salver.worker.lifeline import STOP, say

STOP_GRACE = 5.0
DRAIN_MARGIN = 5.0
HURRIED_DRAIN = 2.0
LONGEST_STATUS = 1 << 20
_CHUNK = 1 << 16
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PORTS = ("listen", "admin", "grpc")


class Keeper:
    """One server's parent process."""

    def __init__(self, plan: Plan, plan_fd: int, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan = plan
        self._folder = folder
        self._clock = clock
        self._chance = random.Random()
        self._selector = selectors.DefaultSelector()
        self._children: dict[str, Child] = {}
        self._breakers: dict[str, restart.Breaker] = {}
        self._sockets = _listen(plan, folder)
        self._closing = listeners.Closing([self._sockets[name] for name in _PORTS if name in self._sockets])
        self._memory = [listeners.memory(f"salver-metrics-{i}", plan.metrics_bytes) for i in range(plan.gateways + 1)]
        self._usage = listeners.memory("salver-usage", plan.usage_bytes * plan.gateways) if plan.usage_bytes else None
        self._deaths: Counter[str] = Counter()
        self._plan_fd = plan_fd
        self._link: Link | None = None
        self._note: Any = None
        self._next_socket = 0
        self._signals = 0
        self._drain_ends: float | None = None
        self._ending = False

    def run(self) -> int:
        """Keep everything alive until told to stop; returns the exit code."""
        wake = self._hear_signals()
        runtime.announce(self._folder, self._card())
        follower = Child("follower", "follower", self._plan.follower, os.environ)
        env = {name: os.environ[name] for name in PASSED if name in os.environ}
        gateways = [Child("gateway", f"gateway/{i}", self._plan.gateway, env) for i in range(self._plan.gateways)]
        if "grpc" in self._sockets:
            self._say(f"gRPC is on {listeners.place_of(self._sockets['grpc'])}")
        self._children = {child.name: child for child in (follower, *gateways)}
        try:
            while not (self._ending and not self._children):
                self._start_due()
                for key, _ in self._selector.select(self._patience()):
                    key.data()
                self._bury()
                self._end_in_order()
        finally:
            signal.set_wakeup_fd(-1)
            wake.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        self._say("ended", event="ended")
        return 0

    def _card(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "registry": self._plan.registry,
            "models": self._plan.models,
            "http": listeners.address_of(self._sockets["listen"], tls=self._plan.tls),
            "admin": listeners.address_of(self._sockets["admin"], tls=self._plan.admin_tls),
            "grpc": listeners.place_of(self._sockets["grpc"]) if "grpc" in self._sockets else "",
        }

    # signals

    def _hear_signals(self) -> socket.socket:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (*_STOPS, signal.SIGCHLD):
            if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP:  # nohup stays respected
                signal.signal(number, lambda *_: None)

        def woken() -> None:
            for number in reader.recv(_CHUNK):
                if number in _STOPS:
                    self._told_to_stop(number)

        self._selector.register(reader, selectors.EVENT_READ, woken)
        return writer

    def _told_to_stop(self, number: int) -> None:
        self._signals += 1
        now = self._clock()
        if self._signals == 1:
            delay = self._plan.drain_delay if number == signal.SIGTERM else 0.0
            self._drain_ends = now + delay + self._plan.drain_timeout + DRAIN_MARGIN
            self._tell(event="drain")
        else:
            self._drain_ends = now if self._signals > 2 else min(self._drain_ends or now, now + HURRIED_DRAIN)
        hurry = number != signal.SIGTERM or self._signals > 1
        self._closing.begin(now if hurry else now + self._plan.drain_delay)
        for child in self._of("gateway"):
            self._stop(child, signal.SIGINT if hurry else signal.SIGTERM, until=self._drain_ends or now)
        if self._signals == 1:
            self._say_drain(number)

    def _say_drain(self, number: int) -> None:
        delay = self._plan.drain_delay if number == signal.SIGTERM else 0.0
        accepts = f"requests are taken for {delay:g} s more, then " if delay else ""
        within = f"what is in flight is answered, within {self._plan.drain_timeout:g} s"
        self._say(f"{_how(-number)}: {accepts}{within}", event="drain")

    # the order of the end

    def _end_in_order(self) -> None:
        """Close the ports when it is time; once the gateways have ended, end the rest."""
        self._closing.go_on(self._clock())
        if self._drain_ends is None or self._ending or any(self._of("gateway")):
            return
        self._ending = True
        self._unlink()  # this ends the follower, which is deaf to signals that a whole process group gets
        grace = STOP_GRACE if self._signals < 3 else 0.0
        for child in list(self._children.values()):
            self._stop(child, STOP if child.kind == "worker" else signal.SIGTERM, until=self._clock() + grace)

    def _stop(self, child: Child, number: int, until: float) -> None:
        """Ask a child to end; it is killed when `until` has passed, and never started again."""
        child.stopping, child.restart_at = True, None
        child.kill_at = until
        if child.pid is None:
            self._forget(child)
            self._tell(event="exited", name=child.name, code=None, status=child.status, restart_in=None)
        else:
            child.send(number)

    def _forget(self, child: Child) -> None:
        self._children.pop(child.name, None)
        if child.listener is not None:
            child.listener.close()
            Path(child.address).unlink(missing_ok=True)
        if child.group and not any(other.group == child.group for other in self._children.values()):
            self._set_breaker(child, restart.Breaker())
            del self._breakers[child.group]

    def _of(self, kind: str) -> list[Child]:
        return [child for child in self._children.values() if child.kind == kind]

    # children

    def _patience(self) -> float | None:
        """Seconds until something is due, None for nothing."""
        due = [at for child in self._children.values() for at in (child.restart_at, child.kill_at) if at is not None]
        due += [self._closing.due] if self._closing.due is not None else []
        due += [
            child.ready_at + restart.HEALTHY
            for child in self._of("worker")
            if child.ready_at is not None and self._breaker(child).opened is not None
        ]
        return max(0.0, min(due) - self._clock()) if due else None

    def _start_due(self) -> None:
        now = self._clock()
        for child in list(self._children.values()):
            if child.kill_at is not None and child.kill_at <= now:
                child.kill_at = None
                child.send(signal.SIGKILL)
            if child.restart_at is not None and child.restart_at <= now and not self._ending:
                self._start(child, now)
            if child.group and child.ready_at is not None:
                self._set_breaker(child, restart.healed(self._breaker(child), now - child.ready_at))

    def _start(self, child: Child, now: float) -> None:
        close: list[int] = []
        try:
            places, descriptors, close = self._equip(child)
            child.spawn(now, places, descriptors)
        except OSError as problem:
            why = f"{child.name} can't be started: {problem}"
            if child.kind == "worker":
                child.status = {"state": "failed", "code": "start-failed", "message": why}
            else:
                self._say(why)
            self._died(child, child.buried(now, 127), 127)
            return
        finally:
            for descriptor in close:
                os.close(descriptor)
        if child.kind == "follower":
            self._tell_everything()
        self._tell(event="started", **child.facts())

    def _equip(self, child: Child) -> tuple[Mapping[str, str], tuple[int, ...], list[int]]:
        """What its placeholders stand for, the descriptors it inherits, and those to close here afterwards."""
        plan = self._plan
        if child.kind == "worker":
            if child.listener is None:
                self._next_socket += 1
                path = self._folder / f"w{self._next_socket}.sock"
                child.listener, child.address = listeners.bind_unix(path), str(path)
            listen, status = child.listener.fileno(), self._status_pipe(child)
            return {"listen": str(listen), "status": str(status)}, (listen, status), [status]
        if child.kind == "follower":
            self._link = Link(self._selector, self._obey)
            link = self._link.theirs.detach()
            control, status = (self._sockets[name].fileno() for name in ("control", "status"))
            named = {"plan": self._plan_fd, "keeper": link, "control": control, "status": status}
            named["metrics"] = self._memory[-1]  # the block behind those of the gateways is the supervisor's own
            places = {name: str(number) for name, number in named.items()} | {"folder": str(self._folder)}
            return places, tuple(named.values()), [link]
        listen, admin = (self._sockets[name].fileno() for name in ("listen", "admin"))
        places = {
            "index": child.name.rpartition("/")[2],
            "listen": str(listen),
            "admin": str(admin),
            "grpc": str(self._sockets["grpc"].fileno()) if "grpc" in self._sockets else "-1",
            "control": str(self._folder / runtime.CONTROL),
            "metrics": ",".join(map(str, self._memory)),
            "drain_delay": str(plan.drain_delay),
            "drain_timeout": str(plan.drain_timeout),
            "limits": plan.limits,
            "access": plan.access,
            "dialect": plan.dialect,
            "watch": plan.watch,
            "json_logs": "1" if plan.json_logs else "",
            "usage": "" if self._usage is None else f"{self._usage},{plan.gateways}",
        }
        shared = [self._sockets[name].fileno() for name in _PORTS if name in self._sockets]
        return places, (*shared, *self._memory, *(() if self._usage is None else (self._usage,))), []

    def _status_pipe(self, child: Child) -> int:
        reader, writer = pipe()
        lines = Lines(LONGEST_STATUS)

        def readable() -> None:
            data = b""
            with contextlib.suppress(BlockingIOError):
                data = os.read(reader, _CHUNK)
            for status in lines.feed(data):
                self._heard(child, status)
            if not data:
                self._selector.unregister(reader)
                os.close(reader)

        self._selector.register(reader, selectors.EVENT_READ, readable)
        return writer

    def _heard(self, child: Child, status: dict[str, Any]) -> None:
        if self._children.get(child.name) is not child or child.pid is None:
            return
        child.heard(status, self._clock())
        if status.get("state") != "alone":
            self._tell(event="status", name=child.name, pid=child.pid, status=status)

    def _bury(self) -> None:
        """Notice every child that has ended."""
        for child in list(self._children.values()):
            code = child.ended()
            if code is not None:
                self._drain_pipes()
                self._died(child, child.buried(self._clock(), code), code)

    def _drain_pipes(self) -> None:
        """Hear the last words of the dead before deciding on them."""
        for key, _ in self._selector.select(0):
            key.data()

    def _died(self, child: Child, death: restart.Death, code: int) -> None:
        if child.stopping:
            self._forget(child)
            self._tell(event="exited", name=child.name, code=code, status=child.status, restart_in=None)
            return
        if child.group and not death.refused:
            self._set_breaker(child, restart.count(self._breaker(child), death))
        opened = child.group != "" and self._breaker(child).opened is not None
        child.failures, delay = restart.next_delay(child.failures, death, opened, self._chance.random())
        child.restarts += 1
        # A release that never worked here and says why will say the same again; one that has worked may recover.
        never = death.refused and not child.once_ready and child.kind == "worker"
        child.restart_at = None if never else death.at + delay
        if child.kind == "follower":
            self._unlink()
        if child.kind != "worker":
            self._say(f"{child.name} died ({_how(code)}); it starts again in {delay:.1f} s")
        shown = None if never else round(delay, 3)
        self._tell(event="exited", name=child.name, code=code, status=child.status, restart_in=shown)
        if child.group:
            self._deaths[child.group] += 1
            self._tell(event="deaths", group=child.group, deaths=self._deaths[child.group])

    def _breaker(self, child: Child) -> restart.Breaker:
        return self._breakers.get(child.group, restart.Breaker())

    def _set_breaker(self, child: Child, breaker: restart.Breaker) -> None:
        before = self._breaker(child)
        self._breakers[child.group] = breaker
        if (before.opened is None) != (breaker.opened is None):
            self._tell(event="breaker", group=child.group, open=breaker.opened is not None, name=child.name)

    def _say(self, text: str, event: str = "keeper") -> None:
        say(event, text, as_json=self._plan.json_logs)

    # the follower

    def _unlink(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _obey(self, order: dict[str, Any]) -> None:
        """Do what the follower asks; an order that can't be followed is said and left."""
        try:
            if order["op"] == "remember":
                self._note = order["note"]
            elif order["op"] == "start":
                self._obey_start(order)
            elif order["op"] == "stop" and (child := self._children.get(order["name"])) and child.kind == "worker":
                self._stop(child, STOP, until=self._clock() + float(order["grace"]))
        except (KeyError, TypeError, ValueError, OSError) as problem:
            self._say(f"an order of the follower can't be followed: {type(problem).__name__}: {problem}")

    def _obey_start(self, order: dict[str, Any]) -> None:
        name = order["name"]
        if self._ending or name in self._children:
            return
        child = Child("worker", name, tuple(order["argv"]), order["env"])
        child.group = order["group"]
        self._children[name] = child

    def _tell(self, **event: Any) -> None:
        """Send one event to the follower, if there is one; a follower that does not listen for long is replaced."""
        if self._link is not None and not self._link.tell(event):
            self._children["follower"].send(signal.SIGKILL)

    def _tell_everything(self) -> None:
        self._tell(
            event="children",
            children=[child.facts() for child in self._children.values()],
            breakers=[group for group, breaker in self._breakers.items() if breaker.opened is not None],
            deaths=self._deaths,
            note=self._note,
            draining=self._drain_ends is not None,
            card=self._card(),
        )


def _listen(plan: Plan, folder: Path) -> dict[str, socket.socket]:
    sockets = {
        "listen": listeners.bind(plan.host, plan.port, what="the HTTP port", option="--port"),
        "admin": listeners.bind(plan.admin_host, plan.admin_port, what="the admin port", option="--admin-port"),
        "control": listeners.bind_unix(folder / runtime.CONTROL),
        "status": listeners.bind_unix(folder / runtime.STATUS),
    }
    if plan.grpc_port >= 0:
        # Gateways listen on it once a model is live: a proxy asks another server where it is refused, and only then.
        sockets["grpc"] = listeners.bind(
            plan.host, plan.grpc_port, what="the gRPC port", option="--grpc-port", listen=False
        )
    return sockets


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
