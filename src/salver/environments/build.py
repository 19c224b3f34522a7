"""Environments built from a lock: once for each lock, shared by all releases that have it, whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
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
    """One built environment: its folder, the digest of its lock, what is in it, last use (seconds since 1970).

    `yanked` are those of its packages that their publishers had withdrawn when it was built, with the reasons.
    """

    folder: Path
    lock: str
    python: str
    packages: tuple[str, ...]
    used_at: float
    yanked: tuple[str, ...] = ()


def name_of(text: str, python: str) -> str:
    """The name of the folder for a lock: its digest, and what its packages are built for."""
    return f"{lock.digest(text).removeprefix('sha256:')[:32]}-{tag(python)}"


def is_built(text: str, python: str, cache: Path) -> bool:
    """Whether the environment of a lock is there."""
    return (cache / FOLDER / name_of(text, python) / FACTS).exists()


def build(text: str, python: str, cache: Path, *, what: str) -> Place:
    """The environment of a lock, built if it isn't there; raises `environment-failed`, saying which package is why.

    Two that build the same wait for one another. What an interrupted build left is never taken for an environment.
    A version that was withdrawn (yanked) after the release is still the one that was proven: it is built and noted.
    """
    root = cache / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    target = root / name_of(text, python)
    if not is_built(text, python, cache):
        with _alone(target):
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
    for folder in (cache / FOLDER).glob("[!.]*-*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.append(_read(folder))
    return sorted(found, key=lambda environment: -environment.used_at)


def yanked(place: Place) -> tuple[str, ...]:
    """What of a built environment was withdrawn when it was built, with the reasons."""
    return _read(Path(place.path[0]).parent).yanked


def remove(environment: Environment) -> bool:
    """Delete an environment unless a process holds it, builds it, or has chosen it since; says whether it is gone."""
    folder = environment.folder
    try:
        with _alone(folder, wait=False), (folder / FACTS).open("rb") as facts:
            fcntl.flock(facts, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(facts.fileno()).st_mtime != environment.used_at:
                return False
            shutil.rmtree(_draft(folder), ignore_errors=True)
            folder.rename(_draft(folder))
            shutil.rmtree(_draft(folder), ignore_errors=True)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True  # another process was quicker
    return True


def hold(place: Place) -> list[int]:
    """Keep a built environment from being removed until these descriptors are closed, or this process has ended."""
    held = []
    for folder in place.path:
        facts = Path(folder).parent / FACTS
        if facts.exists():
            held.append(os.open(facts, os.O_RDONLY | os.O_CLOEXEC))
            fcntl.flock(held[-1], fcntl.LOCK_SH)
    return held


def sweep(cache: Path) -> int:
    """Delete what interrupted builds left, not what is being built now; returns how many there were."""
    count = 0
    for draft in (cache / FOLDER).glob(f"{DRAFT}*"):
        with contextlib.suppress(BlockingIOError), _alone(draft.with_name(draft.name.removeprefix(DRAFT)), wait=False):
            shutil.rmtree(draft, ignore_errors=True)
            count += 1
    return count


def _read(folder: Path) -> Environment:
    facts = json.loads((folder / FACTS).read_text())
    used = (folder / FACTS).stat().st_mtime
    withdrawn = tuple(facts.get("yanked", ()))
    return Environment(folder, facts["lock"], facts["python"], tuple(facts["packages"]), used, withdrawn)


def _draft(target: Path) -> Path:
    """Where an environment is before it is whole, and while it is deleted."""
    return target.with_name(DRAFT + target.name)


def _build(text: str, python: str, target: Path, what: str) -> None:
    draft = _draft(target)
    shutil.rmtree(draft, ignore_errors=True)  # an interrupted build's
    draft.mkdir(mode=0o700)
    try:
        requirements = draft / "requirements.lock"
        requirements.write_text(text, encoding="utf-8")
        hashed = ["--require-hashes"] if lock.is_hashed(text) else []
        command = [
            "pip", "install", "--no-deps", "--no-build", "--compile-bytecode", *hashed,
            "--python", interpreter(python, what), "--target", str(draft / PACKAGES), "-r", str(requirements),
        ]  # fmt: skip
        try:
            done = uv.run(command, what=f"the environment of {what} can't be built")
        except uv.Offline as problem:
            raise uv.failed(
                f"the environment of {what} can't be built: a package is not in the local cache, and no index answers",
                problem.args,
                "build it where there is a network (`salver env build`), or serve where the lock is installed",
            ) from None
        facts = {
            "lock": lock.digest(text), "python": python, "packages": sorted(lock.pins(text)), "yanked": done.yanked,
        }  # fmt: skip
        (draft / FACTS).write_text(json.dumps(facts))
        os.rename(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextlib.contextmanager
def _alone(target: Path, *, wait: bool = True) -> Iterator[None]:
    """Be the only process that builds or deletes this environment; raises BlockingIOError instead of waiting."""
    with target.with_name(f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
