"""Small releases with real files, built without the packaging code: the registry only sees files and a manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from salver.record import Provenance
from salver.release import CHUNK, FORMAT, File, Manifest
from salver.signature import Column, Signature

PROVENANCE = Provenance(actor="tester", at="2025-01-01T00:00:00Z")
SIGNATURE = Signature(inputs=(Column("age", "float"),), outputs=(Column("churn", "float"),))


def build(folder: Path, content: str, model: str = "churn") -> Manifest:
    """Write the files of a release into `folder`, and the manifest that lists them."""
    files = {
        "model/model.bin": f"model {content}".encode() * 20,
        "code/churn.py": b"def predict(rows):\n    return rows\n",
        "golden.jsonl": f'{{"content": "{content}"}}\n'.encode(),
        "environment/requirements.lock": b"numpy==2.0.0\n",
        "code/empty/__init__.py": b"",
    }
    return manifest_of(folder, files, model)


def manifest_of(folder: Path, files: dict[str, bytes], model: str = "churn") -> Manifest:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return Manifest(
        format=FORMAT,
        model=model,
        signature=SIGNATURE,
        framework="function",
        entry="churn:Churn",
        files=tuple(describe(path, data) for path, data in files.items()),
        python="3.11",
        lock="0" * 64,
    )


def describe(path: str, data: bytes) -> File:
    pieces = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    chunks = tuple(hashlib.sha256(piece).hexdigest() for piece in pieces) if len(pieces) > 1 else ()
    return File(path, len(data), hashlib.sha256(data).hexdigest(), chunks)
