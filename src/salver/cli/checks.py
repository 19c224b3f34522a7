"""What `salver doctor` looks at: each check is a function from the settings to what it found and what to do."""

from __future__ import annotations

import asyncio
import collections
import errno
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from salver import __version__, lock, wiring
from salver.dispatch.launch import POOLS, cpu_budget
from salver.dispatch.local import LocalRelease
from salver.environments import build, view
from salver.errors import SalverError
from salver.release import LOCK
from salver.settings import Loaded, Settings
from salver.supervisor import status

LEAST_SPACE = 1 << 30


class Check(Struct, frozen=True):
    """One thing that was looked at: whether it is fine, what was found, and what to do if it isn't."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def general(loaded: Loaded) -> Iterator[Callable[[], Check]]:
    """The checks of this machine and the registry, to be called in order."""
    settings = loaded.settings
    yield _software
    yield lambda: _settings(loaded)
    yield lambda: _registry(settings)
    yield lambda: _content(settings)
    yield lambda: _folder("cache", Path(settings.cache), "set SALVER_CACHE to a folder you can write to")
    yield _threads
    yield lambda: _servers(settings)
    for what, host, port in (
        ("port", settings.serve.host, settings.serve.port),
        ("admin port", settings.serve.admin_host, settings.serve.admin_port),
    ):
        yield lambda what=what, host=host, port=port: _port(what, host, port, settings)  # type: ignore[misc]


def of_release(settings: Settings, reference: str) -> Iterator[Callable[[], Check]]:
    """The checks of one release, to be called in order; later ones are left out where it can't be opened."""
    try:
        opened = wiring.open_release(settings, reference)
    except SalverError as problem:
        failed = _failed(reference, problem)
        yield lambda: failed
        return
    yield lambda: _digests(opened, settings)
    yield lambda: _environment(opened, Path(settings.cache))
    yield lambda: _serving(opened, settings.serve.workers, cpu_budget())
    yield lambda: _golden(opened, settings)


def _software() -> Check:
    found = f"salver {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Check("software", True, f"{found}, {sys.executable}")


def _settings(loaded: Loaded) -> Check:
    given = [f"{name} from {origin}" for name, origin in sorted(loaded.origins.items())]
    return Check("settings", True, "; ".join(given) or "all by default")


def _registry(settings: Settings) -> Check:
    place = Path(settings.registry)
    try:
        models = wiring.registry(settings).models()
    except SalverError as problem:
        return _failed("registry", problem)
    writable = _folder("registry", place, "publishing and promoting need to write there")
    found = f"{place}, {len(models)} model{'s' * (len(models) != 1)}"
    return Check("registry", writable.ok, found if writable.ok else writable.found, writable.advice)


def _content(settings: Settings) -> Check:
    try:
        report = wiring.registry(settings).verify()
    except SalverError as problem:
        return _failed("content", problem)
    found = f"{report.objects:,} objects, {report.size:,} bytes read"
    if report.clean:
        return Check("content", True, f"{found}, every digest right")
    first = report.problems[0]
    return Check("content", False, f"{found}; {len(report.problems)} problems, first {first.key}", "see salver verify")


def _digests(opened: wiring.Opened, settings: Settings) -> Check:
    """Whether the registry still has every file of a release as it was published; the copy in the cache is intact."""
    store = wiring.registry(settings)
    release = store.find(opened.name)
    damaged: list[SalverError] = []
    for file in opened.manifest.files:
        try:
            collections.deque(store.stream(release, file), maxlen=0)
        except SalverError as problem:
            damaged.append(problem)
    if not damaged:
        return Check(opened.name, True, f"{len(opened.manifest.files)} files, every digest right")
    found = "; ".join(problem.message for problem in damaged)
    return Check(opened.name, False, found, damaged[0].hint or "see salver verify")


def _folder(name: str, folder: Path, advice: str) -> Check:
    """Whether files can be made in a folder (or its nearest parent that exists), and there is room."""
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as problem:
        return Check(name, False, f"{there} can't be written: {problem.strerror}", advice)
    free = shutil.disk_usage(there).free
    found = f"{folder}, {free / (1 << 30):,.1f} GiB free"
    return Check(name, free >= LEAST_SPACE, found, "" if free >= LEAST_SPACE else "free some disk space")


def _threads() -> Check:
    cores = cpu_budget()
    given = [f"{name}={os.environ[name]}" for name in POOLS if name in os.environ]
    found = f"{cores} core{'s' * (cores != 1)} for workers, shared among their numeric thread pools"
    return Check("threads", True, found + (f"; ignored: {', '.join(given)}" if given else ""))


def _servers(settings: Settings) -> Check:
    running = status.servers(settings.registry)
    if not running:
        return Check("servers", True, "none runs on this registry and machine")
    lines, ok = [], True
    for server in running:
        try:
            models = status.status(server)["models"]
        except SalverError as problem:
            lines.append(f"{server.http}: {problem.message}")
            ok = False
            continue
        lines += [f"{server.http}: {each['model']}@{each['live'] or each['routed']} {each['state']}" for each in models]
        ok = ok and all(each["state"] in ("ready", "loading") for each in models)
    return Check("servers", ok, "; ".join(lines), "" if ok else "see the log of that server")


def _port(what: str, host: str, port: int, settings: Settings) -> Check:
    if any(f":{port}" in address for server in status.servers(settings.registry) for address in server[2:4]):
        return Check(what, True, f"{port} is our own server's")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return Check(what, True, f"{port} is free on {host}")
    except OSError as problem:
        taken = problem.errno == errno.EADDRINUSE
        found = f"{port} on {host} {'is taken by another program' if taken else f'is refused: {problem.strerror}'}"
        return Check(what, False, found, f"stop it, or serve with --{what.replace(' ', '-')}")


def _environment(opened: wiring.Opened, cache: Path) -> Check:
    """Whether the release's environment is there, or can be built: then it is built."""
    python, text = opened.manifest.python, (opened.folder / LOCK).read_text("utf-8")
    what = f"Python {python}, lock {opened.manifest.lock[:19]}" + ("" if lock.is_hashed(text) else ", not all hashed")
    differences = lock.check(text, python)
    if not differences:
        return Check("environment", True, f"{what}: workers run here and {_seen(text)}")
    try:
        place = build.build(text, python, cache, what=opened.name)
    except SalverError as problem:
        return _failed("environment", problem)
    broken = lock.check(text, python, place.path)
    found = f"{what}: built, since here {differences[0]}"
    if not [each for each in broken if each.kind != "python"]:
        withdrawn = build.yanked(place)
        return Check("environment", True, found + (f"; withdrawn since: {', '.join(withdrawn)}" if withdrawn else ""))
    folder = Path(place.path[0]).parent
    return Check("environment", False, f"{folder}: {'; '.join(map(str, broken))}", f"remove {folder}, then try again")


def _seen(text: str) -> str:
    """What workers see of this environment, if it is the one of this lock."""
    with tempfile.TemporaryDirectory(prefix="salver-") as folder:
        unlisted = view.of_packages(lock.pins(text), Path(folder) / build.PACKAGES)
    if not unlisted:
        return "see the locked packages only"
    return f"see every package that is installed, since {unlisted} has no list of its files (RECORD)"


def _serving(opened: wiring.Opened, default: int, cores: int) -> Check:
    """Whether the workers and threads that a release asks for have cores here."""
    serving = opened.manifest.serving
    workers = serving.workers or default
    threads = serving.threads or max(1, cores // workers)
    found = f"{_count(workers, 'worker')} of {_count(threads, 'thread')} each, {_count(cores, 'core')}"
    if (serving.workers or 1) * (serving.threads or 1) <= cores:
        return Check("serving", True, found)
    asked = {"worker": serving.workers, "thread": serving.threads}
    said = " and ".join(_count(count, name) for name, count in asked.items() if count)
    advice = "serve it where there are more cores, or release it with a Serving that asks for less"
    return Check("serving", False, f"{found}: the release asks for {said}", advice)


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


def _golden(opened: wiring.Opened, settings: Settings) -> Check:
    async def prove() -> None:
        timeout = settings.serve.load_timeout
        async with LocalRelease(opened.folder, opened.name, load_timeout=timeout, cache=settings.cache):
            pass

    try:
        asyncio.run(prove())
    except SalverError as problem:
        return _failed("golden rows", problem)
    rows = opened.manifest.golden_rows
    return Check("golden rows", True, f"{rows} reproduced in a clean worker" if rows else "the release has none")


def _failed(name: str, problem: SalverError) -> Check:
    return Check(name, False, "; ".join((problem.message, *problem.details)), problem.hint)
