"""Columns of outputs as JSON values and rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from salver.errors import SalverError
from salver.protocols import Encoded, Part
from salver.protocols.refusals import refusal_body, refusal_status
from salver.protocols.rows import refusal, struct_of, told
from salver.signature import Column, Field
from salver.tables import Columns, may_be_null

ENCODER = msgspec.json.Encoder()


def values_of(field: Field) -> Callable[[Any], list[Any]]:
    """The function that turns an output's array into one JSON value per row; NaN is left for the encoder's null."""
    if not isinstance(field, Column):
        return _rows
    if field.type == "int" and may_be_null(field):
        return _integers
    return _datetimes if field.type == "datetime" else _plain


def _plain(array: Any) -> list[Any]:
    values: list[Any] = array.tolist()
    return values


def _rows(array: Any) -> list[Any]:
    return [row.tolist() for row in array] if array.dtype == object and array.ndim == 1 else _plain(array)


def _integers(array: Any) -> list[int | None]:
    return [None if value != value else int(value) for value in array.tolist()]


def _datetimes(array: Any) -> list[str | None]:
    texts = np.datetime_as_string(array.astype("datetime64[us]"), timezone="UTC").tolist()
    return [None if text == "NaT" else text for text in texts]


def refused(problem: SalverError, row_errors: int) -> Encoded:
    """The answer to a refused request in the formats that say `{"error": text}`; an invalid row is a 400 there."""
    return refused_at("v1", problem, row_errors)


def refused_at(endpoint: str, problem: SalverError, row_errors: int, dialect: str = "") -> Encoded:
    """The answer to a refused request in the shape of an endpoint's errors, with the status of a dialect."""
    body, content_type = refusal_body(problem, endpoint, told(problem))
    return Encoded(refusal_status(problem, endpoint, dialect), body, content_type, row_errors, problem.code)


def failed(part: Part, failures: Mapping[int, SalverError]) -> dict[int, SalverError]:
    """The failures of a part's rows, by their place within it."""
    if not failures:
        return {}
    return {row - part.start: failures[row] for row in range(part.start, part.start + part.count) if row in failures}


def problem_of(part: Part, failures: Mapping[int, SalverError]) -> tuple[SalverError | None, int]:
    """What refuses a part that is answered whole or not at all, and how many of its rows failed."""
    errors = failed(part, failures) if part.failure is None else {}
    return (refusal(errors, part.rows), len(errors)) if errors else (part.failure, 0)


def in_place(
    part: Part, texts: Sequence[bytes], failures: Mapping[int, SalverError]
) -> tuple[Sequence[bytes], dict[int, SalverError]]:
    """The JSON of every row of a request in its order, an error where a row has no answer; and those errors.

    `texts` holds the answers of all rows of the batch; where it is empty, only the errors are looked for.
    """
    stop = part.start + part.count
    if not part.errors and not (failures and any(part.start <= row < stop for row in failures)):
        return texts[part.start : stop], {}
    errors: dict[int, SalverError] = {}
    bodies: list[bytes] = []
    row = part.start
    for index in range(part.rows):
        problem = part.errors.get(index)
        if problem is None:
            problem = failures.get(row)
            bodies.append(texts[row] if texts else b"")
            row += 1
        else:
            bodies.append(b"")
        if problem is not None:
            errors[index] = problem
            bodies[index] = ENCODER.encode({"error": {"code": problem.code, "detail": told(problem)}})
    return bodies, errors


def lines(values: Any) -> list[bytes]:
    """Each value as its own JSON text, from one call of the encoder: JSON never holds a bare line break."""
    return ENCODER.encode_lines(values).split(b"\n")[:-1]


def row_encoder(outputs: tuple[Field, ...]) -> Callable[[Columns], list[bytes]]:
    """Compile the function that writes each row of the outputs as a JSON object."""
    answer = struct_of("Answer", outputs, [Any] * len(outputs), kw_only=False)
    makers = [(field.name, values_of(field)) for field in outputs]

    def encode(columns: Columns) -> list[bytes]:
        return lines(map(answer, *[values(columns[name]) for name, values in makers]))

    return encode
