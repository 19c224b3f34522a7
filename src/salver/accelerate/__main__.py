"""`python -m salver.accelerate ORIGINAL TARGET ROWS`: convert a release's model, compare, write graph and evidence.

Runs by itself in a clean process, since it loads the model. ROWS is a JSON object of sets of request rows by name. What
goes wrong is written to TARGET/error.json.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import msgspec

from salver import lock
from salver.accelerate.convert import convert
from salver.accelerate.evidence import EVIDENCE
from salver.accelerate.judge import Judge
from salver.accelerate.rebuild import model_of
from salver.errors import SalverError
from salver.frameworks import onnx
from salver.release import LOCK, MANIFEST, parse_manifest, release_id
from salver.worker.predictor import Predictor

FAILED = 70


def main(argv: list[str]) -> int:
    """Returns 70 where the model can't be converted."""
    original, target, rows = map(Path, argv)
    warnings.simplefilter("ignore")
    logging.getLogger("salver.worker").setLevel(logging.CRITICAL)
    try:
        _accelerate(original, target, msgspec.json.decode(rows.read_bytes(), type=dict[str, list[dict[str, Any]]]))
    except SalverError as problem:
        told = {"code": problem.code, "message": problem.message, "hint": problem.hint, "details": problem.details}
        (target / "error.json").write_text(json.dumps(told))
        return FAILED
    return 0


def _accelerate(folder: Path, target: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    manifest = parse_manifest((folder / MANIFEST).read_bytes(), where=str(folder))
    lock.require_same((folder / LOCK).read_text(), manifest.python, what=manifest.model)
    original = Predictor.open(folder)
    graph = convert(model_of(folder, manifest), manifest.signature)
    saved = onnx.FRAMEWORK.save(graph.data, target)
    options = {**saved.options, **graph.options}
    predict = onnx.FRAMEWORK.load(target, saved.entry, options, manifest.signature)
    accelerated = Predictor(target, manifest, "", predict)
    evidence = Judge(original, accelerated, release_id(manifest)).judge(rows)
    (target / EVIDENCE).parent.mkdir(parents=True, exist_ok=True)
    (target / EVIDENCE).write_bytes(msgspec.json.format(msgspec.json.encode(evidence), indent=1))
    (target / "options.json").write_text(json.dumps(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
