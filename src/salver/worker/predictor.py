"""The one heart: everything that predicts, does it through a `Predictor`, out of process.

bytes ──decode──▶ columns ──predict, isolated──▶ columns ──encode──▶ bytes
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from salver import golden, plugins, tables
from salver.errors import SalverError, error
from salver.frames import Answers, Batch, Form, Reply
from salver.frameworks import Columns, Predict
from salver.frameworks.pieces import Streaming
from salver.protocols import Codec, Decoded, Encoded, Subject
from salver.release import CODE_DIR, GOLDEN, MANIFEST, Manifest, parse_manifest
from salver.signature import Tensor
from salver.worker import code, streams
from salver.worker.isolation import Isolation, Outcome, model_error

log = logging.getLogger("salver.worker")
WARM_STEP = 8
WARM_TIME = 10.0
"""Seconds that one call of a slow model may be expected to take while it is warmed; a larger one waits for callers."""


class Predictor:
    """One release, loaded: answers batches of requests. Synchronous, one caller at a time."""

    def __init__(self, folder: Path, manifest: Manifest, name: str, predict: Predict) -> None:
        number = name.partition("@")[2].partition("/")[0]
        self.name = name
        self.manifest = manifest
        self.subject = Subject(
            manifest.model, int(number) if number.isdigit() else 0, manifest.framework, manifest.signature
        )
        self.batches = 0
        self._folder = folder
        self._predict = predict
        self._stream: Callable[[Columns], Iterator[Columns]] = getattr(predict, "stream", None) or _whole(predict)
        self._codecs: dict[str, Codec] = {}
        self._watch = tables.unseen_counter(manifest.signature.inputs)
        self._extra: list[Callable[[], int]] = []
        self._unseen: Callable[[], int] | None = None
        self._isolation = Isolation(
            predict,
            manifest.serving.rows_per_call,
            bisect=manifest.side_effects == "none",
            check=self._unanswerable,
            on_raise=self._log_raise,
        )

    @classmethod
    def open(cls, folder: Path, name: str = "") -> Predictor:
        """Load the release unpacked at `folder`; `name` (`churn@7`, or its worker `churn@7/0`) is what answers say."""
        manifest = parse_manifest((folder / MANIFEST).read_bytes(), where=name or str(folder))
        if (folder / CODE_DIR).is_dir():
            code.use(folder / CODE_DIR)
        framework = plugins.framework(manifest.framework)
        predict = framework.load(folder, manifest.entry, manifest.options, manifest.signature)
        return cls(folder, manifest, name or f"{manifest.model}@0", predict)

    def predict(self, columns: Columns, count: int) -> Outcome:
        """Predict `count` rows given as columns; rows that fail are in the outcome's failures."""
        outcome = self._isolation.run(columns, count)
        if outcome.outputs or not count:
            return outcome
        return Outcome(self._nothing(count), outcome.failures)

    def ask(self, wanted: Callable[[], bool]) -> None:
        """Ask after each piece of a whole answer, where the model yields, whether it is wanted any more."""
        if isinstance(self._predict, Streaming):
            self._predict.wanted = wanted

    def answer(self, batches: Sequence[Batch]) -> list[Answers]:
        """Answer these batches, each by itself, with as few calls of the model as the rows of all allow.

        Raises `Abandoned` where the answers are not wanted any more, as `ask` says.
        """
        self.batches += 1
        began = time.perf_counter_ns()
        groups = [self._codec(batch.form.protocol).decode(batch.bodies, batch.form.options) for batch in batches]
        if len(groups) == 1:
            columns, count = groups[0].columns, groups[0].count
        else:
            count = sum(decoded.count for decoded in groups)
            columns = tables.concat([decoded.columns for decoded in groups if decoded.count])
        self._extra = [decoded.extra for decoded in groups if decoded.extra is not None]
        self._unseen = self._watch(columns) if self._watch is not None and count else None
        decoded_at = time.perf_counter_ns()
        outcome = self.predict(columns, count) if count else Outcome({}, {})
        predicted_at = time.perf_counter_ns()
        answers = []
        offset = 0
        for batch, decoded in zip(batches, groups, strict=True):
            part_of = outcome if len(groups) == 1 else _window(outcome, offset, decoded.count)
            answers.append(self._encode(batch, decoded, part_of, offset))
            offset += decoded.count
        answers[0].rows = count
        encode_ns = time.perf_counter_ns() - predicted_at
        for each in answers:
            each.decode_ns, each.predict_ns, each.encode_ns = decoded_at - began, predicted_at - decoded_at, encode_ns
        return answers

    def stream(self, batch: Batch) -> tuple[Iterator[Encoded], int]:
        """The answer to a batch of one request, piece by piece, and its rows.

        Rows that are no rows fail in their place in each piece. A piece whose status is not 200 is the last: an error,
        or the answer to a request that is refused.
        """
        self.batches += 1
        options = batch.form.options or {}
        codec = self._codec(batch.form.protocol)
        decoded = codec.decode(batch.bodies, streams.of_pieces(options))
        part = decoded.parts[0]
        pieces: Iterator[Encoded]
        if part.failure is not None:
            pieces = iter([self._refused(codec, decoded, part.failure)])
        elif not decoded.count:
            pieces = iter(codec.encode(decoded, self._nothing(0), {}))
        else:
            pieces = self._pieces(codec, decoded)
        return (streams.written(piece, options) for piece in pieces), part.rows

    def _pieces(self, codec: Codec, decoded: Decoded) -> Iterator[Encoded]:
        """Each piece of one request's answer as its codec writes it; raises nothing that the model raises."""
        pieces = self._stream(decoded.columns)
        while True:
            try:
                outputs = next(pieces, None)
                failures = self._unanswerable(outputs) if outputs is not None else {}
            except Exception as raised:  # the model's own code may raise anything
                self._log_raise(raised)
                problem = raised if isinstance(raised, SalverError) else model_error(raised)
                outputs, failures = None, {0: problem}
            if failures:
                yield self._refused(codec, decoded, next(iter(failures.values())))
                return
            if outputs is None:
                return
            yield codec.encode(decoded, outputs, {})[0]

    def _refused(self, codec: Codec, decoded: Decoded, problem: SalverError) -> Encoded:
        """The answer to a batch of one request, that it has none."""
        part = structs.replace(decoded.parts[0], failure=problem)
        failures = dict.fromkeys(range(decoded.count), problem)
        return codec.encode(structs.replace(decoded, parts=[part]), self._nothing(decoded.count), failures)[0]

    def _nothing(self, count: int) -> Columns:
        return {field.name: _blank(field, count) for field in self.subject.signature.outputs}

    def count(self) -> tuple[int, int]:
        """Extra fields and unseen values in what was answered last; callers ask after they sent the answers."""
        extra = sum(map(_counted, self._extra))
        unseen = self._unseen() if self._unseen is not None else 0
        self._extra, self._unseen = [], None
        return extra, unseen

    def _encode(self, batch: Batch, decoded: Decoded, outcome: Outcome, offset: int) -> Answers:
        """One batch's answers; its first row is row `offset` of the model call."""
        answers = Answers(batch.generation, self.batches)
        if decoded.rows is not None and not outcome.failures:
            answers.ids, answers.bodies, answers.first = batch.ids, decoded.rows(outcome.outputs), offset
            return answers
        encoded = self._codec(batch.form.protocol).encode(decoded, outcome.outputs, outcome.failures)
        answers.replies = [
            Reply(number, one.status, one.body, part.rows, one.row_errors, one.code, one.content_type,
                  offset + part.start, one.headers)
            for number, part, one in zip(batch.ids, decoded.parts, encoded, strict=True)
        ]  # fmt: skip
        return answers

    def prove(self) -> list[str]:
        """Reproduce the golden rows; returns what differs, which is nothing for a sound release."""
        if not self.manifest.golden_rows:
            return []
        rows = golden.read(self._folder / GOLDEN)
        body = golden.request_body(rows)
        reply = self.answer([Batch(0, Form("native"), [0], [0], [body])])[0].replies[0]
        return golden.compare(reply.body, rows, self.manifest)

    def warm(self) -> None:
        """Predict the golden rows, repeated, at growing batch sizes, so that no caller pays for a first time.

        Sizes that would take a slow model too long are left out: nobody is answered meanwhile.
        """
        if not self.manifest.golden_rows or self.manifest.side_effects == "unsafe":
            return
        decoded = self._codec("native").decode([golden.request_body(golden.read(self._folder / GOLDEN))])
        if not decoded.count:
            return
        size = 1
        while True:
            rows = np.arange(size) % decoded.count
            began = time.perf_counter()
            self.predict({name: values[rows] for name, values in decoded.columns.items()}, size)
            took, last = time.perf_counter() - began, size
            size = min(size * WARM_STEP, self.manifest.serving.rows_per_call)
            if size == last or took * size / last > WARM_TIME:
                return

    def _codec(self, protocol: str) -> Codec:
        codec = self._codecs.get(protocol)
        if codec is None:
            codec = self._codecs[protocol] = plugins.protocol(protocol).codec(self.subject)
        return codec

    def _unanswerable(self, outputs: Columns) -> dict[int, SalverError]:
        rows = tables.check_finite(outputs, self.subject.signature)
        if not len(rows):
            return {}
        problem = error(
            "non-finite-output",
            f"{self.name} returned NaN or infinity for this row",
            hint="declare the output with non_finite=True to have it sent as null",
        )
        return dict.fromkeys(map(int, rows), problem)

    def _log_raise(self, raised: Exception) -> None:
        log.error("%s raised %s", self.name, type(raised).__name__, exc_info=raised)


def _counted(found: Callable[[], int]) -> int:
    """What a codec counts; 0 of a body whose ignored fields can't be read, though what matters of it could."""
    try:
        return found()
    except SalverError:
        return 0


def _whole(predict: Predict) -> Callable[[Columns], Iterator[Columns]]:
    """A model that does not yield, as one whose answer is a single piece."""

    def pieces(columns: Columns) -> Iterator[Columns]:
        yield predict(columns)

    return pieces


def _blank(field: Any, count: int) -> Any:
    shape = tuple(max(size, 1) for size in field.row_shape) if isinstance(field, Tensor) else ()
    return np.zeros((count, *shape))


def _window(outcome: Outcome, start: int, count: int) -> Outcome:
    """The part of an outcome that belongs to one protocol's rows."""
    outputs = {name: values[start : start + count] for name, values in outcome.outputs.items()}
    failures = {row - start: why for row, why in outcome.failures.items() if start <= row < start + count}
    return Outcome(outputs, failures)
