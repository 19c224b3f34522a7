"""The native protocol, used in this process: request rows to the columns a model gets, raw answers to answer rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from salver import golden, plugins, tables
from salver.errors import error
from salver.protocols import Codec, Decoded, Subject
from salver.signature import Signature

SHOWN = 20


class Native:
    """The native codec of a signature."""

    def __init__(self, model: str, signature: Signature) -> None:
        self._signature = signature
        self._codec: Codec = plugins.protocol("native").codec(Subject(model, 0, "", signature))

    def decode(self, rows: Sequence[Mapping[str, Any]]) -> Decoded:
        """The columns that a model gets for these rows; raises `bad-examples` naming each row that isn't valid."""
        decoded = self._codec.decode([body(rows)])
        part = decoded.parts[0]
        problems = [part.failure.message] if part.failure else []
        problems += [f"row {row}: {problem.message}" for row, problem in part.errors.items()]
        if problems:
            raise error("bad-examples", "the examples are no valid requests", details=tuple(problems[:SHOWN]))
        return decoded

    def answers(self, decoded: Decoded, raw: Any) -> list[Any]:
        """The answer rows for what a model returned; raises `bad-output` where that doesn't fit the signature."""
        outputs = tables.outputs_from(raw, self._signature.outputs, decoded.count)
        encoded = self._codec.encode(decoded, outputs, {})[0]
        try:
            return golden.answer_rows(encoded.body)
        except ValueError as problem:
            raise error("bad-output", f"the model's answers can't be written: {problem}") from None


def body(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The body of one native request that asks these rows."""
    return msgspec.json.encode(list(rows))
