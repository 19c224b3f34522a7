"""A release as plain data: its manifest, its identity and the layout of its folder."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from salver.errors import error
from salver.signature import Signature

FORMAT = 1
MANIFEST = "release.json"
GOLDEN = "golden.jsonl"
REFERENCE = "reference.json"
LOCK = "environment/requirements.lock"
CARD = "card.md"
MODEL_DIR = "model"
CODE_DIR = "code"

MAX_MANIFEST = 1 << 20
MAX_FILES = 20_000
MAX_FILE = 50 << 30
CHUNK = 8 << 20
ROWS_PER_CALL = 64
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")

SideEffects = Literal["none", "idempotent", "unsafe"]
Determinism = Literal["exact", "tolerance", "schema-only"]


class File(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One file of a release: path relative to its folder, size in bytes, sha256 in hex.

    `chunks` holds the sha256 of each 8-MiB piece of a file that is larger than one piece.
    """

    path: str
    size: int
    sha256: str
    chunks: tuple[str, ...] = ()


class Tolerance(Struct, frozen=True, forbid_unknown_fields=True):
    """How far an output may be from its golden value: |got - expected| <= atol + rtol * |expected|."""

    rtol: float
    atol: float


class Serving(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a release wants to be served.

    `max_batch` is the most rows given to one call of predict (0: what suits the framework, which the release then
    names); `workers` overrides the server's number of workers; `threads` is the size of the numeric thread pools of
    each worker (0: the CPU budget divided by the workers).
    """

    max_batch: Annotated[int, Meta(ge=0)] = 0
    workers: Annotated[int, Meta(ge=1)] | None = None
    threads: Annotated[int, Meta(ge=0)] = 0

    @property
    def rows_per_call(self) -> int:
        """The most rows given to one call of predict; 64 in a release that names no number."""
        return self.max_batch or ROWS_PER_CALL


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a release *is*: behaviour only. Who and when stand in the registry's record beside the id.

    `entry` is what the framework loads: a path below model/, or `module:Class` below code/. `options` belong to the
    framework. `unsafe` says why the artifact may run code when it is loaded; empty where it can't. `golden_rows` is
    the number of rows in golden.jsonl, and `tolerances` holds one entry per output where `determinism` is `tolerance`.
    """

    format: int
    model: str
    signature: Signature
    framework: str
    entry: str
    files: tuple[File, ...]
    python: str
    lock: str
    options: dict[str, Any] = {}
    unsafe: str = ""
    determinism: Determinism = "exact"
    tolerances: dict[str, Tolerance] = {}
    golden_rows: int = 0
    side_effects: SideEffects = "none"
    serving: Serving = Serving()
    capabilities: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


def canonical(manifest: Manifest) -> bytes:
    """The one spelling of a manifest: JSON with sorted keys, files sorted by path, no spaces."""
    ordered = msgspec.structs.replace(manifest, files=tuple(sorted(manifest.files, key=lambda file: file.path)))
    return msgspec.json.encode(ordered, order="sorted")


def release_id(manifest: Manifest) -> str:
    """The identity of a release: `sha256:` and the digest of its canonical manifest."""
    return "sha256:" + hashlib.sha256(canonical(manifest)).hexdigest()


_DECODER = msgspec.json.Decoder(Manifest)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Read a manifest of this or an older format; `where` names the place in errors."""
    if len(data) > MAX_MANIFEST:
        raise error("bad-manifest", f"{where}: the manifest is {len(data)} bytes, the limit is {MAX_MANIFEST}")
    try:
        number = msgspec.json.decode(data, type=_Numbered).format
    except _UNREADABLE as problem:
        raise error("bad-manifest", f"{where}: not a release manifest: {problem}") from None
    if number > FORMAT:
        raise error(
            "format-too-new",
            f"{where}: release format {number}; this Salver reads up to {FORMAT}",
            hint="update Salver",
        )
    try:
        return _DECODER.decode(data)
    except _UNREADABLE as problem:
        raise error("bad-manifest", f"{where}: not a release manifest: {problem}") from None


def check_name(name: str, *, what: str = "model") -> str:
    """Return `name` if it may name a model, else refuse it."""
    if not NAME.fullmatch(name):
        raise error(
            "bad-name",
            f"{what} name {name!r} is not allowed",
            hint="1 to 64 letters, digits, '.', '_' or '-', beginning and ending with a letter or digit",
        )
    return name


class _Numbered(Struct):
    format: int
