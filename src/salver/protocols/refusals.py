"""Errors in the shape of the endpoint they answer; numpy stays out, so that gateway and worker say the same."""

from __future__ import annotations

from typing import Any

import msgspec

from salver.errors import SalverError, problem_json

PROBLEM = "application/problem+json"
JSON = "application/json"
MLFLOW = "mlflow"
OF_MODEL = ("model-error", "row-count", "bad-output", "non-finite-output", "poison-request")
"""The errors of models that MLflow's server answers as it does bad requests."""


def settled(problem: SalverError) -> SalverError:
    """The error without its traceback, whose frames hold the body, and often the error itself: a cycle."""
    problem.__traceback__ = problem.__context__ = problem.__cause__ = None
    return problem


def refusal_body(problem: SalverError, endpoint: str, text: str = "") -> tuple[bytes, str]:
    """An error as the body of an answer, and its media type; `text` is said where a shape has room for one text."""
    if endpoint == "native":
        return problem_json(problem), PROBLEM
    text = text or problem.message
    return msgspec.json.encode(_shaped(problem, f"{text} ({problem.hint})" if problem.hint else text, endpoint)), JSON


def status_in(dialect: str, problem: SalverError) -> int:
    """The HTTP status of an error in a dialect: to MLflow's clients one of the model is a 400."""
    return 400 if dialect == MLFLOW and problem.code in OF_MODEL else problem.meaning.http


def refusal_status(problem: SalverError, endpoint: str, dialect: str = "") -> int:
    """The HTTP status of an error: outside the native format an invalid row is a 400."""
    status = status_in(dialect, problem)
    return 400 if status == 422 and endpoint != "native" else status


def _shaped(problem: SalverError, text: str, endpoint: str) -> dict[str, Any]:
    if endpoint == "invocations":
        return {"error_code": problem.code.upper().replace("-", "_"), "message": text}
    if endpoint == "torchserve":
        return {"code": refusal_status(problem, endpoint), "type": problem.code, "message": text}
    return {"error": text}
