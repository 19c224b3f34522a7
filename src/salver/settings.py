"""Every setting of Salver: typed, one sentence each, from salver.toml < environment < flags.

A setting is named by its place: `registry`, `serve.port`. In salver.toml that is a key or a key of a table, in the
environment `SALVER_REGISTRY`, `SALVER_SERVE_PORT`. A name that is not a setting is an error that names the close one.
"""

from __future__ import annotations

import contextlib
import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from salver.environments.place import default_cache
from salver.errors import error
from salver.limits import Limits

FILE = "salver.toml"
SAGEMAKER_PORT = "SAGEMAKER_BIND_TO_PORT"
"""Where SageMaker says which port its container listens on."""
SAGEMAKER_PORTS = "SAGEMAKER_SAFE_PORT_RANGE"
"""Where it says which other ports a container may take: FIRST-LAST."""
SAGEMAKER_DRAIN = 25.0
"""Seconds to drain there: it kills a container 30 seconds after it asked it to stop."""
PREFIX = "SALVER_"
OF_THE_PROJECT = ("release", "serving")
"""Tables of salver.toml that say how a project is released; `publish` reads them."""

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1, le=1024)]
Names = tuple[str, ...]
Dialect = Literal["", "mlflow", "sagemaker", "tfserving"]
FILES = (
    "serve.keys",
    "serve.tls_cert",
    "serve.tls_key",
    "serve.tls_client_ca",
    "serve.admin_tls_cert",
    "serve.admin_tls_key",
    "serve.admin_tls_client_ca",
    "serve.jwt_keys",
    "serve.access_log",
)
"""Settings that are a file, or nothing."""


class ServeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How a server listens, and with how many processes."""

    host: Annotated[str, Meta(description="The address to listen on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="The port for predictions; 0 picks a free one.")] = 8080
    grpc_port: Annotated[
        int, Meta(ge=-1, le=65535, description="The port for gRPC; 0 picks a free one, -1 is no gRPC.")
    ] = 8081
    dialect: Annotated[
        Dialect, Meta(description="Whose answers to give where peers differ: mlflow, sagemaker or tfserving.")
    ] = ""
    admin_port: Annotated[Port, Meta(description="The port for /metrics and the admin API; 0 picks a free one.")] = 8082
    admin_host: Annotated[str, Meta(description="The address for /metrics and the admin API.")] = "127.0.0.1"
    gateways: Annotated[Count, Meta(description="How many processes terminate HTTP.")] = 1
    workers: Annotated[Count, Meta(description="How many processes run each release, if it doesn't say itself.")] = 2
    drain_delay: Annotated[
        Seconds, Meta(description="Seconds to keep accepting after SIGTERM, so that load balancers notice.")
    ] = 5.0
    drain_timeout: Annotated[Seconds, Meta(description="Seconds that requests in flight get to finish.")] = 30.0
    load_timeout: Annotated[Seconds, Meta(description="Seconds that a worker gets to load and prove a release.")] = (
        600.0
    )
    any_environment: Annotated[
        bool, Meta(description="Serve releases in this environment even if its packages are not the release's.")
    ] = False
    environment: Annotated[
        tuple[str, ...], Meta(description="Names of environment variables that workers get besides the usual ones.")
    ] = ()
    json_logs: Annotated[bool, Meta(description="Log one JSON object a line.")] = False
    keys: Annotated[str, Meta(description="The file of API keys; with it callers need one (salver key add).")] = ""
    insecure: Annotated[
        bool, Meta(description="Listen beyond this machine although anyone who reaches it may predict.")
    ] = False
    open_scopes: Annotated[
        Names, Meta(description="Scopes that need no credential: of health, docs, metadata, metrics.")
    ] = ("health",)
    tls_cert: Annotated[str, Meta(description="The certificate chain for predictions (PEM).")] = ""
    tls_key: Annotated[str, Meta(description="The private key of tls_cert (PEM, no passphrase).")] = ""
    tls_client_ca: Annotated[str, Meta(description="Callers need a certificate that this authority signed (PEM).")] = ""
    tls_client_names: Annotated[
        Names, Meta(description="What the bearers of certificates may do: NAME=SCOPE+SCOPE, each by its name.")
    ] = ()
    admin_tls_cert: Annotated[str, Meta(description="The certificate chain for the admin port (PEM).")] = ""
    admin_tls_key: Annotated[str, Meta(description="The private key of admin_tls_cert (PEM, no passphrase).")] = ""
    admin_tls_client_ca: Annotated[
        str, Meta(description="Callers of the admin port need a certificate that this authority signed (PEM).")
    ] = ""
    jwt_issuer: Annotated[str, Meta(description="Who issues the tokens that are taken.")] = ""
    jwt_audience: Annotated[str, Meta(description="Whom those tokens are for.")] = ""
    jwt_keys: Annotated[
        str, Meta(description="A file or https address with the JWK set that tokens are signed by.")
    ] = ""
    jwt_algorithms: Annotated[Names, Meta(description="The algorithms of signatures that are accepted.")] = (
        "RS256",
        "ES256",
    )
    jwt_models_claim: Annotated[str, Meta(description="The claim that lists a caller's models.")] = "models"
    cors_origins: Annotated[
        Names, Meta(description="Origins whose pages may ask (https://shop.example), or *; none by default.")
    ] = ()
    allowed_hosts: Annotated[
        Names, Meta(description="Names that requests may be addressed to where nobody needs a key, or *.")
    ] = ()
    access_log: Annotated[
        str, Meta(description="The file that gets a JSON line for each request, or - for the standard output.")
    ] = ""
    traces: Annotated[str, Meta(description="The OTLP/HTTP address that gets traces (http://127.0.0.1:4318).")] = ""
    trace_sample: Annotated[
        float, Meta(ge=0, le=1, description="The share of predictions to trace where their callers don't say.")
    ] = 0.01


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    registry: Annotated[
        str, Meta(description="The folder of the registry; by default .salver beside the nearest salver.toml.")
    ] = ""
    cache: Annotated[str, Meta(description="The folder that holds unpacked releases; any content may be deleted.")] = ""
    debug: Annotated[bool, Meta(description="Show the traceback of an error.")] = False
    serve: ServeSettings = ServeSettings()
    limits: Limits = Limits()


class Source(NamedTuple):
    """Where values come from: flags by setting name (None: not given), the environment, and the current folder."""

    flags: Mapping[str, Any]
    environ: Mapping[str, str]
    folder: Path


class Loaded(NamedTuple):
    """The settings with every folder absolute, and where each value that is no default came from."""

    settings: Settings
    origins: dict[str, str]


def load_settings(source: Source) -> Loaded:
    """Gather the settings: salver.toml of this or the nearest parent folder, then the environment, then flags."""
    folder = source.folder.absolute()
    path = nearest_file(folder)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    layers = [_from_file(path, problems)] if path else []
    layers += [_from_environment(source.environ, problems), _from_flags(source.flags)]
    for layer in layers:
        for name, (value, origin) in layer.items():
            values[name], origins[name] = value, origin
    if values.get("serve.dialect") == "sagemaker" and "serve.port" not in values and source.environ.get(SAGEMAKER_PORT):
        values["serve.port"], origins["serve.port"] = source.environ[SAGEMAKER_PORT], f"${SAGEMAKER_PORT}"
    settings = _build(values, origins, problems)
    if settings.serve.dialect == "sagemaker":
        serve = _for_sagemaker(settings.serve, origins, source.environ.get(SAGEMAKER_PORTS, ""), problems)
        settings = msgspec.structs.replace(settings, serve=serve)
    if problems:
        raise error("bad-settings", "the settings can't be used", details=tuple(problems))
    return Loaded(_with_folders(settings, origins, folder, path), origins)


def _for_sagemaker(serve: ServeSettings, origins: dict[str, str], ports: str, problems: list[str]) -> ServeSettings:
    """What SageMaker needs where nothing else is set: ports of its range, and an end before it kills."""
    changes: dict[str, Any] = {}
    if "serve.drain_timeout" not in origins:
        changes["drain_timeout"] = max(0.0, SAGEMAKER_DRAIN - serve.drain_delay)
    elif "serve.drain_delay" not in origins:
        changes["drain_delay"] = min(serve.drain_delay, max(0.0, SAGEMAKER_DRAIN - serve.drain_timeout))
    if ports:
        first, _, last = ports.partition("-")
        if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) <= 65535):
            problems.append(f"${SAGEMAKER_PORTS}: expected a range such as 16000-16999, got {ports!r}")
            return serve
        taken = {getattr(serve, name) for name in ("port", "admin_port", "grpc_port") if f"serve.{name}" in origins}
        taken.add(serve.port)
        free = (port for port in range(int(first), int(last) + 1) if port not in taken)
        for name, without in (("admin_port", 0), ("grpc_port", -1)):
            if f"serve.{name}" not in origins:
                changes[name] = next(free, without)
    origins |= {f"serve.{name}": "the dialect sagemaker" for name in changes}
    return msgspec.structs.replace(serve, **changes)


def nearest_file(folder: Path) -> Path | None:
    """The salver.toml of `folder` or of its nearest parent that has one."""
    return next((each / FILE for each in (folder, *folder.parents) if (each / FILE).is_file()), None)


def describe(name: str) -> str:
    """The sentence that says what a setting is for."""
    return _FIELDS[name].sentence


def sentences(kind: type[Struct]) -> dict[str, str]:
    """What each field of a struct is for, as its annotation says."""
    return {name: setting.sentence for name, setting in _fields(kind)}


def kind_of(name: str) -> Any:
    """The type of a setting's value; a list for many."""
    kind = get_args(_FIELDS[name].type)[0]
    return list[str] if get_origin(kind) is tuple else kind


class _Setting(NamedTuple):
    type: Any
    sentence: str


def _fields(kind: type[Struct], prefix: str = "") -> Iterator[tuple[str, _Setting]]:
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if isinstance(hint, type) and issubclass(hint, Struct):
            yield from _fields(hint, f"{prefix}{name}.")
        else:
            sentences = [meta.description for meta in get_args(hint)[1:] if isinstance(meta, Meta)]
            yield f"{prefix}{name}", _Setting(hint, next(filter(None, sentences), ""))


_FIELDS = dict(_fields(Settings))
TABLES = {name.partition(".")[0] for name in _FIELDS if "." in name}
_VARIABLES = {PREFIX + name.replace(".", "_").upper(): name for name in _FIELDS}

_Layer = dict[str, tuple[Any, str]]


def _from_file(path: Path, problems: list[str]) -> _Layer:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as problem:
        problems.append(f"{path}: {problem}")
        return {}
    layer: _Layer = {}
    for key, value in content.items():
        if key in OF_THE_PROJECT:
            continue
        if value == {} and key not in TABLES:
            problems.append(f"{path}: unknown table [{key}]{_close(key, [*TABLES, *OF_THE_PROJECT])}")
        pairs = {f"{key}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {key: value}
        for name, each in pairs.items():
            if name in _FIELDS:
                layer[name] = (each, str(path))
            else:
                known = [*_FIELDS, *OF_THE_PROJECT]
                problems.append(f"{path}: unknown setting {name!r}{_close(name, known)}")
    return layer


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> _Layer:
    layer: _Layer = {}
    for variable, value in sorted(environ.items()):
        if variable in _VARIABLES:
            layer[_VARIABLES[variable]] = (value, f"${variable}")
        elif variable.startswith(PREFIX):
            problems.append(f"unknown environment variable {variable}{_close(variable, list(_VARIABLES))}")
    return layer


def _from_flags(flags: Mapping[str, Any]) -> _Layer:
    return {
        name: (value, "--" + name.removeprefix("serve.").replace("_", "-"))
        for name, value in flags.items()
        if value is not None
    }


def _close(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _list(text: str) -> list[str]:
    """A list of texts: as settings files write it, or with commas between."""
    if text.lstrip().startswith("["):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(text, type=list[str])
    return [part.strip() for part in text.split(",") if part.strip()]


def _build(values: Mapping[str, Any], origins: Mapping[str, str], problems: list[str]) -> Settings:
    tables: dict[str, dict[str, Any]] = {"": {}, "serve": {}, "limits": {}}
    for name, value in values.items():
        kind, text = _FIELDS[name].type, origins[name].startswith("$")
        if text and get_origin(get_args(kind)[0]) is tuple:
            value = _list(value)
        try:
            checked = msgspec.convert(value, kind, strict=not text)
        except msgspec.ValidationError as problem:
            problems.append(f"{origins[name]}: {name}: {str(problem)[:1].lower()}{str(problem)[1:]}, got {value!r}")
            continue
        table, _, key = name.rpartition(".")
        tables[table][key] = checked
    limits = Limits(**tables["limits"])
    if limits.timeout > limits.timeout_most:
        problems.append(f"limits.timeout is over limits.timeout_most: {limits.timeout:g} and {limits.timeout_most:g}")
    return Settings(**tables[""], serve=ServeSettings(**tables["serve"]), limits=limits)


def _with_folders(settings: Settings, origins: Mapping[str, str], folder: Path, path: Path | None) -> Settings:
    beside = path.parent if path else folder

    def absolute(name: str, value: str, default: Path) -> str:
        if not value:
            return str(default)
        return str((beside if origins[name] == str(path) else folder) / Path(value).expanduser())

    files = {}
    for name in FILES:
        field = name.partition(".")[2]
        value = getattr(settings.serve, field)
        if value not in ("", "-") and "://" not in value:
            files[field] = absolute(name, value, beside)
    return msgspec.structs.replace(
        settings,
        registry=absolute("registry", settings.registry, beside / ".salver"),
        cache=absolute("cache", settings.cache, Path(default_cache())),
        serve=msgspec.structs.replace(settings.serve, **files),
    )
