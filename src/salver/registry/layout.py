"""Where everything lies in a registry. Every object is created once; numbers have twelve digits so names sort.

registry.json                          marks the store as a registry and gives its format
names/<model in lower case>.json       which spelling of a model's name is taken
blobs/sha256/ab/cdef…                  file contents, manifests, evidence
models/<model>/releases/<number>.json  releases
models/<model>/routes/<number>.json    routes; the highest is current
models/<model>/policy/<number>.json    policies; the highest is current
models/<model>/evidence/<id>/<name>.json
"""

from __future__ import annotations

import re

from salver.errors import error

FORMAT = 1
MARK = "registry.json"
NAMES = "names/"
BLOBS = "blobs/sha256/"
MODELS = "models/"
DIGITS = 12

_HEX = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"([0-9]{12})\.json")
_EVIDENCE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def is_digest(text: str) -> bool:
    """Whether `text` is a sha256 in lower-case hex."""
    return _HEX.fullmatch(text) is not None


def is_release_id(text: str) -> bool:
    """Whether `text` is `sha256:` and a digest."""
    return text.startswith("sha256:") and is_digest(text.removeprefix("sha256:"))


def digest_of(release_id: str) -> str:
    """The hex digest in a release id (`sha256:…`)."""
    if not is_release_id(release_id):
        raise error("corrupt", f"{release_id!r} is not the id of a release", hint="an id is sha256: and 64 hex digits")
    return release_id.removeprefix("sha256:")


def name_key(model: str) -> str:
    """Where a model's spelling is claimed."""
    return f"{NAMES}{model.lower()}.json"


def blob_key(digest: str) -> str:
    """Where the content with this sha256 lies."""
    return f"{BLOBS}{digest[:2]}/{digest[2:]}"


def blob_digest(key: str) -> str | None:
    """The digest that a blob's key stands for, or None when the key is no blob's."""
    digest = key.removeprefix(BLOBS).replace("/", "", 1)
    return digest if is_digest(digest) and blob_key(digest) == key else None


def numbered_key(prefix: str, number: int) -> str:
    """Where entry `number` of a list lies."""
    return f"{prefix}{number:0{DIGITS}d}.json"


def numbered(prefix: str, key: str) -> int | None:
    """The number of an entry of a list, or None when the key is not one."""
    found = _NUMBER.fullmatch(key.removeprefix(prefix))
    return int(found[1]) or None if found else None


def evidence_prefix(model: str, of: str) -> str:
    """Where the evidence on one release (by its id) or one event (by any plain name) lies."""
    return f"{MODELS}{model}/evidence/{evidence_name(of.removeprefix('sha256:'))}/"


def evidence_name(name: str) -> str:
    """Return `name` if it may name evidence."""
    if not _EVIDENCE.fullmatch(name):
        raise error(
            "bad-name",
            f"evidence can't be named {name!r}",
            hint="1 to 128 letters, digits, '.', '_' or '-', not beginning with '.'",
        )
    return name
