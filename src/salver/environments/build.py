"""Environments built from a lock: once for each lock, shared by all releases that have it, whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from salver import lock
from salver.environments import uv
from salver.environments.place import Place, base_interpreter, tag, version

FOLDER = "environments"
PACKAGES = "packages"
FACTS = "environment.json"
DRAFT = ".draft-"


class Environment(Struct, frozen=True):
    """One built environment: its folder, the digest of its lock, what is in it, last use (seconds since 1970)."""

    folder: Path
    lock: str
    python: str
    packages: tuple[str, ...]
    used_at: float


def name_of(text: str, python: str) -> str:
    """The name of the folder for a lock: its digest, and what its packages are built for."""
    return f"{lock.digest(text).removeprefix('sha256:')[:32]}-{tag(python)}"


def is_built(text: str, python: str, cache: Path) -> bool:
    """Whether the environment of a lock is there."""
    return (cache / FOLDER / name_of(text, python) / FACTS).exists()


def build(text: str, python: str, cache: Path, *, what: str) -> Place:
    """The environment of a lock, built if it isn't there; raises `environment-failed`, saying which package is why.

    Two that build the same wait for one another. What an interrupted build left is never taken for an environment.
    """
    root = cache / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    target = root / name_of(text, python)
    if not is_built(text, python, cache):
        with _alone(root / f".{target.name}.lock"):
            if not is_built(text, python, cache):
                _build(text, python, target, what)
    with contextlib.suppress(OSError):
        os.utime(target / FACTS)
    return Place(interpreter(python, what), (str(target / PACKAGES),))


def interpreter(python: str, what: str) -> str:
    """The path of a Python of this version without packages of its own."""
    if python == version():
        return base_interpreter()
    found = uv.find_python(python)
    if not found:
        hint = f"install it, for example with `uv python install {python}`, or serve where it is"
        raise uv.failed(f"{what} needs Python {python}, which isn't installed here", (), hint)
    return found


def built(cache: Path) -> list[Environment]:
    """Every environment there is, the one used last first."""
    found = []
    for folder in (cache / FOLDER).glob("*-*"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            facts = json.loads((folder / FACTS).read_text())
            used = (folder / FACTS).stat().st_mtime
            found.append(Environment(folder, facts["lock"], facts["python"], tuple(facts["packages"]), used))
    return sorted(found, key=lambda environment: -environment.used_at)


def remove(environment: Environment) -> bool:
    """Delete an environment unless a process holds it; says whether it is gone."""
    try:
        with (environment.folder / FACTS).open("rb") as facts:
            fcntl.flock(facts, fcntl.LOCK_EX | fcntl.LOCK_NB)
            grave = Path(tempfile.mkdtemp(prefix=DRAFT, dir=environment.folder.parent))
            environment.folder.rename(grave / "removed")
    except BlockingIOError:
        return False
    shutil.rmtree(grave, ignore_errors=True)
    return True


def hold(place: Place) -> None:
    """Keep a built environment from being removed for as long as this process lives."""
    for folder in place.path:
        facts = Path(folder).parent / FACTS
        if facts.exists():
            fcntl.flock(os.open(facts, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)


def sweep(cache: Path, older_than: float) -> int:
    """Delete what interrupted builds left longer than `older_than` seconds ago; returns how many there were."""
    count = 0
    for draft in (cache / FOLDER).glob(f"{DRAFT}*"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > older_than:
                shutil.rmtree(draft, ignore_errors=True)
                count += 1
    return count


def _build(text: str, python: str, target: Path, what: str) -> None:
    draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=target.parent))
    try:
        requirements = draft / "requirements.lock"
        requirements.write_text(text, encoding="utf-8")
        hashed = ["--require-hashes"] if lock.is_hashed(text) else []
        command = [
            "pip", "install", "--quiet", "--no-deps", "--no-build", "--compile-bytecode", *hashed,
            "--python", interpreter(python, what), "--target", str(draft / PACKAGES), "-r", str(requirements),
        ]  # fmt: skip
        try:
            uv.run(command, what=f"the environment of {what} can't be built")
        except uv.Offline as problem:
            raise uv.failed(
                f"the environment of {what} can't be built: a package is not in the local cache, and no index answers",
                problem.args,
                "build it where there is a network (`salver env build`), or serve where the lock is installed",
            ) from None
        facts = {"lock": lock.digest(text), "python": python, "packages": sorted(lock.pins(text))}
        (draft / FACTS).write_text(json.dumps(facts))
        os.rename(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process builds the same."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
