"""uv, the tool that resolves and installs packages, as functions; what it can't do is an error that says why."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from uv import find_uv_bin

from salver.errors import SalverError, error

SAME_IN_PIP = {
    "UV_DEFAULT_INDEX": "PIP_INDEX_URL",
    "UV_INDEX": "PIP_EXTRA_INDEX_URL",
    "UV_FIND_LINKS": "PIP_FIND_LINKS",
    "SSL_CERT_FILE": "PIP_CERT",
}
LIMITS = ("UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE")
"""Variables by which other versions would be asked for than those that a lock, or a release's constraints, name."""
SHOWN = 12
_NETWORK = (
    "failed to fetch", "error sending request", "dns error", "failed to connect", "network connectivity",
    "network was disabled",
)  # fmt: skip


_YANKED = re.compile(r"`(\S+)` is yanked(?: \(reason: \"(.*)\"\))?")
_FAILURE = ("error", "×")


class Done(NamedTuple):
    """What uv printed, and the versions that it took although their publishers withdrew them, each with the reason."""

    out: str
    yanked: tuple[str, ...] = ()


class Offline(Exception):
    """The package index could not be reached, or may not be; its arguments are what uv said."""


def run(arguments: Sequence[str], *, what: str, stdin: str = "", hint: str = "", patient: bool = True) -> Done:
    """Let uv do something; raises `environment-failed` with its own explanation, `Offline` where no index answers.

    What can be done without is not `patient`: it waits a few seconds for an index, once. Unless `arguments` name a
    project, uv reads none: what the current folder's says of versions is not meant for releases.
    """
    with contextlib.nullcontext(()) if "--project" in arguments else _no_project() as apart:
        return _run((*arguments, *apart), what=what, stdin=stdin, hint=hint, patient=patient)


def _run(arguments: Sequence[str], *, what: str, stdin: str, hint: str, patient: bool) -> Done:
    hurry = {} if patient else {"UV_HTTP_TIMEOUT": "5", "UV_HTTP_RETRIES": "0"}
    said: list[str] = []
    for way in ((), ("--offline",)):  # what this machine has is enough, if need be, however long ago it was looked up
        try:
            done = subprocess.run(
                [find_uv_bin(), *arguments, *way, "--color=never"],
                input=stdin, env={**_environment(os.environ), **hurry}, capture_output=True, text=True, check=False,
            )  # fmt: skip
        except OSError as problem:
            raise error("environment-failed", f"{what}: uv can't be started: {problem}") from None
        if done.returncode == 0:
            yanked = (f"{name} ({why})" if why else name for name, why in _YANKED.findall(done.stderr))
            return Done(done.stdout, tuple(sorted(set(yanked))))
        said = said or _explanation(done.stderr)
        if not any(sign in line.lower() for line in said for sign in _NETWORK):
            raise failed(what, said, hint)
    raise Offline(*said)


def find_python(version: str) -> str:
    """The path of an installed Python of this version, or ''."""
    with _no_project() as apart:
        command = [find_uv_bin(), "python", "find", "--no-project", "--system", *apart, version]
        done = subprocess.run(command, env=_environment(os.environ), capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def failed(what: str, said: Sequence[str], hint: str = "") -> SalverError:
    """The error for an environment that can't be had."""
    return error("environment-failed", what, hint=hint or _hint(" ".join(said).lower()), details=tuple(said[:SHOWN]))


def _explanation(stderr: str) -> list[str]:
    """Why uv failed, without what it says of its progress before."""
    lines = [line.strip() for line in stderr.splitlines()]
    start = next((number for number, line in enumerate(lines) if line.startswith(_FAILURE)), 0)
    return [plain for line in lines[start:] if (plain := line.strip(" ×├─▶╰│"))]


def _hint(said: str) -> str:
    """What a person can do about what uv said."""
    if "hash mismatch" in said:
        return "the package on the index is not the one that was locked: don't use it; ask who publishes it"
    if "yanked" in said or "no version of" in said or "not found in the package registry" in said:
        return "the index no longer has this version: add an index that has it, or release the model again"
    if "no wheels" in said or "no usable wheels" in said or "binary distribution" in said or "no matching" in said:
        return "this package has no build for this platform and Python: serve it where it was released"
    if "no space left" in said:
        return "free some disk, or set SALVER_CACHE to another one"
    return "what the installer says above names the package"


@contextlib.contextmanager
def _no_project() -> Iterator[tuple[str, ...]]:
    """The flags by which uv reads no pyproject.toml or uv.toml of the current folder, nor of those above it."""
    with tempfile.TemporaryDirectory(prefix="salver-") as folder:
        (Path(folder) / "pyproject.toml").write_text(
            "[tool.uv]\nmanaged = false\n"
        )  # an empty one: uv looks no further
        yield "--project", folder


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for uv: where only pip is told where packages come from, uv hears the same."""
    told = {ours: environ[theirs] for ours, theirs in SAME_IN_PIP.items() if theirs in environ and ours not in environ}
    kept = {name: value for name, value in environ.items() if name not in LIMITS}
    return {**kept, **told, "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
