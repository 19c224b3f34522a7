"""What `promote` and `rollback` share: making a move, seeing it come into force, and saying so."""

from __future__ import annotations

import getpass
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from salver.errors import SalverError, error

if TYPE_CHECKING:
    from salver.rollout.move import Intent
    from salver.route import Route
    from salver.settings import Settings
    from salver.supervisor.status import RunningServer


class Followed(Struct, frozen=True):
    """What one server made of a route: `effective`, `refused`, `timeout`, `gone`; seconds since it was told."""

    address: str
    pid: int
    state: str
    seconds: float
    failure: dict[str, Any] | None = None


class Move(Struct, frozen=True):
    """A route that was put in force, what was live before, and what each server on this machine made of it."""

    model: str
    live: str
    was: str | None
    seq: int
    changed: bool
    servers: list[Followed]


def intent(why: str) -> Intent:
    """Who moves the route (the user of this process), now, and why."""
    from salver.rollout.move import Intent

    try:
        actor = getpass.getuser()
    except (OSError, KeyError):
        actor = "unknown"
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Intent(actor, at, why)


def follow(settings: Settings, before: Route | None, route: Route) -> Move:
    """Tell the servers of this registry on this machine, and wait until each has the route in force or refuses it."""
    from salver.cli.terminal import working
    from salver.supervisor import status

    began = time.monotonic()
    running = [each for each in status.servers(settings.registry) if not each.models or route.model in each.models]
    status.nudge(running)
    followed = []
    for server in running:
        with working(f"{server.http}: {route.model}@{route.live} is loaded and proven"):
            followed.append(_await(server, route, settings.serve.load_timeout, began))
    return Move(
        model=route.model,
        live=f"{route.model}@{route.live}",
        was=f"{route.model}@{before.live}" if before else None,
        seq=route.seq,
        changed=before is None or before.seq != route.seq,
        servers=[each for each in followed if each.state != "not-served"],
    )


def report(move: Move, *, as_json: bool) -> None:
    """Print what happened; raises where a server refused the release or could not follow."""
    from salver.cli.overview import plain
    from salver.cli.terminal import print_json

    if as_json:
        print_json(plain(move))
    else:
        _print(move)
    for server in move.servers:
        if server.state != "effective":
            raise _problem(move, server)


def _await(server: RunningServer, route: Route, timeout: float, began: float) -> Followed:
    from salver.supervisor import status

    try:
        answer = status.wait_effective(server, route.model, route.seq, timeout)
    except SalverError:
        answer = {"state": "gone"}
    seconds = round(time.monotonic() - began, 3)
    address = server.http.removeprefix("http://")
    return Followed(address, server.pid, answer["state"], seconds, answer.get("failure"))


def _print(move: Move) -> None:
    from rich.markup import escape

    from salver.cli.terminal import print_line

    refused = any(server.state != "effective" for server in move.servers)
    was = f" (was {move.was})" if move.was and move.was != move.live else ""
    said = f"[bold]{escape(move.live)}[/bold] is {'routed' if refused else 'live'}{escape(was)}"
    if not move.changed:
        said = f"[bold]{escape(move.live)}[/bold] is live already"
    effective = [f"{each.address} after {each.seconds:.2f} s" for each in move.servers if each.state == "effective"]
    if effective:
        said += f" · effective on {', '.join(effective)}"
    elif not move.servers:
        said += " · no server on this machine follows this registry"
    print_line(said)


def _problem(move: Move, server: Followed) -> SalverError:
    where = f"the server on {server.address} (process {server.pid})"
    if server.state == "refused" and server.failure:
        reason = server.failure
        serves_on = f"; {move.was} serves on" if move.was else ""
        return error(
            reason["code"],
            f"{where} refused {move.live}{serves_on}: {reason['message']}",
            hint=reason["hint"],
            details=tuple(reason["details"]),
        )
    if server.state == "timeout":
        return error("deadline-exceeded", f"{where} has not made {move.live} live yet", hint="see its log")
    return error("no-server", f"{where} went away before {move.live} was live there", hint="see its log")
