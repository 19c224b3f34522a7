"""`salver serve`"""

from __future__ import annotations

import ipaddress
from typing import Annotated

import typer

from salver.cli.app import app
from salver.cli.options import RegistryFlag, gather
from salver.errors import error
from salver.settings import ServeSettings, describe

EXPOSE = "--without-access-control"


def _flag(setting: str, name: str = "") -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        name or "--" + setting.removeprefix("serve.").replace("_", "-"), help=describe(setting), show_default=False
    )
    return option


@app.command()
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="What to serve, one or more; without a name, every model."),
    ] = None,
    host: Annotated[str | None, _flag("serve.host")] = None,
    port: Annotated[int | None, _flag("serve.port")] = None,
    admin_port: Annotated[int | None, _flag("serve.admin_port")] = None,
    gateways: Annotated[int | None, _flag("serve.gateways")] = None,
    workers: Annotated[int | None, _flag("serve.workers")] = None,
    drain_delay: Annotated[float | None, _flag("serve.drain_delay")] = None,
    drain_timeout: Annotated[float | None, _flag("serve.drain_timeout")] = None,
    any_environment: Annotated[bool | None, _flag("serve.any_environment", "--any-environment")] = None,
    json_logs: Annotated[bool | None, _flag("serve.json_logs", "--json-logs")] = None,
    registry: RegistryFlag = None,
    cache: Annotated[str | None, _flag("cache")] = None,
    without_access_control: Annotated[
        bool, typer.Option(EXPOSE, help="Listen beyond this machine although anyone who reaches it may predict.")
    ] = False,
) -> None:
    """Serve the live releases over HTTP and follow the registry.

    \b
    Examples:
      salver serve
      salver serve churn --port 9000 --workers 4
    """
    settings, _ = gather(
        registry=registry, cache=cache, serve__host=host, serve__port=port, serve__admin_port=admin_port,
        serve__gateways=gateways, serve__workers=workers, serve__drain_delay=drain_delay,
        serve__drain_timeout=drain_timeout, serve__any_environment=any_environment, serve__json_logs=json_logs,
    )  # fmt: skip
    check_exposure(settings.serve, allowed=without_access_control)
    from salver import wiring
    from salver.supervisor import plan

    names = tuple(models or ())
    wiring.check_models(settings, names)
    plan.serve(wiring.plan(settings, names))


def check_exposure(serve: ServeSettings, *, allowed: bool) -> None:
    """Refuse to listen where other machines can reach it, unless that is said."""
    beyond = [host for host in (serve.host, serve.admin_host) if not _is_loopback(host)]
    if beyond and not allowed:
        raise error(
            "bad-settings",
            f"{' and '.join(beyond)} can be reached from other machines, and there is no access control yet",
            hint=f"listen on 127.0.0.1 behind a proxy that checks who calls, or say {EXPOSE}",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
