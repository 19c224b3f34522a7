"""Makes an accelerated release folder from a release folder: converts, has it proven, writes what a release holds."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from salver import golden
from salver.accelerate.compare import is_number
from salver.accelerate.evidence import EVIDENCE, Evidence, Speed
from salver.accelerate.rebuild import require_known
from salver.dispatch.launch import worker_environment
from salver.dispatch.local import LOAD_TIMEOUT, LocalRelease
from salver.environments.closure import NO_WISHES, Wishes, lock_for
from salver.environments.place import default_cache
from salver.errors import SalverError, error
from salver.lock import Lock, check, normalised, pins
from salver.packaging import assembly
from salver.packaging.card import card
from salver.release import CARD, CODE_DIR, GOLDEN, LOCK, MANIFEST, MODEL_DIR, Manifest

TIMEOUT = 3600.0
SHOWN = 20
TIMED = 1000
GRAPH_NEEDS = ("onnxruntime",)

Row = dict[str, Any]


class Source(Struct, frozen=True):
    """What is accelerated: a proven release folder, and sets of request rows by name to compare on.

    Its golden rows are compared in any case. `wishes` are the project's, which the new release obeys too.
    """

    folder: Path
    manifest: Manifest
    rows: dict[str, list[Row]] = {}
    load_timeout: float = LOAD_TIMEOUT
    cache: str = ""
    wishes: Wishes = NO_WISHES


class Accelerated(Struct, frozen=True):
    """A finished, proven release folder, the evidence, and how much faster it was here."""

    folder: Path
    manifest: Manifest
    evidence: Evidence
    speed: list[Speed]


def accelerate(source: Source, target: Path) -> Accelerated:
    """Build the ONNX release of `source` in the empty `target`.

    Raises what `require_possible` does, `unsupported-model` where a step can't be converted, and `expected-mismatch`
    with the rows where the answers differ.
    """
    manifest = source.manifest
    require_possible(source)
    if not manifest.golden_rows:
        raise error("unsupported-model", f"{manifest.model}: a release without golden rows can't be compared")
    sets = {"golden": [row.request for row in golden.read(source.folder / GOLDEN)], **source.rows}
    with tempfile.TemporaryDirectory(prefix="salver-accelerate-") as temporary:
        scratch = Path(temporary)
        (scratch / "rows.json").write_bytes(msgspec.json.encode(sets))
        (scratch / "timed.json").write_bytes(msgspec.json.encode(list(sets.values())[-1][:TIMED]))
        _run(source, "salver.accelerate", scratch, source.folder, target, scratch / "rows.json")
        evidence = _evidence(target)
        _require(evidence, manifest)
        finished = _assemble(source, target, evidence)
        asyncio.run(_prove(source, target))
        before, after = (_measure(source, folder, scratch) for folder in (source.folder, target))
    speed = [Speed(int(size), before[size], after[size]) for size in before]
    return Accelerated(target, finished, evidence, speed)


def require_possible(source: Source) -> None:
    """Raise, before any work, what forbids the acceleration whatever the model answers; needs model/ and lock alone.

    `unsupported-model` by what the release is, `missing-extra` without a converter, and `environment-differs` where
    this environment, in which models are converted and compared, isn't the one that the release or the graph locks.
    """
    manifest = source.manifest
    if manifest.framework == "onnx":
        raise error("unsupported-model", f"{manifest.model}: the release is an ONNX graph already")
    if manifest.side_effects != "none":
        raise error("unsupported-model", f"{manifest.model}: a release that can't be asked freely can't be compared")
    require_known(manifest.framework)
    _require_here((source.folder / LOCK).read_text(encoding="utf-8"), manifest)
    if source.wishes != NO_WISHES:
        _lock(source, GRAPH_NEEDS)


def _require_here(text: str, manifest: Manifest) -> None:
    differences = check(text, manifest.python)
    if not differences:
        return
    python = [f"use Python {each.wanted}" for each in differences if each.kind == "python"]
    packages = [f"{each.name}=={each.wanted}" for each in differences if each.kind != "python"]
    install = [f"install here what it locks: pip install {' '.join(packages)}"] if packages else []
    raise error(
        "environment-differs",
        f"{manifest.model}: a model is converted and compared in the environment of this command, "
        "which is not the one that the release locks",
        hint="; ".join(python + install),
        details=tuple(
            f"{each.name} is {each.found or 'not installed'}, the lock has {each.wanted}" for each in differences
        ),
    )


def _lock(source: Source, modules: Iterable[str]) -> Lock:
    """The lock of the accelerated release; raises `environment-differs` unless it is what was compared here."""
    lock = lock_for(modules, Path(source.cache or default_cache()), source.wishes)
    _require_here(lock.text, source.manifest)
    return lock


def _run(source: Source, module: str, scratch: Path, *arguments: Path) -> str:
    """Run a module of ours in a clean process, as a worker is run; returns what it printed.

    Raises what it wrote to error.json; where it broke off without, what it said is kept in the cache.
    """
    command = [sys.executable, "-P", "-m", module, *map(str, arguments)]
    environment = worker_environment(os.environ, 1)
    said, model = scratch / "said", source.manifest.model
    with said.open("wb") as stream:
        try:
            done = subprocess.run(
                command, env=environment, cwd=scratch, stdout=subprocess.PIPE, stderr=stream, timeout=TIMEOUT,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise error("load-failed", f"{model}: converting and comparing took over {TIMEOUT:g} s") from None
    if done.returncode == 0:
        return done.stdout.decode()
    told = arguments[1] / "error.json"
    if told.is_file():
        problem = json.loads(told.read_text())
        details = tuple(problem["details"])
        raise error(problem["code"], problem["message"], hint=problem["hint"], details=details)
    log = Path(source.cache or default_cache()) / "logs" / f"accelerate-{model}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(said, log)
    raise _broken_off(model, done.returncode, log)


def _broken_off(model: str, status: int, log: Path) -> SalverError:
    """The error of a process that ended without saying why in our words; a status below 0 is the signal's number."""
    hint = f"nothing was published; what the process said is in {log}"
    if status < 0:
        name = signal.Signals(-status).name
        why = f"the process that converts and compares was ended by {name}"
        return error("load-failed", f"{model}: {why}", hint=f"memory may have run out; {hint}")
    return error("internal", f"{model}: converting and comparing broke off, which is a bug in Salver", hint=hint)


def _evidence(target: Path) -> Evidence:
    return msgspec.json.decode((target / EVIDENCE).read_bytes(), type=Evidence)


def _require(evidence: Evidence, manifest: Manifest) -> None:
    if evidence.holds:
        return
    bad = [each for each in evidence.differences if each.verdict == "different"]
    count = sum(each.different for each in evidence.compared)
    raise error(
        "expected-mismatch",
        f"{manifest.model}: the converted model answers {count} rows differently, so nothing was published",
        hint="the original stays as it is; the rows say where the converter falls short",
        details=tuple(_told(each.rows, each.row, each.original, each.accelerated) for each in bad[:SHOWN]),
    )


def _told(rows: str, row: Row, before: Any, after: Any) -> str:
    texts = [msgspec.json.encode(each).decode() for each in (row, before, after)]
    return f"{rows}: {texts[0]}: the original answers {texts[1]}, the converted model {texts[2]}"


def _assemble(source: Source, target: Path, evidence: Evidence) -> Manifest:
    """Write everything but the graph and the evidence, which are there; the original's golden rows stay as they are."""
    original = source.manifest
    saved = json.loads((target / "saved.json").read_text())
    (target / "saved.json").unlink()
    options = saved["options"]
    kept = shutil.ignore_patterns(MODEL_DIR, CODE_DIR, CARD, MANIFEST, "environment", "evidence", "__pycache__")
    shutil.copytree(source.folder, target, ignore=kept, dirs_exist_ok=True, copy_function=shutil.copyfile)
    lock = _lock(source, _modules(source, options))
    (target / LOCK).parent.mkdir(parents=True, exist_ok=True)
    (target / LOCK).write_text(lock.text, encoding="utf-8")
    numbers = {field.name for field in original.signature.outputs if is_number(field)}
    exact = {} if original.determinism == "schema-only" or not numbers else evidence.tolerances
    manifest = msgspec.structs.replace(
        original, framework="onnx", entry="model.onnx", options=options, unsafe=saved["unsafe"], lock=lock.digest,
        determinism="tolerance" if exact else original.determinism, tolerances=exact,
        files=assembly.describe(target),
    )  # fmt: skip
    example = golden.read(target / GOLDEN)[0].request
    (target / CARD).write_text(card(manifest, example=example, lock_text=lock.text), encoding="utf-8")
    manifest = msgspec.structs.replace(manifest, files=assembly.describe(target))
    assembly.write_manifest(target, manifest)
    return manifest


def _modules(source: Source, options: dict[str, Any]) -> list[str]:
    """What the lock has to provide: where code of the original goes on being used, all that its own lock does."""
    if "half" not in options:
        return list(options["imports"])
    locked = pins((source.folder / LOCK).read_text())
    owners = packages_distributions()
    kept = [module for module, names in owners.items() if any(normalised(name) in locked for name in names)]
    return sorted({*kept, *(module for module in options["imports"] if module.partition(":")[0] in owners)})


async def _prove(source: Source, target: Path) -> None:
    """Start a worker on the finished folder, which must reproduce the original's golden rows."""
    name = f"{source.manifest.model}@new"
    async with LocalRelease(target, name, load_timeout=source.load_timeout, cache=source.cache):
        pass


def _measure(source: Source, folder: Path, scratch: Path) -> dict[str, int]:
    told = _run(source, "salver.accelerate.measure", scratch, folder, scratch / "timed.json")
    found: dict[str, int] = json.loads(told)
    return found
