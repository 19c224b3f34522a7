"""Golden rows: requests whose answers travel in the release, and what counts as the same answer.

`golden.jsonl` has one `{"request": row, "answer": row}` a line, in the native JSON of the release's signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from salver.errors import error
from salver.release import Determinism, Manifest, Tolerance

MAX_ROWS = 32
RTOLS = (1e-6, 1e-5, 1e-4, 1e-3)
"""The relative tolerances a release may need; an answer that moves more than the last one has no golden value."""

_SLACK = 8
"""A tolerance is granted with this much room over what two runs were seen to differ."""

_ATOL = 1e-3
"""atol = rtol x this x the largest golden value: what cancellation leaves of values near zero."""


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """One golden row: the request and the answer it must get, as plain JSON values."""

    request: Any
    answer: Any


class Rule(Struct, frozen=True):
    """What counts as the same answer: the determinism class, tolerances per output, outputs that are private."""

    determinism: Determinism = "exact"
    tolerances: dict[str, Tolerance] = {}
    private: frozenset[str] = frozenset()


_ENCODER = msgspec.json.Encoder()
_LINE = msgspec.json.Decoder(Row)


def dump(rows: Iterable[Row]) -> bytes:
    """The bytes of golden.jsonl."""
    return b"".join(_ENCODER.encode(row) + b"\n" for row in rows)


def read(path: Path) -> list[Row]:
    """Read golden.jsonl; raises `corrupt` naming the line that can't be read."""
    return parse(path.read_bytes(), path.name)


def parse(data: bytes, where: str) -> list[Row]:
    """The rows in the bytes of golden.jsonl; `where` names the place in errors."""
    rows = []
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            rows.append(_LINE.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise error("corrupt", f"{where}, line {number}: not a golden row: {problem}") from None
    return rows


def request_body(rows: Sequence[Row]) -> bytes:
    """The body of one native request that asks all rows."""
    return _ENCODER.encode([row.request for row in rows])


def compare(body: bytes, rows: Sequence[Row], manifest: Manifest) -> list[str]:
    """What differs between the body of a native answer to `request_body(rows)` and the golden answers; [] if none.

    Fractions of an `exact` release may differ by the least of `RTOLS`: it was seen to be exact on one processor, and
    another one, or another number of threads, rounds otherwise.
    """
    private = frozenset(field.name for field in manifest.signature.outputs if field.private)
    try:
        answers = answer_rows(body)
    except ValueError as problem:
        return [str(problem)]
    expected = [row.answer for row in rows]
    rule = Rule(manifest.determinism, manifest.tolerances, private)
    if manifest.determinism == "exact":
        fractions = (field.name for field in manifest.signature.outputs if _has_floats(expected, field.name))
        rule = Rule("tolerance", {name: tolerance(expected, name, RTOLS[0]) for name in fractions}, private)
    return differences(answers, expected, rule)


def answer_rows(body: bytes) -> list[Any]:
    """The rows of a native answer to a list; ValueError says what it is instead."""
    try:
        answers = msgspec.json.decode(body)
    except msgspec.DecodeError as problem:
        raise ValueError(f"the answer is not JSON: {problem}") from None
    if isinstance(answers, list):
        return answers
    refusal = _failure(answers)
    raise ValueError(f"the request was refused: {refusal}" if refusal else "the answer is not a list of rows")


def differences(answers: Sequence[Any], expected: Sequence[Any], rule: Rule) -> list[str]:
    """Every difference that the rule doesn't allow, as `row 3, prediction: expected 0.81, got 0.79`."""
    problems: list[str] = []
    if len(answers) != len(expected):
        problems.append(f"expected {len(expected)} rows, got {len(answers)}")
    for number, (wanted, got) in enumerate(zip(expected, answers, strict=False)):
        failure = _failure(got)
        if failure and not _failure(wanted):
            problems.append(f"row {number}: {failure}")
            continue
        wanted_fields, got_fields = _fields(wanted), _fields(got)
        for name in [*wanted_fields, *(name for name in got_fields if name not in wanted_fields)]:
            where = f"row {number}, {name}"
            if name not in got_fields:
                problems.append(f"{where}: missing")
            elif name not in wanted_fields:
                problems.append(f"{where}: not expected")
            else:
                problems += (
                    f"{where}{place}: {text}"
                    for place, text in _differ(wanted_fields[name], got_fields[name], name, rule)
                )
    return problems


def classify(first: Sequence[Any], second: Sequence[Any]) -> tuple[Determinism, dict[str, Tolerance]]:
    """How reproducible answers are, from two runs over the same rows.

    `exact` where they are equal; `tolerance` where only numbers differ, by no more than the last of `RTOLS`, with one
    tolerance for each output that holds fractions or differs; else `schema-only`.
    """
    if not differences(second, first, Rule()):
        return "exact", {}
    if len(first) != len(second):
        return "schema-only", {}
    tolerances: dict[str, Tolerance] = {}
    for name in dict.fromkeys(name for answer in first for name in _fields(answer)):
        ours, theirs = _column(first, name), _column(second, name)
        if not _has_floats(first, name) and not differences(theirs, ours, Rule()):
            continue
        for rtol in RTOLS:
            tight = tolerance(first, name, rtol / _SLACK)
            if not differences(theirs, ours, Rule("tolerance", {name: tight})):
                tolerances[name] = tolerance(first, name, rtol)
                break
        else:
            return "schema-only", {}
    return "tolerance", tolerances


def tolerance(answers: Sequence[Any], name: str, rtol: float) -> Tolerance:
    """The tolerance of one output for a relative one: what cancellation leaves of values near zero is allowed too."""
    values = _values(answers, name)
    return Tolerance(rtol, rtol * _ATOL * max(map(abs, values), default=0.0))


def _values(answers: Sequence[Any], name: str) -> Iterator[float]:
    return (number for answer in answers for number in _numbers(_fields(answer).get(name)))


def _has_floats(answers: Sequence[Any], name: str) -> bool:
    return any(isinstance(number, float) for number in _values(answers, name))


def _column(answers: Sequence[Any], name: str) -> list[dict[str, Any]]:
    return [{name: _fields(answer).get(name)} for answer in answers]


def _differ(wanted: Any, got: Any, name: str, rule: Rule) -> Iterator[tuple[str, str]]:
    if isinstance(wanted, list) and isinstance(got, list):
        if len(wanted) != len(got):
            if rule.determinism != "schema-only":
                yield "", f"expected {len(wanted)} values, got {len(got)}"
            return
        for index, (one, other) in enumerate(zip(wanted, got, strict=True)):
            for place, text in _differ(one, other, name, rule):
                yield f"[{index}]{place}", text
    elif not _same(wanted, got, name, rule):
        if name in rule.private:
            yield "", "differs (private, so not shown)"
        elif rule.determinism == "schema-only":
            yield "", f"expected a value of type {_kind(wanted)}, got {_kind(got)}"
        else:
            yield "", f"expected {_shown(wanted)}, got {_shown(got)}"


def _same(wanted: Any, got: Any, name: str, rule: Rule) -> bool:
    if rule.determinism == "schema-only":
        return wanted is None or got is None or _kind(wanted) == _kind(got)
    if _kind(wanted) != _kind(got):
        return False
    allowed = rule.tolerances.get(name) if rule.determinism == "tolerance" else None
    if allowed is None or _kind(wanted) != "number":
        return bool(wanted == got)
    return bool(abs(got - wanted) <= allowed.atol + allowed.rtol * abs(wanted))


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "list" if isinstance(value, list) else "object"


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif _kind(value) == "number":
        yield value


def _fields(answer: Any) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else {"answer": answer}


def _failure(answer: Any) -> str:
    if not isinstance(answer, dict) or not isinstance(answer.get("error"), dict):
        return ""
    problem = answer["error"]
    return f"{problem.get('code', 'error')}: {problem.get('detail', '')}"


def _shown(value: Any) -> str:
    text = _ENCODER.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}…"
