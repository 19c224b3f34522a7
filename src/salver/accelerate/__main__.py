"""`python -m salver.accelerate ORIGINAL TARGET ROWS`: convert a release's model, compare, write graph and evidence.

Runs by itself in a clean process, since it loads the model. ROWS is a JSON object of sets of request rows by name. What
goes wrong is written to TARGET/error.json.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from salver.accelerate.evidence import EVIDENCE
from salver.accelerate.hybrid import Converted
from salver.accelerate.judge import Judge
from salver.accelerate.rebuild import converted
from salver.errors import SalverError
from salver.frameworks import Saved, onnx, sklearn
from salver.release import CODE_DIR, MANIFEST, parse_manifest, release_id
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
    original = Predictor.open(folder)
    made = converted(folder, manifest)
    if made.half and (folder / CODE_DIR).is_dir():
        shutil.copytree(folder / CODE_DIR, target / CODE_DIR, ignore=shutil.ignore_patterns("__pycache__"))
    saved = _save(made, manifest.options, target)
    predict = onnx.FRAMEWORK.load(target, saved.entry, saved.options, manifest.signature)
    accelerated = Predictor(target, manifest, "", predict)
    evidence = Judge(original, accelerated, release_id(manifest)).judge(rows)
    if made.half:
        evidence = msgspec.structs.replace(evidence, kept=made.half.kept)
    (target / EVIDENCE).parent.mkdir(parents=True, exist_ok=True)
    (target / EVIDENCE).write_bytes(msgspec.json.format(msgspec.json.encode(evidence), indent=1))
    (target / "saved.json").write_text(json.dumps({"options": saved.options, "unsafe": saved.unsafe}))


def _save(made: Converted, options: Mapping[str, Any], target: Path) -> Saved:
    """Write the graph and, of a pipeline in halves, the other half."""
    saved = onnx.FRAMEWORK.save(made.graph.data, target)
    if made.half is None:
        return saved._replace(options={**saved.options, **made.graph.options})
    kept = sklearn.FRAMEWORK.save(made.half.model, target)
    about = {
        "method": options.get("method", "predict"),
        "imports": sorted({*saved.options["imports"], *kept.options["imports"]}),
        "half": {"side": made.half.side, "entry": kept.entry, "width": made.half.width},
    }
    return Saved(saved.entry, {**kept.options, **saved.options, **made.graph.options, **about}, kept.unsafe)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
