"""`salver serve`"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from salver.cli.app import app
from salver.cli.options import RegistryFlag, gather
from salver.cli.terminal import stderr
from salver.errors import error
from salver.settings import ServeSettings, describe, kind_of

FLAGS = (
    "host", "port", "dialect", "grpc_port", "admin_host", "admin_port", "gateways", "workers", "keys", "tls_cert",
    "tls_key", "tls_client_ca", "admin_tls_cert", "admin_tls_key", "admin_tls_client_ca", "cors_origins",
    "allowed_hosts", "insecure", "drain_delay", "drain_timeout", "any_environment", "json_logs", "access_log", "traces",
    "trace_sample",
)  # fmt: skip
"""The settings of a server that are options too; the others stand in salver.toml or the environment."""


def _with_flags(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb one option for each of these settings, None where it is not said."""
    taken = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD]
    first, others = taken[0], taken[1:]
    flags = []
    for name in FLAGS:
        option = typer.Option("--" + name.replace("_", "-"), help=describe(f"serve.{name}"), show_default=False)
        hint: Any = Annotated[kind_of(f"serve.{name}") | None, option]
        flags.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=hint))
    verb.__signature__ = inspect.Signature([first, *flags, *others])  # type: ignore[attr-defined]
    return verb


@app.command()
@_with_flags
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="What to serve, one or more; without a name, every model."),
    ] = None,
    registry: RegistryFlag = None,
    cache: Annotated[str | None, typer.Option("--cache", help=describe("cache"), show_default=False)] = None,
    **flags: Any,
) -> None:
    """Serve the live releases over HTTP and gRPC and follow the registry.

    \b
    Examples:
      salver serve
      salver serve churn --port 9000 --workers 4
      salver serve --host 0.0.0.0 --keys keys.jsonl --tls-cert cert.pem --tls-key key.pem
    """
    said = {f"serve__{name}": None if value == [] else value for name, value in flags.items()}
    settings, _ = gather(registry=registry, cache=cache, **said)
    from salver import wiring
    from salver.supervisor import plan
    from salver.supervisor.announce import Voice

    wiring.check_access(settings)
    wiring.check_watch(settings)
    for warning in check_exposure(settings.serve, authenticates=wiring.terms(settings.serve).authenticates):
        if settings.serve.json_logs:
            Voice(as_json=True).say("warning", warning)
        else:
            stderr().print(f"warning: {warning}", markup=False, style="bold yellow", soft_wrap=True)
    names = tuple(models or ())
    wiring.check_models(settings, names)
    plan.serve(wiring.plan(settings, names))


def check_exposure(serve: ServeSettings, *, authenticates: bool) -> list[str]:
    """What to warn of; raises `no-authentication` where other machines could reach what needs no credential."""
    from salver.access.terms import is_loopback

    beyond = sorted({host for host in (serve.host, serve.admin_host) if not is_loopback(host)})
    if not beyond:
        return []
    where = " and ".join(beyond)
    if not authenticates and not serve.insecure:
        raise error(
            "no-authentication",
            f"{where} can be reached from other machines, and nobody would need a key",
            hint="give --keys FILE (salver key add NAME makes one), or say --insecure",
        )
    if not authenticates:
        return [
            f"--insecure: whoever reaches {where} can predict with every model, read every signature"
            " and the metrics, and use up this machine"
        ]
    if not serve.tls_cert and not is_loopback(serve.host):
        return [f"keys travel unencrypted to {serve.host}: give --tls-cert and --tls-key, or put a TLS proxy in front"]
    return []
