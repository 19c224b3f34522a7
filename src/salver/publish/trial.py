"""Runs a staged release in clean worker processes: golden answers, how reproducible they are, what was expected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from msgspec import Struct

from salver import golden
from salver.dispatch.local import ANY_ENVIRONMENT, LOAD_TIMEOUT, LocalRelease
from salver.errors import error
from salver.publish.infer import to_rows
from salver.publish.native import body
from salver.release import Determinism, Manifest, Tolerance
from salver.signature import Column, Field

CHUNK = 500
"""How many examples go into one request where all of them are asked."""
SHOWN = 20
NO_GOLDEN = ("--no-golden",)
T = TypeVar("T")


class Candidate(Struct, frozen=True):
    """What is tried: a release folder and its manifest, the seconds that a worker gets to load it, where environments
    are built, and whether it runs in the locked one or, unlike how it will be served, in this.
    """

    folder: Path
    manifest: Manifest
    load_timeout: float = LOAD_TIMEOUT
    cache: str = ""
    locked: bool = True


class Trial(Struct, frozen=True):
    """What a worker answered: the golden rows, how reproducible the answers were found to be, and other rows asked."""

    answers: list[Any]
    determinism: Determinism
    tolerances: dict[str, Tolerance]
    remarks: tuple[str, ...] = ()
    asked: list[Any] = []


def ask(candidate: Candidate, requests: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Trial:
    """Answer the golden requests in a clean process: all at once, then one by one, and again if those differ.

    Arithmetic that depends on the batch shows here in the last bits, and makes a tolerance. Then `rows` are asked.
    Raises `bad-examples` naming every golden request that the release can't answer.
    """

    async def run(local: LocalRelease) -> Trial:
        together = await _ask(local, requests)
        _require_answers(together, candidate.manifest)
        single = [answer for request in requests for answer in await _ask(local, [request])]
        determinism, tolerances = golden.classify(together, single)
        remarks: tuple[str, ...] = ()
        if determinism == "schema-only":
            determinism, tolerances = golden.classify(together, await _ask(local, requests))
            remarks = (_RANDOM if determinism == "schema-only" else _BATCH_DEPENDENT,)
        asked: list[Any] = []
        for start in range(0, len(rows), CHUNK):
            asked += await _ask(local, rows[start : start + CHUNK])
        return Trial(together, determinism, tolerances, remarks, asked)

    return _run(candidate, NO_GOLDEN, run)


_RANDOM = "the same rows get different answers each time: golden rows check their types only"
_BATCH_DEPENDENT = "a row's answer depends on which rows share its batch; was that meant?"


def ask_again(candidate: Candidate, requests: list[dict[str, Any]], before: Trial) -> Trial:
    """Classify by a second clean process, for a release that didn't reproduce its golden rows in one."""

    async def run(local: LocalRelease) -> Trial:
        determinism, tolerances = golden.classify(before.answers, await _ask(local, requests))
        if determinism == "exact":
            determinism, tolerances = before.determinism, before.tolerances
        remark = f"two processes answer differently: golden rows are checked by {determinism}"
        return Trial(before.answers, determinism, tolerances, (*before.remarks, remark))

    return _run(candidate, NO_GOLDEN, run)


def prove(candidate: Candidate, requests: list[dict[str, Any]], tried: Trial | None) -> None:
    """Start a clean worker on the finished folder; it must reproduce the golden rows, else its error is raised.

    On the machine that makes an exact release that means every bit.
    """

    async def run(local: LocalRelease) -> None:
        if tried is None or tried.determinism != "exact":
            return
        problems = golden.differences(await _ask(local, requests), tried.answers, golden.Rule())
        if problems:
            raise error("golden-mismatch", f"{candidate.manifest.model}: two processes answer differently")

    _run(candidate, (), run)


def require_expected(trial: Trial, manifest: Manifest, expected: Any) -> None:
    """Compare the answers to all examples with what was expected; raises `expected-mismatch` listing the rows."""
    wanted = _expected_rows(expected, manifest, len(trial.asked))
    got = [_only(answer, wanted[0]) for answer in trial.asked]
    problems = golden.differences(got, wanted, rule(manifest, wanted))
    if problems:
        raise error(
            "expected-mismatch",
            f"{manifest.model}: {len(problems)} answers are not what was expected",
            hint="expected= holds the answers to examples=, in the same order",
            details=_shown(problems),
        )


def require_same(trial: Trial, own: Sequence[Any], manifest: Manifest) -> None:
    """The worker must answer as the model object itself did, within rounding; raises `expected-mismatch`."""
    if trial.determinism == "schema-only" or not own:
        return
    problems = golden.differences(trial.answers, own, rule(manifest, own, trial.tolerances))
    if problems:
        raise error(
            "expected-mismatch",
            f"{manifest.model}: the released model answers differently from the object it was made from",
            hint="does the model depend on something outside of it: a global, a file, the working directory?",
            details=_shown(problems),
        )


def rule(manifest: Manifest, expected: Sequence[Any], known: Mapping[str, Tolerance] | None = None) -> golden.Rule:
    """Equality within rounding: numbers may differ by the known tolerances, at least by the smallest of the ladder."""
    private = frozenset(field.name for field in manifest.signature.outputs if field.private)
    tolerances = {
        field.name: golden.tolerance(expected, field.name, golden.RTOLS[0]) for field in manifest.signature.outputs
    }
    return golden.Rule("tolerance", {**tolerances, **(known or {})}, private)


def _expected_rows(expected: Any, manifest: Manifest, count: int) -> list[dict[str, Any]]:
    outputs = {field.name: field for field in manifest.signature.outputs}
    named = isinstance(expected, Mapping) or hasattr(expected, "columns")
    if named:
        fields: list[Field] = [field for name, field in outputs.items() if name in expected]
        unknown = [str(name) for name in (expected.columns if hasattr(expected, "columns") else expected)]
        unknown = [name for name in unknown if name not in outputs]
        if unknown or not fields:
            raise error(
                "bad-examples",
                f"expected names {', '.join(unknown) or 'nothing'}; the outputs are {', '.join(outputs)}",
            )
    else:
        fields = [outputs.get("prediction", manifest.signature.outputs[0])]
        expected = {fields[0].name: expected if hasattr(expected, "dtype") else np.asarray(expected)}
    rows = to_rows(expected, fields)
    if len(rows) != count:
        raise error("bad-examples", f"expected has {len(rows)} rows, examples have {count}")
    return rows


def _only(answer: Any, wanted: Mapping[str, Any]) -> Any:
    if not isinstance(answer, dict) or "error" in answer:
        return answer
    return {name: value for name, value in answer.items() if name in wanted}


def _require_answers(answers: Sequence[Any], manifest: Manifest) -> None:
    failures = {
        row: answer["error"]
        for row, answer in enumerate(answers)
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict)
    }
    problems = [f"golden row {row}: {found.get('code')}: {found.get('detail')}" for row, found in failures.items()]
    if problems:
        hint = "leave such rows out of the examples (values of private fields are replaced by zeros and blanks)"
        if all(found.get("code") == "non-finite-output" for found in failures.values()):
            hint = _allowing_non_finite(manifest)
        elif all("FileNotFoundError" in str(found.get("detail")) for found in failures.values()):
            hint = "add the file that it opens (the log names it) to include, or give it in files= and read it in load"
        raise error(
            "bad-examples",
            f"{manifest.model} can't answer all of its golden rows, which are chosen from the examples",
            hint=hint,
            details=_shown(problems),
        )


def _allowing_non_finite(manifest: Manifest) -> str:
    """How a person declares the outputs that may be NaN, spelled out for those of this release."""
    spelled = "".join(f"{_spelled(field)}, " for field in manifest.signature.outputs)
    return (
        "either let the model return a number for every row, or allow NaN and infinity, which are then sent as null, "
        f"with salver.release(…, signature=salver.Signature(inputs=(…), outputs=({spelled.strip()})))"
    )


def _spelled(field: Field) -> str:
    if isinstance(field, Column):
        allowed = ", non_finite=True" * (field.type == "float")
        return f"salver.Column({field.name!r}, {field.type!r}{allowed})"
    allowed = ", non_finite=True" * ("float" in field.dtype)
    return f"salver.Tensor({field.name!r}, {field.dtype!r}, {field.shape}{allowed})"


async def _ask(local: LocalRelease, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    reply = await local.ask("native", body(rows))
    try:
        return golden.answer_rows(reply.body)
    except ValueError as problem:
        raise error("bad-examples", f"the release can't answer its examples: {problem}") from None


def _shown(problems: Sequence[str]) -> tuple[str, ...]:
    rest = len(problems) - SHOWN
    return (*problems[:SHOWN], *([f"and {rest} more"] if rest > 0 else []))


def _run(candidate: Candidate, options: tuple[str, ...], act: Callable[[LocalRelease], Coroutine[Any, Any, T]]) -> T:
    """Do `act` with a worker of it, from code that isn't asynchronous, also inside a notebook's event loop."""

    async def with_worker() -> T:
        name, seconds = f"{candidate.manifest.model}@new", candidate.load_timeout
        flags = options if candidate.locked else (*options, ANY_ENVIRONMENT)
        local = LocalRelease(candidate.folder, name, options=flags, load_timeout=seconds, cache=candidate.cache)
        async with local:
            return await act(local)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(with_worker())
    return _in_thread(lambda: asyncio.run(with_worker()))


def _in_thread(act: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result()
