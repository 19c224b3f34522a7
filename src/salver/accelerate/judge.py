"""Asks the original and the accelerated model the same rows, and writes down what it found."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from salver import plugins
from salver.accelerate import compare, edges
from salver.accelerate.evidence import DISTANCE, FORMAT, RTOL, SHOWN, Compared, Difference, Evidence
from salver.errors import error
from salver.frameworks import Columns
from salver.release import Tolerance
from salver.worker.predictor import Predictor

CONVERTERS = ("skl2onnx", "onnxmltools", "onnxscript", "catboost", "torch", "onnx", "onnxruntime")
JUDGED = 500
"""How many differing rows of a set are looked at closely; more than that forbids the acceleration by itself."""

Row = dict[str, Any]


class Judge:
    """Compares two predictors of one signature."""

    def __init__(self, original: Predictor, accelerated: Predictor, name: str) -> None:
        self._original = original
        self._accelerated = accelerated
        self._name = name
        self._signature = original.manifest.signature
        self._codec = plugins.protocol("native").codec(original.subject)
        self._allowed: dict[str, Tolerance] = {}
        self._largest: dict[str, float] = {}
        self._differences: list[Difference] = []

    def judge(self, sets: Mapping[str, Sequence[Row]]) -> Evidence:
        """Compare on each set of rows, then on edge rows and rows beside splits made from all of them."""
        known = [row for rows in sets.values() for row in rows]
        columns, count, places = self._decode(known)
        known = [known[place] for place in places]
        answers = self._original.predict(columns, count)
        self._allowed = compare.tolerances(self._signature.outputs, answers.outputs, RTOL)
        every = {**sets, "edges": edges.edge_rows(self._signature.inputs, known)}
        every["splits"] = edges.split_rows(self._scores, self._signature.inputs, columns, known)
        compared = [self._compare(name, list(rows)) for name, rows in every.items() if rows]
        ordered = sorted(self._differences, key=lambda each: each.verdict != "different")
        return Evidence(
            format=FORMAT,
            original=self._name,
            converter=_versions(),
            distance=DISTANCE,
            tolerances=self._allowed,
            largest=self._largest,
            compared=compared,
            differences=ordered[:SHOWN],
            unlisted=max(len(ordered) - SHOWN, 0),
        )

    def _decode(self, rows: Sequence[Row]) -> tuple[Columns, int, list[int]]:
        """The columns of the rows that are valid requests, how many, and which."""
        decoded = self._codec.decode([msgspec.json.encode(rows)], None)
        part = decoded.parts[0]
        if part.failure is not None:
            raise part.failure
        return decoded.columns, decoded.count, [index for index in range(len(rows)) if index not in part.errors]

    def _scores(self, columns: Columns, count: int) -> NDArray[Any]:
        outputs = self._original.predict(columns, count).outputs
        shown = [values.reshape(count, -1) for values in outputs.values()]
        return np.concatenate([values.astype(object) for values in shown], axis=1)

    def _compare(self, name: str, rows: Sequence[Row]) -> Compared:
        columns, count, places = self._decode(rows)
        if not count:
            raise error("bad-examples", f"none of the {len(rows)} rows to compare on ({name}) is a valid request")
        wanted, got = self._original.predict(columns, count), self._accelerated.predict(columns, count)
        found = compare.alike(wanted.outputs, got.outputs, self._allowed, count)
        refused, lost = _mask(wanted.failures, count), _mask(got.failures, count)
        answered = ~refused & ~lost
        equal = (found.equal & answered) | (refused & lost)
        close = found.close & answered
        for output, gap in compare.largest(wanted.outputs, got.outputs, close).items():
            self._largest[output] = max(gap, self._largest.get(output, 0.0))
        odd = np.flatnonzero(~equal & ~close).tolist()
        counts = {"boundary": 0, "refused": 0, "different": max(len(odd) - JUDGED, 0), "invalid": len(rows) - count}
        for row in odd[:JUDGED]:
            one = {key: values[row : row + 1] for key, values in columns.items()}
            answer = {key: values[row : row + 1] for key, values in got.outputs.items()}
            verdict = "refused" if refused[row] else "different" if lost[row] else self._verdict(one, answer)
            counts[verdict] += 1
            before = None if refused[row] else _plain(wanted.outputs, row)
            after = None if lost[row] else _plain(got.outputs, row)
            self._differences.append(Difference(name, self._shown(rows[places[row]]), before, after, verdict))
        return Compared(name, count, int(equal.sum()), int((close & ~equal).sum()), **counts)

    def _verdict(self, row: Columns, answer: Columns) -> str:
        near, count = compare.around(row, self._signature.inputs, DISTANCE)
        outcome = self._original.predict(near, count)
        fine = ~_mask(outcome.failures, count)
        answers = {name: values[fine] for name, values in outcome.outputs.items()}
        if not fine.any():
            raise error("model-error", "the original refuses every neighbour of a row that it answers")
        return "boundary" if compare.near_boundary(answers, answer, self._allowed) else "different"

    def _shown(self, row: Row) -> Row:
        private = {field.name for field in self._signature.inputs if field.private}
        return {name: "(private)" if name in private else value for name, value in row.items()}


def _plain(outputs: Columns, row: int) -> dict[str, Any]:
    """One row's answer in plain Python: texts and numbers, and lists of them."""
    return {name: values[row : row + 1].tolist()[0] for name, values in outputs.items()}


def _mask(failures: Mapping[int, Any], count: int) -> NDArray[np.bool_]:
    found = np.zeros(count, bool)
    found[list(failures)] = True
    return found


def _versions() -> dict[str, str]:
    found = {}
    for name in CONVERTERS:
        if name not in sys.modules:  # had no part in it
            continue
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
