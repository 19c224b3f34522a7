"""The lock of a release: exact packages as plain lines, and how far the running environment is from them.

A worker reads it before it loads a model, so it must be quick: installed packages are found by the names of their
metadata folders, and only what seems to differ is opened.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from salver.errors import error

_PIN = re.compile(
    r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)(?: --hash=sha256:[0-9a-f]{64})*"
)
_HASH_CONTINUES = re.compile(r"\s*\\\r?\n\s*")
_PYTHON = re.compile(r"(\d+)\.(\d+)")


class Lock(Struct, frozen=True):
    """Exact packages as text (`name==version` lines, sorted), its digest, and what a person should know of it."""

    text: str
    digest: str
    notes: tuple[str, ...] = ()


class Difference(Struct, frozen=True):
    """One way in which the running environment isn't the release's: a package, or `python` itself."""

    name: str
    wanted: str
    found: str
    kind: Literal["missing", "version", "python"]

    def __str__(self) -> str:
        if self.kind == "missing":
            return f"{self.name}=={self.wanted} is not installed"
        return f"{self.name} is {self.found}, the release was proven with {self.wanted}"


def normalised(name: str) -> str:
    """The one spelling of a package's name: lower case, runs of `-`, `_` and `.` as one dash."""
    return re.sub(r"[-_.]+", "-", name).lower()


def digest(text: str) -> str:
    """The name of a lock: `sha256:` and the digest of its text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def write(
    pins: Iterable[tuple[str, str]], python: str, notes: Sequence[str] = (), hashes: Mapping[str, Sequence[str]] = {}
) -> Lock:
    """The lock of these (name, version) pairs for this Python (`3.11`); the same packages give the same text.

    `hashes` holds, by `name==version`, the sha256 of every file that may be installed for it.
    """
    wanted = sorted({f"{normalised(name)}=={version}" for name, version in pins})
    lines = [" \\\n    ".join([pin, *(f"--hash=sha256:{each}" for each in hashes.get(pin, ()))]) for pin in wanted]
    head = f"# The exact packages of this release, for Python {python}; they install from any package index.\n"
    text = head + "".join(f"{line}\n" for line in lines)
    return Lock(text, digest(text), tuple(notes))


def pins(text: str) -> dict[str, str]:
    """The packages of a lock, by normalised name; raise `bad-manifest` naming every line that is no exact pin."""
    found: dict[str, str] = {}
    problems = []
    for number, line in enumerate(_HASH_CONTINUES.sub(" ", text).splitlines(), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        match = _PIN.fullmatch(content)
        if match is None:
            problems.append(f"entry {number} is no exact pin: {content[:80]!r}")
        elif found.setdefault(normalised(match[1]), match[2]) != match[2]:
            problems.append(f"entry {number} pins {match[1]} a second time, to another version")
    if problems:
        raise error(
            "bad-manifest",
            "the lock of the release can't be used",
            hint="every line is name==version, perhaps with sha256 hashes; nothing else",
            details=tuple(problems),
        )
    return found


def is_hashed(text: str) -> bool:
    """Whether every package of a lock has a hash, so that nothing else can be installed in its place."""
    return text.count("==") == len(re.findall(r"==[^\n]*\\\n\s+--hash=", text))


def check(text: str, python: str, path: Sequence[str] | None = None) -> list[Difference]:
    """What differs between a lock and the running environment (or the packages in the folders of `path`).

    `python` is the release's (`3.11` or `3.11.7`); only its first two numbers count, since packages are built for them.
    """
    differences = []
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = _PYTHON.match(python)
    if wanted is None or wanted[0] != here:
        differences.append(Difference("python", wanted[0] if wanted else python, here, "python"))
    wanted_pins = pins(text)
    installed = _Installed(sys.path if path is None else path, wanted_pins)
    for name, version in wanted_pins.items():
        found = installed.versions(name, version)
        if not found:
            differences.append(Difference(name, version, "", "missing"))
        elif found != {version}:
            differences.append(Difference(name, version, " and ".join(sorted(found)), "version"))
    return differences


def explain(differences: Iterable[Difference]) -> str:
    """What a person reads: one line per difference."""
    return "\n".join(str(difference) for difference in differences)


def require_same(text: str, python: str, *, what: str = "the release", path: Sequence[str] | None = None) -> None:
    """Raise `environment-differs`, naming every difference at once, unless the environment is the one `what` locked."""
    differences = check(text, python, path)
    if differences:
        raise error(
            "environment-differs",
            f"{what} was proven in another environment than this one",
            hint="install the release's environment/requirements.lock, or publish the model again from here",
            details=tuple(map(str, differences)),
        )


class _Installed:
    """The metadata folders of the wanted packages, by normalised name, as the first folder of the path has them."""

    def __init__(self, path: Sequence[str], wanted: Iterable[str]) -> None:
        self._entries: dict[str, list[os.DirEntry[str]]] = {}
        names = set(wanted)
        for folder in dict.fromkeys(path):
            here: dict[str, list[os.DirEntry[str]]] = {}
            for entry in _metadata(folder or "."):
                name = normalised(_stem(entry).partition("-")[0])
                if name in names and name not in self._entries:
                    here.setdefault(name, []).append(entry)
            self._entries.update(here)

    def versions(self, name: str, expected: str) -> set[str]:
        """The installed versions of `name`; more than one where an installation is broken."""
        entries = self._entries.get(name, [])
        return {expected if _stem(entry).partition("-")[2] == expected else _version(entry) for entry in entries}


def _metadata(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
    except OSError:
        return  # an entry of the path that isn't a folder holds no packages we could have been told of


def _stem(entry: os.DirEntry[str]) -> str:
    return entry.name.rpartition(".")[0]


def _version(entry: os.DirEntry[str]) -> str:
    """The version as the metadata file has it: folder names spell some versions in another way."""
    name = "METADATA" if entry.name.endswith(".dist-info") else "PKG-INFO"
    try:
        file = os.path.join(entry.path, name) if entry.is_dir() else entry.path
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("Version:"):
                    return line[8:].strip()
                if not line.strip():
                    break
    except OSError:
        pass
    return "unreadable"
