"""A model that takes photos as their bytes: a module of its own, since releases take it."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import salver


class Photos(salver.Model):
    """The length and checksum of each photo, its width where it is a JPEG, and its first bytes."""

    def predict(self, rows: Any) -> Any:
        photos = rows["photo"].tolist()
        assert all(photo is None or type(photo) is bytes for photo in photos)
        return {
            "length": [None if photo is None else len(photo) for photo in photos],
            "checksum": [None if photo is None else zlib.crc32(photo) for photo in photos],
            "width": [None if photo is None else width_of(photo) for photo in photos],
            "head": [None if photo is None else photo[:12] for photo in photos],
        }


def width_of(photo: bytes) -> int | None:
    """The width that a JPEG states in its frame header."""
    at = 2
    while photo[:2] == b"\xff\xd8" and at + 9 <= len(photo):
        marker, length = struct.unpack_from(">HH", photo, at)
        if 0xFFC0 <= marker <= 0xFFC2:
            return int(struct.unpack_from(">H", photo, at + 7)[0])
        at += 2 + length
    return None
