"""API keys: what a key may do, the token that people hold, and the line that a keys file holds of it."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from salver.errors import error

SCOPES = ("predict", "metadata", "health", "docs", "metrics", "status", "admin")
USUAL_SCOPES = ("predict", "metadata")
ADMIN_SCOPES = ("metrics", "status")
"""What opens the pages of the admin port; `admin` holds both."""
NAME = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$"
PREFIX = "slv_"
SECRET_BYTES = 32
_DIGITS = string.digits + string.ascii_letters
_SECRET_LENGTH = 43  # of 32 bytes in base 62
_CHECK_LENGTH = 6

Rate = Annotated[float, Meta(gt=0)]


class Quotas(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a key may use a second, on average; after a rest it may use `burst` seconds' worth at once."""

    requests_per_second: Rate | None = None
    bytes_per_second: Rate | None = None
    rows_per_second: Rate | None = None
    burst: Rate = 1.0


class Key(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One API key as it is stored: without its token.

    A plain SHA-256 is right for it: the secret has 256 random bits, so there is nothing to guess that a slow hash
    would have to protect. No `models` means all. A higher `priority` is served first.
    """

    name: Annotated[str, Meta(pattern=NAME)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    scopes: tuple[str, ...] = USUAL_SCOPES
    models: tuple[str, ...] = ()
    created: datetime | None = None
    expires: datetime | None = None
    quotas: Quotas = Quotas()
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    revoked: bool = False

    def __post_init__(self) -> None:
        unknown = [scope for scope in self.scopes if scope not in SCOPES]
        if unknown:
            raise ValueError(f"unknown scope {unknown[0]!r}; there are {', '.join(SCOPES)}")
        for moment in (self.created, self.expires):
            if moment is not None and moment.tzinfo is None:
                raise ValueError("times need their zone, as in 2030-01-31T00:00:00Z")


def mint(name: str) -> str:
    """A new token for a key of this name: `slv_NAME_SECRET`, its last six characters a checksum.

    Programs that look for leaked secrets know it by its prefix and checksum, without asking anybody.
    """
    if not re.fullmatch(NAME[1:-1], name):
        hint = "letters, digits, dots and dashes, at most 64"
        raise error("bad-name", f"{name!r} is no name for a key", hint=hint)
    stem = f"{PREFIX}{name}_{_base62(int.from_bytes(secrets.token_bytes(SECRET_BYTES), 'big'), _SECRET_LENGTH)}"
    return stem + _check(stem)


def well_formed(token: str) -> bool:
    """Whether a text has the form and the checksum of a token."""
    stem, check = token[:-_CHECK_LENGTH], token[-_CHECK_LENGTH:]
    name, _, secret = stem.removeprefix(PREFIX).rpartition("_")
    return token.startswith(PREFIX) and bool(name) and len(secret) == _SECRET_LENGTH and check == _check(stem)


def digest(token: bytes) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token).hexdigest()


def read_keys(text: bytes) -> tuple[Key, ...]:
    """The keys of a keys file, one JSON object a line; raises `bad-keys` with every line that can't be used."""
    keys: dict[str, Key] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            key = msgspec.json.decode(line, type=Key)
        except (msgspec.DecodeError, ValueError) as problem:
            problems.append(f"line {number}: {problem}")
            continue
        if key.name in keys:
            problems.append(f"line {number}: a second key named {key.name!r}")
        keys[key.name] = key
    if problems:
        raise error("bad-keys", "the keys file can't be used", details=tuple(problems[:20]))
    return tuple(keys.values())


def write_keys(keys: tuple[Key, ...]) -> bytes:
    """The text of a keys file."""
    return b"".join(msgspec.json.encode(key) + b"\n" for key in keys)


def slots(keys: tuple[Key, ...], count: int) -> dict[str, int]:
    """A slot of shared memory for every key with a quota, the same wherever and whenever it is worked out.

    A key that leaves moves at most those few that had wanted the same slot.
    """
    limited = [key for key in keys if key.quotas != Quotas(burst=key.quotas.burst)]
    if len(limited) > count // 2:
        raise error("bad-keys", f"{len(limited)} keys have a quota", hint=f"at most {count // 2} can")
    taken: dict[int, str] = {}
    for key in sorted(limited, key=lambda key: key.sha256):
        slot = int(key.sha256[:8], 16) % count
        while slot in taken:
            slot = (slot + 1) % count
        taken[slot] = key.name
    return {name: slot for slot, name in taken.items()}


def _base62(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return digits


def _check(stem: str) -> str:
    return _base62(zlib.crc32(stem.encode()), _CHECK_LENGTH)
