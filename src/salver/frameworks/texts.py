"""The one column of text that language models take."""

from __future__ import annotations

from salver.errors import error
from salver.frameworks import Columns
from salver.signature import Column, Signature


def texts(columns: Columns, signature: Signature) -> list[str]:
    """The one text column of these columns."""
    return list(columns[signature.inputs[0].name])


def require_one_text(signature: Signature, adapter: str) -> None:
    """Refuse a signature whose input is not exactly one column of text."""
    only, names = signature.inputs[0], ", ".join(field.name for field in signature.inputs)
    if len(signature.inputs) > 1 or not isinstance(only, Column) or only.type not in ("str", "category"):
        raise error(
            "bad-signature",
            f"{adapter}: the input must be one column of text, not {names}",
            hint='give examples with that column only: examples[["text"]]',
        )
