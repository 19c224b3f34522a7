"""`salver key`: who may call a server."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from salver.cli.app import app
from salver.cli.options import JsonFlag, gather
from salver.errors import error
from salver.settings import describe

keys = typer.Typer(no_args_is_help=True, help="Add, list and revoke API keys.", rich_markup_mode=None)
app.add_typer(keys, name="key")

USUAL = "salver-keys.jsonl"
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
RATES = ("requests", "bytes", "rows")

KeysFlag = Annotated[
    str | None, typer.Option("--keys", metavar="FILE", help=f"{describe('serve.keys')} By default {USUAL}.")
]


@keys.command()
def add(
    name: Annotated[str, typer.Argument(help="Who holds the key: shop, ci, alice.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do, repeatable; by default predict and metadata.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model, repeatable.", show_default=False)] = None,
    expires: Annotated[str, typer.Option(help="When it ends: 12h, 90d, 52w, or a date.", show_default=False)] = "",
    requests_per_second: Annotated[float | None, typer.Option(min=0, show_default=False)] = None,
    bytes_per_second: Annotated[float | None, typer.Option(min=0, show_default=False)] = None,
    rows_per_second: Annotated[float | None, typer.Option(min=0, show_default=False)] = None,
    burst: Annotated[float, typer.Option(help="Seconds' worth of a quota that may be used at once.", min=0)] = 1.0,
    priority: Annotated[int, typer.Option(help="Higher is served first.", min=-100, max=100)] = 0,
    file: KeysFlag = None,
) -> None:
    """Make a key and print its token, this once: only a hash of it is kept.

    \b
    Examples:
      salver key add shop --model churn --rows-per-second 500
      salver key add prometheus --scope metrics --expires 90d
    """
    from salver.access import file as stored
    from salver.access.keys import USUAL_SCOPES, digest, mint
    from salver.cli.terminal import note
    from salver.release import check_name

    now = datetime.now(UTC).replace(microsecond=0)
    token = mint(name)
    facts: dict[str, Any] = {
        "name": name,
        "sha256": digest(token.encode()),
        "scopes": scope or USUAL_SCOPES,
        "models": [check_name(each) for each in model or ()],
        "created": now,
        "expires": _moment(expires, now) if expires else None,
        "priority": priority,
        "quotas": {"burst": burst},
    }
    for rate, value in zip(RATES, (requests_per_second, bytes_per_second, rows_per_second), strict=True):
        if value is not None:
            facts["quotas"][f"{rate}_per_second"] = value
    path = _path(file)
    stored.change(path, lambda known: _added(known, facts))
    typer.echo(token)
    note(f"{name} is in {path.name}; this token is not shown again")


@keys.command("list")
def list_(as_json: JsonFlag = False, file: KeysFlag = None) -> None:
    """List the keys: what each may do, until when, and whether it is revoked."""
    from salver.access import file as stored
    from salver.cli.terminal import print_json, print_table

    known = stored.load(_path(file))
    if as_json:
        print_json(known)
        return
    now = datetime.now(UTC)
    rows = []
    for key in known:
        ended = key.expires is not None and key.expires <= now
        state = "revoked" if key.revoked else "expired" if ended else "active"
        until = key.expires.strftime("%Y-%m-%d %H:%M") if key.expires else "never"
        quotas = [f"{_rate(key.quotas, r):g} {r}/s" for r in RATES if _rate(key.quotas, r)]
        rows.append((key.name, state, " ".join(key.scopes), " ".join(key.models) or "all", until, ", ".join(quotas)))
    print_table(("KEY", "STATE", "SCOPES", "MODELS", "EXPIRES", "QUOTAS"), rows)


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name.")],
    file: KeysFlag = None,
) -> None:
    """Revoke a key; servers that read this file refuse it within a second."""
    import msgspec

    from salver.access import file as stored
    from salver.access.keys import Key
    from salver.cli.terminal import print_line

    def revoked(known: tuple[Key, ...]) -> tuple[Key, ...]:
        if not any(key.name == name for key in known):
            names = ", ".join(key.name for key in known) or "none"
            raise error("no-such-key", f"no key is named {name!r}", hint=f"there are {names}")
        return tuple(msgspec.structs.replace(key, revoked=True) if key.name == name else key for key in known)

    stored.change(_path(file), revoked)
    print_line(f"{name} is revoked")


def _added(known: tuple[Any, ...], facts: dict[str, Any]) -> tuple[Any, ...]:
    import msgspec

    from salver.access.keys import Key

    if any(key.name == facts["name"] for key in known):
        hint = "choose another name; a revoked key keeps its own"
        raise error("already-exists", f"there is a key named {facts['name']!r}", hint=hint)
    try:
        return (*known, msgspec.convert(facts, Key))
    except (msgspec.ValidationError, ValueError) as problem:
        raise error("bad-keys", f"this can't be a key: {problem}") from None


def _path(file: str | None) -> Path:
    """The keys file that is said or set, else the usual one beside the nearest salver.toml."""
    from salver.settings import nearest_file

    settings = gather(serve__keys=file).settings
    if settings.serve.keys:
        return Path(settings.serve.keys)
    beside = nearest_file(Path.cwd())
    return (beside.parent if beside else Path.cwd()) / USUAL


def _moment(text: str, now: datetime) -> datetime:
    """`90d` from now, or a date, in UTC where it names no zone."""
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if found is not None:
        return now + int(found[1]) * UNITS[found[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise error("bad-keys", f"{text!r} is no time", hint="12h, 90d, 52w, 2030-01-31") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if moment <= now:
        raise error("bad-keys", f"{text} has passed")
    return moment


def _rate(quotas: Any, resource: str) -> Any:
    return getattr(quotas, f"{resource}_per_second")
