"""What a manifest must fulfil before its files are stored, or written to a disk under the names it gives them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from salver.errors import error
from salver.registry.layout import is_digest
from salver.release import CHUNK, MANIFEST, MAX_FILE, MAX_FILES, File, Manifest

MAX_PATH = 1024
MAX_SEGMENT = 255
SHOWN = 20

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


def check_manifest(manifest: Manifest, where: str) -> None:
    """Refuse a manifest whose file list is unsafe or can't be true; `where` names the place in errors."""
    problems = list(_problems(manifest.files))
    if problems:
        more = (f"and {len(problems) - SHOWN} more",) if len(problems) > SHOWN else ()
        raise error("bad-manifest", f"{where}: its file list can't be used", details=(*problems[:SHOWN], *more))


def _problems(files: tuple[File, ...]) -> Iterator[str]:
    if len(files) > MAX_FILES:
        yield f"{len(files)} files, the limit is {MAX_FILES}"
        return
    for file in files:
        yield from (f"{file.path!r}: {problem}" for problem in _file_problems(file))
    yield from _collisions(file.path for file in files)


def _file_problems(file: File) -> Iterator[str]:
    segments = file.path.split("/")
    if any(segment in ("", ".", "..") for segment in segments) or file.path == MANIFEST:
        yield "not a path below the release's folder"
    if _FORBIDDEN.search(file.path):
        yield "control characters and backslashes are not allowed"
    if not _encodes(file.path):
        yield "not valid unicode"
    elif len(file.path.encode()) > MAX_PATH or any(len(segment.encode()) > MAX_SEGMENT for segment in segments):
        yield f"longer than {MAX_PATH} bytes, or a part of it longer than {MAX_SEGMENT}"
    if not 0 <= file.size <= MAX_FILE:
        yield f"{file.size} bytes, the limit is {MAX_FILE}"
    if not all(is_digest(digest) for digest in (file.sha256, *file.chunks)):
        yield "a sha256 must be 64 lower-case hex digits"
    if file.chunks and len(file.chunks) != -(-file.size // CHUNK):
        yield f"{len(file.chunks)} chunk digests do not fit {file.size} bytes"


def _collisions(paths: Iterable[str]) -> Iterator[str]:
    """Paths that are one and the same on some file system, or of which one would have to be a folder and a file."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        same = unicodedata.normalize("NFC", path).casefold()
        if same in files:
            yield f"{path!r} and {files[same]!r} can't lie in one folder"
        files[same] = path
        segments, spelled = same.split("/"), path.split("/")
        for depth in range(1, len(segments)):
            above = "/".join(segments[:depth])
            spelling = "/".join(spelled[:depth])
            if folders.setdefault(above, spelling) != spelling:
                yield f"the folders {spelling!r} and {folders[above]!r} can't lie side by side"
    for path in files.keys() & folders.keys():
        yield f"{files[path]!r} is a file and a folder"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
