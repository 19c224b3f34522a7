"""The parameters that change what V2 data means, alike over HTTP and gRPC; all others say nothing here.

`nulls` of an input lists the rows that are null (`0,3`). The content type `base64` of an input, which is MLServer's,
says that its text came as base64; MLServer's other types say what the signature knows. A request that belongs to a
sequence is refused, since no model keeps a state between requests.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Any

from salver.errors import error
from salver.protocols.v2.datatypes import bad

NULLS = "nulls"
CONTENT_TYPE = "content_type"
BASE64 = "base64"
SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
NOT_OFFERED = {
    "shared_memory_region": ("shared memory", "send inputs in the body, and take outputs from the answer"),
    "classification": ("classification", "ask for the scores"),
}
"""Parameters of inputs and outputs that are refused, what they ask for, and what to do."""


def check_sequence(given: Iterable[tuple[str, Any]]) -> None:
    """Refuse a request whose parameters make it a part of a sequence; zero, false and empty ones don't."""
    for name, value in given:
        if value and name in SEQUENCE:
            raise error(
                "not-implemented",
                f"parameters.{name}: sequences are not served, no model keeps a state between requests",
                hint="send all that an answer depends on in one request",
            )


def check_offered(given: Iterable[tuple[str, Any]], where: str) -> None:
    """Refuse the parameters of an input or output that ask for what there is not."""
    for name, value in given:
        if value and name in NOT_OFFERED:
            what, hint = NOT_OFFERED[name]
            raise error("not-implemented", f"{where}: {what} is not offered", hint=hint)


def null_rows(said: str) -> tuple[int, ...]:
    """The rows that the parameter `nulls` lists."""
    try:
        return tuple(int(row) for row in said.split(",") if row)
    except ValueError:
        raise bad("the parameter nulls must list rows, like 0,3") from None


def blank(cells: list[Any], rows: Iterable[int], where: str) -> None:
    """Make these rows null."""
    for row in rows:
        if not 0 <= row < len(cells):
            raise bad(f"{where}: the parameter nulls lists a row that there is not")
        cells[row] = None


def from_base64(datatype: str, values: Iterable[Any], where: str) -> list[bytes]:
    """The bytes that each value stands for, text or bytes of base64."""
    if datatype != "BYTES":
        raise bad(f"{where}: content_type base64 is for BYTES, not {datatype}")
    try:
        return [b64decode(value, validate=True) for value in values]
    except (ValueError, TypeError):
        raise error(
            "invalid-row",
            f"{where}: content_type is base64, and a value is not",
            hint="encode every element, or leave content_type out",
        ) from None


def check_matrix(nulls: Sequence[Any], where: str, *, base64: bool) -> None:
    """Refuse what can't be said of the matrix of all columns."""
    if nulls:
        raise bad(f"{where}: send each column as a tensor of its own to state nulls")
    if base64:
        raise bad(f"{where}: content_type base64 is for BYTES")
